//! What other threads share with a vCPU: its attention word, the place it
//! sleeps in during WFI, its mailbox of TLB and code invalidations, and notes of
//! what it holds.
//!
//! # The shoot-down protocol
//! A TLBI or IC to the inner shareable domain is applied locally and posted to
//! every other vCPU that may hold what it is about ([`Held`]). For a TLBI the
//! sender waits at its next DSB (Arm ARM D8.14), through [`AckWait`], for those
//! that may be using it. A vCPU that is outside guest execution or parked counts
//! as done: it takes its mail before it executes the next guest instruction.
//! So does one whose current address space is another than the message's: it
//! takes its mail between the switch to that one and its first use.
//!
//! Nobody waits for stale code to go. A vCPU may execute what it fetched before
//! until its next context synchronisation event (Arm ARM B2.7.4), and each of
//! those returns to the run loop, which looks at the mail; so does every branch
//! by register or to another page.
//!
//! The two sides meet with a full barrier each: a sender posts, passes it, then
//! reads the state; a vCPU writes [`State::Running`], passes it, then reads its
//! attention. So a sender that saw "not running" has its message seen on entry.
//! A vCPU that waits does not count as running either ([`State::Waiting`]), so
//! two senders cannot deadlock. A sender looks for some microseconds and then
//! sleeps, since what it waits for may need its host core: [`round`].
//! `tests/model.rs` tries all orders of this.

mod acks;
pub mod attention;
pub mod round;

use crate::code_place::CodePlace;
use crate::held::Held;
pub use crate::mail::{CodeRange, CodeRanges, TlbBatch, TlbInvalidate};
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use crate::sync::{Arc, Mutex, PoisonError, Thread, current, park, park_timeout};
pub use acks::AckWait;
use round::{Round, Waiters};
use std::sync::atomic;
use std::time::Duration;

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
    waiters: Waiters,
    /// What it may hold, and so needs to be told of.
    pub held: Held,
    /// Host counter value of the earliest timer deadline; `u64::MAX` for none.
    pub(crate) deadline: atomic::AtomicU64,
    /// The vCPU has executed guest code.
    pub(crate) has_run: atomic::AtomicBool,
    /// `MPIDR_EL1` was set through the ABI.
    affinity_set: atomic::AtomicBool,
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
            owner: current(),
            mailbox: Mutex::default(),
            applied: AtomicU64::new(0),
            waiters: Waiters::default(),
            held: Held::new(),
            deadline: atomic::AtomicU64::new(u64::MAX),
            has_run: atomic::AtomicBool::new(false),
            affinity_set: atomic::AtomicBool::new(false),
            code: CodePlace::default(),
        }
    }

    /// Index of the vCPU in its VM, which is also its `hv_vcpu_t`.
    #[inline]
    pub fn index(&self) -> usize {
        self.index
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
        self.start_running();
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
        self.start_running();
    }

    /// What comes after it may be what others that saw the vCPU stopped did not
    /// wait for: it has to see their mail.
    fn start_running(&self) {
        self.state.store(State::Running as u8, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn stop_running(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
        // A vCPU that still waits for others gains no core from this one: it
        // is about to be free.
        drop(self.wake_waiters());
    }

    fn wake_waiters(&self) -> Vec<Arc<Round>> {
        self.waiters.wake(|ticket| self.is_settled(ticket))
    }

    /// Makes `round` wait until message `ticket` has settled.
    pub fn register(&self, ticket: u64, round: &Arc<Round>) {
        let is_settled = |ticket| self.is_settled(ticket);
        self.waiters.register(ticket, round, is_settled);
    }

    /// Sets attention bits and ends a WFI if they are of [`attention::WAKE`].
    /// A full barrier.
    pub fn raise(&self, bits: u32) {
        self.attention.fetch_or(bits, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if bits & attention::WAKE != 0 && self.state.load(Ordering::Relaxed) == State::Parked as u8
        {
            self.owner.unpark();
        }
    }

    /// Clears attention bits and returns those of them that were set.
    pub fn take(&self, bits: u32) -> u32 {
        self.attention.fetch_and(!bits, Ordering::AcqRel) & bits
    }

    /// Sleeps until a bit of [`attention::WAKE`] is set or `timeout` passed
    /// (`None` never does). Owner only, between [`Self::enter`] and
    /// [`Self::leave`]. On return the state is Running again and the caller
    /// must look at its attention before the next guest instruction.
    pub fn park(&self, timeout: Option<Duration>) {
        // A full barrier: who raised attention and saw another state is seen.
        self.stop_running(State::Parked);
        if self.attention.load(Ordering::Acquire) & attention::WAKE == 0 {
            match timeout {
                Some(limit) => park_timeout(limit),
                None => park(),
            }
        }
        self.start_running();
    }

    /// Posts a TLB invalidation. Returns the ticket to wait for.
    pub fn post_tlb(&self, message: TlbInvalidate) -> u64 {
        self.post(attention::TLB, |mail| mail.tlb.add(message))
    }

    /// Posts a code invalidation.
    pub fn post_code(&self, message: CodeRange) {
        let _ticket = self.post(attention::CODE, |mail| mail.code.add(message));
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

    /// Tells senders that everything in `mail` is applied. Owner only. Returns
    /// the rounds of those that were asleep and wait for others yet, which may
    /// need this one's host core.
    pub fn acknowledge(&self, mail: Mail) -> Vec<Arc<Round>> {
        self.applied.store(mail.ticket, Ordering::Release);
        self.wake_waiters()
    }

    /// Whether message `ticket` is applied or will be before the next guest
    /// instruction of this vCPU. After a full barrier behind the post.
    pub fn is_settled(&self, ticket: u64) -> bool {
        self.state.load(Ordering::Acquire) != State::Running as u8
            || self.applied.load(Ordering::Acquire) >= ticket
    }
}
