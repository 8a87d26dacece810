//! What other threads share with a vCPU: its attention word, the place it
//! sleeps in during WFI, and its mailbox of TLB and code invalidations.
//!
//! # The shoot-down protocol
//! A TLBI or IC to the inner shareable domain is applied locally and posted to
//! every other vCPU; the sender waits for it at its next DSB (Arm ARM D8.14),
//! through [`AckWait`]. A vCPU that is outside guest execution or parked counts
//! as done: it takes its mail before it executes the next guest instruction.
//! The two sides meet in sequentially consistent order: a sender posts, then
//! reads the state; a vCPU writes [`State::Running`], then reads its attention.
//! So a sender that saw "not running" has its message seen on entry. A vCPU that
//! waits does not count as running either ([`State::Waiting`]), so two senders
//! cannot deadlock. A sender looks for some microseconds and then sleeps, since
//! what it waits for may need its host core: [`VcpuShared::wait_for`].

use crate::inherit::CodePlace;
pub use crate::mail::{CodeRange, CodeRanges, TlbBatch, TlbInvalidate};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

/// Bits of [`VcpuShared::attention`].
pub mod attention {
    /// `hv_vcpus_exit`: latched until a run returns `CANCELED`.
    pub const KICK: u32 = 1;
    /// The virtual IRQ line went high: read `Gic::irq_line` again.
    pub const IRQ: u32 = 1 << 1;
    /// A timer deadline passed: call `VcpuTimers::poll`.
    pub const TIMER: u32 = 1 << 2;
    /// TLB invalidations are in the mailbox.
    pub const TLB: u32 = 1 << 3;
    /// Code invalidations are in the mailbox.
    pub const CODE: u32 = 1 << 4;
    /// The IPA map changed: refresh the view and flush the whole TLB.
    pub const MAP: u32 = 1 << 5;

    /// Pages count as clean again, or other ones are followed.
    pub const DIRTY: u32 = 1 << 6;

    /// What [`super::VcpuShared::take_mail`] clears.
    pub const MAIL: u32 = TLB | CODE | MAP | DIRTY;
    /// What ends a WFI. Mail does not: a parked vCPU takes it when it wakes.
    pub const WAKE: u32 = KICK | IRQ | TIMER;
}

/// What a vCPU took out of its mailbox. Apply all of it, then
/// [`VcpuShared::acknowledge`] it.
#[derive(Debug, Default)]
#[must_use = "senders wait until the mail is applied and acknowledged"]
pub struct Mail {
    /// TLB invalidations.
    pub tlb: TlbBatch,
    /// Code invalidations.
    pub code: CodeRanges,
    /// The IPA map changed: refresh the view and flush the whole TLB.
    pub map_changed: bool,
    /// Look at the dirty log anew and lose every direct write.
    pub writes_revoked: bool,
    ticket: u64,
}

/// Where the owning thread of a vCPU is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Not in `hv_vcpu_run`.
    Outside = 0,
    /// Executing guest code.
    Running = 1,
    /// Asleep in WFI.
    Parked = 2,
    /// In a DSB: waits for other vCPUs, and takes its mail before it executes
    /// anything more.
    Waiting = 3,
}

/// The part of a vCPU that other threads see.
#[derive(Debug)]
#[repr(align(128))]
pub struct VcpuShared {
    /// Reasons to leave the fast path, bits of [`attention`]. The run loop
    /// reads it relaxed at every block boundary.
    pub attention: AtomicU32,
    state: AtomicU8,
    index: usize,
    owner: Thread,
    mailbox: Mutex<Mail>,
    applied: AtomicU64,
    /// Threads asleep until a message of theirs settles here.
    waiters: Mutex<Vec<Thread>>,
    /// There are any; changed under the lock of `waiters` only.
    has_waiters: AtomicBool,
    /// Host counter value of the earliest timer deadline; `u64::MAX` for none.
    pub(crate) deadline: AtomicU64,
    /// The vCPU has executed guest code.
    pub(crate) has_run: AtomicBool,
    /// `MPIDR_EL1` was set through the ABI.
    affinity_set: AtomicBool,
    /// Where its decoded code is, for a process forked from this one.
    pub(crate) code: CodePlace,
}

impl VcpuShared {
    /// The shared part of vCPU `index`, owned by the calling thread.
    pub fn new(index: usize) -> Self {
        Self {
            attention: AtomicU32::new(0),
            state: AtomicU8::new(State::Outside as u8),
            index,
            owner: std::thread::current(),
            mailbox: Mutex::default(),
            applied: AtomicU64::new(0),
            waiters: Mutex::default(),
            has_waiters: AtomicBool::new(false),
            deadline: AtomicU64::new(u64::MAX),
            has_run: AtomicBool::new(false),
            affinity_set: AtomicBool::new(false),
            code: CodePlace::default(),
        }
    }

