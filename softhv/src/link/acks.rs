//! What a vCPU has sent to others and not yet seen settled.

use super::VcpuShared;
use super::round::Round;
use crate::mail::CodeRange;
use crate::sync::Arc;

/// Messages a sender has posted and not yet seen settled. One per vCPU; also
/// used by threads that edit the IPA map.
#[derive(Debug, Default)]
pub struct AckWait {
    open: Vec<(Arc<VcpuShared>, u64)>,
    /// Stale code that is still to be posted: lines next to each other go as
    /// one message.
    unsent: Option<CodeRange>,
}

/// How often a waiting thread looks before it sleeps: a few microseconds, in
/// which a vCPU that has a host core gets to the end of its block.
const LOOKS: u32 = 128;

impl AckWait {
    /// Notes that `target` must settle `ticket`.
    pub fn add(&mut self, target: &Arc<VcpuShared>, ticket: u64) {
        for (known, last) in &mut self.open {
            if Arc::ptr_eq(known, target) {
                *last = ticket;
                return;
            }
        }
        self.open.push((Arc::clone(target), ticket));
    }

    /// Whether nothing is outstanding: the fast check of a DSB.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.unsent.is_none()
    }

    /// Notes stale code that other vCPUs have to be told of until the next DSB.
    /// Returns what is to be told at once, because it is somewhere else.
    #[must_use]
    pub fn defer_code(&mut self, range: CodeRange) -> Option<CodeRange> {
        if let Some(joined) = self.unsent.and_then(|unsent| unsent.joined(range)) {
            self.unsent = Some(joined);
            return None;
        }
        self.unsent.replace(range)
    }

    /// Takes what [`Self::defer_code`] noted last.
    #[must_use]
    pub fn take_unsent(&mut self) -> Option<CodeRange> {
        self.unsent.take()
    }

    /// Forgets what has settled; `true` if nothing is left.
    pub fn poll(&mut self) -> bool {
        self.open
            .retain(|(target, ticket)| !target.is_settled(*ticket));
        self.open.is_empty()
    }

    /// Waits until everything settled. Only for threads that are no vCPU, or
    /// whose vCPU does not count as running: else two could wait for each other.
    pub fn wait(&mut self) {
        for _ in 0..LOOKS {
            if self.poll() {
                return;
            }
            std::hint::spin_loop();
        }
        self.sleep();
    }

    /// As [`Self::wait`], without a look before it sleeps.
    pub fn sleep(&mut self) {
        let round = Round::new();
        for (target, ticket) in self.open.drain(..) {
            target.register(ticket, &round);
        }
        round.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_posted_as_one_message_unless_they_are_apart() {
        let line = |pa| CodeRange { pa, bytes: 64 };
        let mut acks = AckWait::default();
        assert_eq!(acks.defer_code(line(0x1000)), None);
        assert_eq!(acks.defer_code(line(0x1040)), None);
        assert!(!acks.is_empty(), "a DSB has something to do");
        let whole = CodeRange {
            pa: 0x1000,
            bytes: 128,
        };
        assert_eq!(acks.defer_code(line(0x9000)), Some(whole));
        assert_eq!(acks.take_unsent(), Some(line(0x9000)));
        assert!(acks.is_empty() && acks.take_unsent().is_none());
    }
}
