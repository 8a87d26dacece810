//! How fast a guest's flows are, in each direction, and who is the next.
//!
//! A bucket fills with the rate and holds a burst. While it has something, flows take
//! from it as they come. One that finds it empty waits in line, and is granted a share
//! when it is full enough, and then waits behind the others: that is fair among flows
//! however many segments each has. Messages do not wait in line: between two shares of
//! streams they may take as much as one, so that neither starves the other.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::io::FlowId;
use crate::policy::Limits;

/// Shares of a second in which a flow is granted something, at most.
const SHARES_PER_SECOND: u64 = 50;
/// Bounds of a share: a segment, and what a flow passes on in a turn anyhow.
const SHARE_BYTES: (u64, u64) = (1500, 256 << 10);
/// Part of a second that passes at once after a silence, unless it is said.
const BURSTS_PER_SECOND: u64 = 10;
/// Parts of a second that a guest may send ahead.
const WINDOWS_PER_SECOND: u64 = 10;
/// Least that it may: less would be a segment at a time.
const MIN_WINDOW_BYTES: u64 = 16 << 10;
const NANOS: u128 = 1_000_000_000;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the guest.
    In,
    /// From the guest.
    Out,
}

/// The rates of both ways.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    pub(crate) inward: Rate,
    pub(crate) outward: Rate,
}

impl Rates {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            inward: Rate::new(limits.rate_in, limits.burst),
            outward: Rate::new(limits.rate_out, limits.burst),
        }
    }

    pub(crate) fn of(&mut self, way: Way) -> &mut Rate {
        match way {
            Way::In => &mut self.inward,
            Way::Out => &mut self.outward,
        }
    }

    /// When somebody who waits can go on.
    pub(crate) fn due(&self) -> Option<Instant> {
        let both = [self.inward.due(), self.outward.due()];
        both.into_iter().flatten().min()
    }

    /// Times that a flow had to wait.
    pub(crate) fn waits(&self) -> u64 {
        self.inward.waits.saturating_add(self.outward.waits)
    }
}

/// What a flow has been granted of one way's rate, and whether it waits for more.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Share {
    granted: u64,
    is_waiting: bool,
}

impl Share {
    pub(crate) fn is_waiting(&self) -> bool {
        self.is_waiting
    }
}

/// One way's rate; without a limit nothing here does anything.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    bucket: Option<Bucket>,
    /// Flows that wait, in turn.
    waiting: VecDeque<FlowId>,
    /// Bytes of messages since a flow was granted something.
    message_bytes: u64,
    /// A message waits, too.
    has_message: bool,
    waits: u64,
}

#[derive(Debug)]
struct Bucket {
    rate: u64,
    burst: u64,
    share: u64,
    /// What may pass now; less than nothing after a message that was longer.
    tokens: i64,
    /// Up to when it was filled; it is full at first.
    filled: Option<Instant>,
}

impl Bucket {
    fn new(rate: u64, burst: Option<NonZeroU64>) -> Self {
        let burst = burst.map_or(rate / BURSTS_PER_SECOND, NonZeroU64::get);
        let burst = burst.clamp(SHARE_BYTES.0, i64::MAX.cast_unsigned() / 2);
        let share = (rate / SHARES_PER_SECOND).clamp(SHARE_BYTES.0, SHARE_BYTES.1);
        Self {
            rate,
            burst,
            share: share.min(burst),
            tokens: burst.cast_signed(),
            filled: None,
        }
    }

    fn fill(&mut self, now: Instant) {
        let filled = *self.filled.get_or_insert(now);
        let passed = now.saturating_duration_since(filled).as_nanos();
        let bytes = passed.saturating_mul(self.rate.into()) / NANOS;
        let missing = self.burst.cast_signed().saturating_sub(self.tokens);
        let missing = u64::try_from(missing).unwrap_or(0);
        match u64::try_from(bytes) {
            Ok(bytes) if bytes < missing => {
                self.tokens = self.tokens.saturating_add_unsigned(bytes);
                // Parts of a byte are not lost, nor counted twice.
                self.filled = filled.checked_add(self.time_of(bytes));
            }
            _ => {
                self.tokens = self.burst.cast_signed();
                self.filled = Some(now);
            }
        }
    }

    /// How long it takes to fill with so much.
    fn time_of(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes).saturating_mul(NANOS) / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn has_share(&self) -> bool {
        self.tokens >= self.share.cast_signed()
    }

    fn take(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_sub_unsigned(bytes);
    }
}

