//! Threads asleep until vCPUs have settled what was sent to them.
//!
//! A waiter registers with every vCPU that it waits for, and the last of them
//! wakes it. With more vCPUs than host cores most of them have no core when the
//! message comes: one that has settled and sees a waiter asleep sits the rest of
//! the round out, so that the next can have its core at once instead of at the
//! end of a scheduler's slice.

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use crate::sync::{Arc, Mutex, PoisonError, Thread, current, park, park_timeout};
use std::time::Duration;

/// How long a vCPU sits out a round at most: many times what the others take if
/// it is this one's core that they lack.
const SIT_OUT: Duration = Duration::from_micros(500);

/// One wait of one thread.
#[derive(Debug)]
pub struct Round {
    waiter: Thread,
    /// How many vCPUs have not settled yet; the waiter counts until it has asked all.
    open: AtomicUsize,
    /// vCPUs that sit it out.
    sitting: Mutex<Vec<Thread>>,
}

impl Round {
    /// A round that the calling thread waits for.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            waiter: current(),
            open: AtomicUsize::new(1),
            sitting: Mutex::new(Vec::new()),
        })
    }

    fn is_over(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    /// One less is open. True if it was the last, which wakes everybody.
    fn settle(&self) -> bool {
        if self.open.fetch_sub(1, Ordering::AcqRel) != 1 {
            return false;
        }
        let mut sitting = self.sitting.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in sitting.drain(..) {
            thread.unpark();
        }
        self.waiter.unpark();
        true
    }

    /// Sleeps until everybody the waiter registered with has settled.
    pub fn wait(&self) {
        if !self.settle() {
            while !self.is_over() {
                park();
            }
        }
    }

    /// Sleeps until the round is over, or for long enough. Nobody may have to
    /// wait for the caller meanwhile.
    pub fn sit_out(&self) {
        {
            let mut sitting = self.sitting.lock().unwrap_or_else(PoisonError::into_inner);
            // The vCPU that ends the round looks at the list afterwards.
            if self.is_over() {
                return;
            }
            sitting.push(current());
        }
        park_timeout(SIT_OUT);
    }
}

/// Who waits for one vCPU, and for which of its messages.
#[derive(Debug, Default)]
pub struct Waiters {
    list: Mutex<Vec<(u64, Arc<Round>)>>,
    /// There are any; changed under the lock only.
    any: AtomicBool,
}

impl Waiters {
    /// Makes `round` wait for message `ticket`, unless that has settled.
    ///
    /// No wake-up is lost: this sets `any` and then looks whether the message
    /// has settled, [`Waiters::wake`] comes after what settled it and then looks
    /// at `any`, with a fence in between on both sides.
    pub fn register(&self, ticket: u64, round: &Arc<Round>, is_settled: impl Fn(u64) -> bool) {
        round.open.fetch_add(1, Ordering::Relaxed);
        {
            let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
            list.push((ticket, Arc::clone(round)));
            self.any.store(true, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        if !is_settled(ticket) {
            return;
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = list.iter().position(|(_, known)| Arc::ptr_eq(known, round)) {
            list.swap_remove(at);
            self.any.store(!list.is_empty(), Ordering::Relaxed);
            // Not the last: the waiter itself is still open.
            round.open.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Settles what has settled: to be called after every change that may be
    /// why. Returns the rounds of it that wait for others yet.
    #[inline]
    pub fn wake(&self, is_settled: impl Fn(u64) -> bool) -> Vec<Arc<Round>> {
        fence(Ordering::SeqCst);
        if self.any.load(Ordering::Relaxed) {
            self.wake_some(is_settled)
        } else {
            Vec::new()
        }
    }

    #[cold]
    fn wake_some(&self, is_settled: impl Fn(u64) -> bool) -> Vec<Arc<Round>> {
        let mut settled = Vec::new();
        {
            let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
            list.retain(|(ticket, round)| {
                let keep = !is_settled(*ticket);
                if !keep {
                    settled.push(Arc::clone(round));
                }
                keep
            });
            self.any.store(!list.is_empty(), Ordering::Relaxed);
        }
        settled.retain(|round| !round.settle());
        settled
    }
}