    /// Index of the vCPU in its VM, which is also its `hv_vcpu_t`.
    #[inline]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Whether `thread` is the one that created the vCPU.
    pub fn is_owned_by(&self, thread: std::thread::ThreadId) -> bool {
        self.owner.id() == thread
    }

    /// Notes that `MPIDR_EL1` was set, which fixes the redistributor.
    pub fn note_affinity(&self) {
        self.affinity_set.store(true, Ordering::Relaxed);
    }

    /// Whether `MPIDR_EL1` was set.
    pub fn has_affinity(&self) -> bool {
        self.affinity_set.load(Ordering::Relaxed)
    }

    /// Where the owning thread is now.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::SeqCst) {
            1 => State::Running,
            2 => State::Parked,
            3 => State::Waiting,
            _ => State::Outside,
        }
    }

    /// Marks the start of guest execution. The caller must look at
    /// [`Self::attention`] after this and before the first guest instruction.
    pub fn enter(&self) {
        self.has_run.store(true, Ordering::Relaxed);
        self.state.store(State::Running as u8, Ordering::SeqCst);
    }

    /// Marks the end of guest execution: no cached host address may be used
    /// until after the next [`Self::enter`] and [`Self::take_mail`].
    pub fn leave(&self) {
        self.stop_running(State::Outside);
    }

    /// Marks the start of a wait for other vCPUs, who need not wait for this
    /// one until [`Self::resume`].
    pub fn pause(&self) {
        self.stop_running(State::Waiting);
    }

    /// Marks the end of a wait. The caller must take its mail after this and
    /// before the next guest instruction.
    pub fn resume(&self) {
        self.state.store(State::Running as u8, Ordering::SeqCst);
    }

    fn stop_running(&self, state: State) {
        self.state.store(state as u8, Ordering::SeqCst);
        self.wake_waiters();
    }

    /// Wakes who waits for messages to settle here: after every change that may
    /// settle one. True if there was anybody.
    ///
    /// No wake-up is lost: a waiter sets the flag and then looks whether its
    /// message has settled, this settles messages and then looks at the flag,
    /// and all four are sequentially consistent.
    fn wake_waiters(&self) -> bool {
        if !self.has_waiters.load(Ordering::SeqCst) {
            return false;
        }
        let waiters = {
            let mut list = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            self.has_waiters.store(false, Ordering::SeqCst);
            std::mem::take(&mut *list)
        };
        waiters.iter().for_each(Thread::unpark);
        !waiters.is_empty()
    }

    /// Sleeps until message `ticket` has settled, so that the vCPU can have the
    /// host core of the caller.
    pub fn wait_for(&self, ticket: u64) {
        let this = std::thread::current();
        loop {
            {
                let mut list = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
                if !list.iter().any(|known| known.id() == this.id()) {
                    list.push(this.clone());
                }
                self.has_waiters.store(true, Ordering::SeqCst);
            }
            if self.is_settled(ticket) {
                break;
            }
            std::thread::park();
        }
        let mut list = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|known| known.id() != this.id());
        if list.is_empty() {
            self.has_waiters.store(false, Ordering::SeqCst);
        }
    }

    /// Sets attention bits and ends a WFI if they are of [`attention::WAKE`].
    pub fn raise(&self, bits: u32) {
        self.attention.fetch_or(bits, Ordering::SeqCst);
        if bits & attention::WAKE != 0 && self.state.load(Ordering::SeqCst) == State::Parked as u8 {
            self.owner.unpark();
        }
    }

    /// Clears attention bits and returns those of them that were set.
    pub fn take(&self, bits: u32) -> u32 {
        self.attention.fetch_and(!bits, Ordering::SeqCst) & bits
    }

    /// Sleeps until a bit of [`attention::WAKE`] is set or `timeout` passed
    /// (`None` never does). Owner only, between [`Self::enter`] and
    /// [`Self::leave`]. On return the state is Running again and the caller
    /// must look at its attention before the next guest instruction.
    pub fn park(&self, timeout: Option<Duration>) {
        self.stop_running(State::Parked);
        if self.attention.load(Ordering::SeqCst) & attention::WAKE == 0 {
            match timeout {
                Some(limit) => std::thread::park_timeout(limit),
                None => std::thread::park(),
            }
        }
        self.state.store(State::Running as u8, Ordering::SeqCst);
    }

    /// Posts a TLB invalidation. Returns the ticket to wait for.
    pub fn post_tlb(&self, message: TlbInvalidate) -> u64 {
        self.post(attention::TLB, |mail| mail.tlb.add(message))
    }

    /// Posts a code invalidation. Returns the ticket to wait for.
    pub fn post_code(&self, message: CodeRange) -> u64 {
        self.post(attention::CODE, |mail| mail.code.add(message))
    }

    /// Posts that the IPA map changed in `range`. Returns the ticket to wait for.
    pub fn post_map(&self, range: CodeRange) -> u64 {
        self.post(attention::MAP, |mail| {
            mail.map_changed = true;
            mail.code.add(range);
        })
    }

    /// Posts that writes are to be noted again. For a vCPU that does not run.
    pub fn post_dirty(&self) {
        let _ticket = self.post(attention::DIRTY, |mail| mail.writes_revoked = true);
    }

    /// Posts that the host replaced the content of `ranges`. For a vCPU that
    /// does not run.
    pub fn post_replaced(&self, ranges: &[CodeRange]) {
        let _ticket = self.post(attention::CODE, |mail| {
            ranges.iter().for_each(|range| mail.code.add(*range));
        });
    }

    fn post(&self, bit: u32, add: impl FnOnce(&mut Mail)) -> u64 {
        let ticket = {
            let mut mail = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
            add(&mut mail);
            mail.ticket += 1;
            mail.ticket
        };
        self.raise(bit);
        ticket
    }

    /// Empties the mailbox. Owner only.
    pub fn take_mail(&self) -> Mail {
        self.take(attention::MAIL);
        let mut mail = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = mail.ticket;
        let taken = std::mem::take(&mut *mail);
        mail.ticket = ticket;
        taken
    }

    /// What is in the mailbox of a vCPU whose thread is not there; `None` if
    /// another that is not there either was about to change it.
    pub fn try_take_mail(&self) -> Option<Mail> {
        let mut mail = self.mailbox.try_lock().ok()?;
        Some(std::mem::take(&mut *mail))
    }

    /// Tells senders that everything in `mail` is applied. Owner only. True if
    /// one was asleep until then.
    pub fn acknowledge(&self, mail: Mail) -> bool {
        self.applied.store(mail.ticket, Ordering::SeqCst);
        self.wake_waiters()
    }

    /// Whether message `ticket` is applied or will be before the next guest
    /// instruction of this vCPU.
    pub fn is_settled(&self, ticket: u64) -> bool {
        self.state.load(Ordering::SeqCst) != State::Running as u8
            || self.applied.load(Ordering::SeqCst) >= ticket
    }
}

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
        for (target, ticket) in self.open.drain(..) {
            target.wait_for(ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    const PAGE: TlbInvalidate = TlbInvalidate::VaAllAsids {
        va: 0x1000,
        pages: 1,
    };

    #[test]
    fn mail_is_taken_once_and_clears_its_attention() {
        let link = VcpuShared::new(0);
        link.post_tlb(TlbInvalidate::Asid(3));
        link.post_tlb(PAGE);
        link.post_code(CodeRange {
            pa: 0x4000,
            bytes: 64,
        });
        assert_eq!(
            link.attention.load(Ordering::Relaxed),
            attention::TLB | attention::CODE
        );
        let mail = link.take_mail();
        let expected = vec![TlbInvalidate::Asid(3), PAGE];
        assert_eq!(mail.tlb, TlbBatch::Each(expected));
        assert!(!mail.code.is_empty() && !mail.map_changed);
        assert_eq!(link.attention.load(Ordering::Relaxed), 0);
        link.acknowledge(mail);
        link.post_tlb(TlbInvalidate::All);
        assert_eq!(link.take_mail().tlb, TlbBatch::Everything);
        assert!(link.take_mail().tlb.is_empty());
    }

    #[test]
    fn only_a_running_vcpu_is_waited_for() {
        let link = VcpuShared::new(0);
        let ticket = link.post_tlb(PAGE);
        assert!(link.is_settled(ticket));
        link.enter();
        assert!(!link.is_settled(ticket));
        let mail = link.take_mail();
        assert!(!link.is_settled(ticket), "taken is not applied");
        link.acknowledge(mail);
        assert!(link.is_settled(ticket));
        let next = link.post_tlb(PAGE);
        assert!(!link.is_settled(next));
        link.leave();
        assert!(link.is_settled(next));
    }

    #[test]
    fn park_returns_at_its_deadline_and_at_once_if_attention_is_due() {
        let link = VcpuShared::new(0);
        link.enter();
        let start = Instant::now();
        link.park(Some(Duration::from_millis(5)));
        assert!(start.elapsed() >= Duration::from_millis(5));
        assert_eq!(link.state(), State::Running);
        link.raise(attention::KICK);
        link.park(None);
        assert_eq!(link.take(attention::KICK), attention::KICK);
    }

    #[test]
    fn mail_does_not_wake_a_parked_vcpu_but_an_interrupt_does() {
        std::thread::scope(|scope| {
            let (send, receive) = std::sync::mpsc::channel();
            let sleeper = scope.spawn(move || {
                let link = Arc::new(VcpuShared::new(0));
                link.enter();
                send.send(Arc::clone(&link)).unwrap();
                while link.attention.load(Ordering::SeqCst) & attention::WAKE == 0 {
                    link.park(None);
                }
                link.take(attention::WAKE)
            });
            let link = receive.recv().unwrap();
            while link.state() != State::Parked {
                std::thread::yield_now();
            }
            let ticket = link.post_tlb(PAGE);
            assert!(link.is_settled(ticket));
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!(link.state(), State::Parked);
            link.raise(attention::IRQ);
            assert_eq!(sleeper.join().unwrap(), attention::IRQ);
        });
    }

    /// Two vCPUs invalidate each other's "TLB" and wait, both at once, for
    /// many rounds: neither may deadlock, nor see a stale entry after a wait.
    #[test]
    fn two_senders_wait_for_each_other_without_deadlock_or_stale_entries() {
        const ROUNDS: u64 = 5_000;
        let links = [0, 1].map(|i| Arc::new(VcpuShared::new(i)));
        // What "page tables" say, and what each vCPU has cached of them.
        let truth = AtomicU64::new(0);
        let cached = [AtomicU64::new(0), AtomicU64::new(0)];
        let done = [AtomicBool::new(false), AtomicBool::new(false)];
        let service = |me: usize| {
            if links[me].attention.load(Ordering::Relaxed) & attention::MAIL != 0 {
                let mail = links[me].take_mail();
                if !mail.tlb.is_empty() {
                    cached[me].store(truth.load(Ordering::SeqCst), Ordering::SeqCst);
                }
                links[me].acknowledge(mail);
            }
        };
        let entered = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for me in [0, 1] {
                let (links, truth, cached, done) = (&links, &truth, &cached, &done);
                let entered = &entered;
                scope.spawn(move || {
                    let other = 1 - me;
                    let mut acks = AckWait::default();
                    links[me].enter();
                    // One that enters later has not looked at its mail yet.
                    entered.wait();
                    for _ in 0..ROUNDS {
                        service(me);
                        let now = truth.fetch_add(1, Ordering::SeqCst) + 1;
                        acks.add(&links[other], links[other].post_tlb(PAGE));
                        if !acks.poll() {
                            links[me].pause();
                            acks.wait();
                            links[me].resume();
                        }
                        service(me);
                        assert!(
                            links[other].state() != State::Running
                                || cached[other].load(Ordering::SeqCst) >= now
                        );
                    }
                    done[me].store(true, Ordering::SeqCst);
                    links[me].leave();
                });
            }
        });
        assert!(done.iter().all(|d| d.load(Ordering::SeqCst)));
    }

    /// The target settles each message in one of the ways there are, as soon as
    /// it is posted or a moment later; a lost wake-up would hang this.
    #[test]
    fn a_sleeping_sender_is_woken_by_everything_that_settles_its_message() {
        const ROUNDS: u64 = 20_000;
        let link = Arc::new(VcpuShared::new(0));
        link.enter();
        std::thread::scope(|scope| {
            let target = &link;
            let sender = scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let mut acks = AckWait::default();
                    acks.add(target, target.post_tlb(PAGE));
                    acks.wait();
                    assert!(acks.is_empty());
                }
            });
            let mut round = 0u32;
            while !sender.is_finished() {
                round = round.wrapping_add(1);
                if link.attention.load(Ordering::Relaxed) & attention::MAIL == 0 {
                    std::thread::yield_now();
                    continue;
                }
                // At times it is looked at so late that the sender sleeps.
                for _ in 0..round % 7 * 100 {
                    std::hint::spin_loop();
                }
                match round % 4 {
                    0 => link.leave(),
                    1 => link.pause(),
                    _ => {}
                }
                link.resume();
                let mail = link.take_mail();
                link.acknowledge(mail);
            }
        });
    }

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