impl Rate {
    fn new(rate: Option<NonZeroU64>, burst: Option<NonZeroU64>) -> Self {
        Self {
            bucket: rate.map(|rate| Bucket::new(rate.get(), burst)),
            ..Self::default()
        }
    }

    /// What a flow may pass on now.
    pub(crate) fn allowed(&mut self, share: &Share, now: Instant) -> usize {
        let Some(bucket) = &mut self.bucket else {
            return usize::MAX;
        };
        let bytes = if share.granted > 0 {
            share.granted
        } else if self.waiting.is_empty() {
            bucket.fill(now);
            u64::try_from(bucket.tokens).unwrap_or(0).min(bucket.share)
        } else {
            // Who waits comes first.
            0
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Most that a flow passes on in a turn.
    pub(crate) fn turn_bytes(&self) -> usize {
        match &self.bucket {
            Some(bucket) => usize::try_from(bucket.share).unwrap_or(usize::MAX),
            None => usize::MAX,
        }
    }

    /// What a guest may send ahead of what is passed on.
    pub(crate) fn window_bytes(&self) -> u64 {
        match &self.bucket {
            Some(bucket) => (bucket.rate / WINDOWS_PER_SECOND).max(MIN_WINDOW_BYTES),
            None => u64::MAX,
        }
    }

    /// A flow has passed on so much of what it was allowed.
    pub(crate) fn passed(&mut self, share: &mut Share, bytes: usize) {
        let Some(bucket) = &mut self.bucket else {
            return;
        };
        let bytes = bytes as u64;
        let granted = bytes.min(share.granted);
        share.granted -= granted;
        bucket.take(bytes - granted);
    }

    /// A flow was allowed nothing, and has something: it waits in line.
    pub(crate) fn wait(&mut self, share: &mut Share, id: FlowId) {
        if self.bucket.is_some() && !share.is_waiting {
            share.is_waiting = true;
            self.waits = self.waits.saturating_add(1);
            self.waiting.push_back(id);
        }
    }

    /// The next in line, if there is a share for it, which is to be [`Rate::grant`]ed.
    pub(crate) fn next(&mut self, now: Instant) -> Option<FlowId> {
        if self.waiting.is_empty() {
            return None;
        }
        let bucket = self.bucket.as_mut()?;
        bucket.fill(now);
        bucket.has_share().then(|| self.waiting.pop_front())?
    }

    pub(crate) fn grant(&mut self, share: &mut Share) {
        let Some(bucket) = &mut self.bucket else {
            return;
        };
        bucket.take(bucket.share);
        self.message_bytes = 0;
        share.is_waiting = false;
        share.granted = share.granted.saturating_add(bucket.share);
    }

    /// What a flow was granted and did not need, others may have.
    pub(crate) fn give_back(&mut self, share: &mut Share) {
        if let Some(bucket) = &mut self.bucket
            && share.granted > 0
        {
            let tokens = bucket.tokens.saturating_add_unsigned(share.granted);
            bucket.tokens = tokens.min(bucket.burst.cast_signed());
            share.granted = 0;
        }
    }

    /// A flow has ended.
    pub(crate) fn forget(&mut self, share: &mut Share, id: FlowId) {
        self.give_back(share);
        if std::mem::take(&mut share.is_waiting) {
            self.waiting.retain(|waiting| *waiting != id);
        }
    }

    /// Whether a message may pass now.
    pub(crate) fn has_room_for_message(&mut self, now: Instant) -> bool {
        let Some(bucket) = &mut self.bucket else {
            return true;
        };
        bucket.fill(now);
        match self.waiting.is_empty() {
            true => bucket.tokens > 0,
            false => self.message_bytes < bucket.share,
        }
    }

    /// A message has passed.
    pub(crate) fn message_passed(&mut self, bytes: usize) {
        if let Some(bucket) = &mut self.bucket {
            self.message_bytes = self.message_bytes.saturating_add(bytes as u64);
            bucket.take(bytes as u64);
        }
    }

    /// Whether a message waits that could not pass.
    pub(crate) fn hold_message(&mut self, is_held: bool) {
        if is_held && !self.has_message {
            self.waits = self.waits.saturating_add(1);
        }
        self.has_message = is_held && self.bucket.is_some();
    }

    /// When somebody who waits can go on.
    fn due(&self) -> Option<Instant> {
        let bucket = self.bucket.as_ref()?;
        if self.waiting.is_empty() && !self.has_message {
            return None;
        }
        let missing = bucket.share.cast_signed().saturating_sub(bucket.tokens);
        let missing = u64::try_from(missing).unwrap_or(0);
        let time = bucket
            .time_of(missing)
            .saturating_add(Duration::from_nanos(1));
        bucket.filled?.checked_add(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(rate: u64, burst: u64) -> Rate {
        Rate::new(NonZeroU64::new(rate), NonZeroU64::new(burst))
    }

    #[test]
    fn bucket_fills_with_the_rate_and_holds_a_burst() {
        let now = Instant::now();
        let mut bucket = Bucket::new(1_000_000, NonZeroU64::new(50_000));
        bucket.fill(now);
        assert_eq!(bucket.tokens, 50_000);
        bucket.take(50_000);
        // Parts of bytes add up: a thousand times a third of a byte.
        let mut later = now;
        for _ in 0..3000 {
            later += Duration::from_nanos(333);
            bucket.fill(later);
        }
        assert_eq!(bucket.tokens, 999);
        bucket.fill(now + Duration::from_secs(3600));
        assert_eq!(bucket.tokens, 50_000);
        // Time does not go back, and no rate is too much.
        bucket.fill(now);
        assert_eq!(bucket.tokens, 50_000);
        let mut endless = Bucket::new(u64::MAX, NonZeroU64::new(u64::MAX));
        endless.fill(now);
        endless.take(u64::MAX);
        endless.fill(now + Duration::from_secs(u32::MAX.into()));
        assert!(endless.tokens > 0);
    }

    #[test]
    fn those_in_line_have_one_share_after_the_other() {
        let mut rate = rate(100_000, 2000);
        let mut now = Instant::now();
        let mut shares = [Share::default(); 3];
        let mut got = [0_usize; 3];
        // The first comes and takes what there is; all want more than that.
        while rate.allowed(&shares[0], now) > 0 {
            let bytes = rate.allowed(&shares[0], now);
            rate.passed(&mut shares[0], bytes);
        }
        for (share, id) in shares.iter_mut().zip(0..) {
            assert_eq!(rate.allowed(share, now), 0);
            rate.wait(share, FlowId(id));
            rate.wait(share, FlowId(id));
        }
        for _ in 0..300 {
            now = rate.due().unwrap();
            while let Some(id) = rate.next(now) {
                let place = id.0 as usize;
                rate.grant(&mut shares[place]);
                // Nobody who comes meanwhile is before those in line.
                let stranger = rate.allowed(&Share::default(), now);
                let bytes = rate.allowed(&shares[place], now);
                rate.passed(&mut shares[place], bytes);
                got[place] += bytes;
                rate.wait(&mut shares[place], id);
                assert_eq!(stranger, 0);
            }
        }
        let (least, most) = (got.iter().min(), got.iter().max());
        assert!(most.unwrap() - least.unwrap() <= 2000, "{got:?}");
        assert!(got.iter().sum::<usize>() >= 300 * 1500, "{got:?}");
        // Whoever ends leaves the line.
        for (share, id) in shares.iter_mut().zip(0..) {
            rate.forget(share, FlowId(id));
        }
        assert_eq!(rate.due(), None);
    }

    #[test]
    fn messages_and_streams_leave_one_another_their_part() {
        let mut rate = rate(100_000, 2000);
        let begin = Instant::now();
        let mut share = Share::default();
        let (mut streams, mut messages) = (0, 0);
        rate.allowed(&share, begin);
        rate.wait(&mut share, FlowId(0));
        for millis in 0..10_000 {
            let now = begin + Duration::from_millis(millis);
            // As many messages as can be, and at each moment.
            while rate.has_room_for_message(now) {
                rate.message_passed(700);
                messages += 700;
            }
            while let Some(id) = rate.next(now) {
                rate.grant(&mut share);
                let bytes = rate.allowed(&share, now);
                rate.passed(&mut share, bytes);
                streams += bytes;
                rate.wait(&mut share, id);
            }
        }
        let all = streams + messages;
        assert!((990_000..1_010_000).contains(&all), "{streams} {messages}");
        assert!(
            streams > 300_000 && messages > 300_000,
            "{streams} {messages}"
        );
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut rate = Rate::default();
        let now = Instant::now();
        let mut share = Share::default();
        assert_eq!(rate.allowed(&share, now), usize::MAX);
        rate.passed(&mut share, usize::MAX);
        rate.wait(&mut share, FlowId(1));
        rate.hold_message(true);
        assert!(rate.has_room_for_message(now));
        assert_eq!((rate.due(), rate.next(now)), (None, None));
    }
}
