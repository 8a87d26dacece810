//! How long a machine stood still.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For how long a machine stood still because of orders to its worker. A
/// guest's time limits do not run then, so those of its host must not either.
#[derive(Debug, Default)]
pub struct Pauses(Mutex<Stood>);

#[derive(Debug, Default)]
struct Stood {
    before: Duration,
    /// Of the first of those that make it stand still now.
    since: Option<Instant>,
    /// How many they are: an order, and somebody who has paused it.
    reasons: u32,
}

/// A pause, until this is dropped.
#[derive(Debug)]
pub struct Paused<'a>(&'a Pauses);

impl Pauses {
    fn stood(&self) -> MutexGuard<'_, Stood> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine stands still from here on, until what this gives is dropped.
    pub fn begin(&self) -> Paused<'_> {
        self.enter();
        Paused(self)
    }

    /// The machine stands still from here on, until [`Pauses::leave`].
    pub fn enter(&self) {
        let mut stood = self.stood();
        stood.since.get_or_insert_with(Instant::now);
        stood.reasons = stood.reasons.saturating_add(1);
    }

    pub fn leave(&self) {
        let mut stood = self.stood();
        stood.reasons = stood.reasons.saturating_sub(1);
        if stood.reasons == 0
            && let Some(since) = stood.since.take()
        {
            stood.before = stood.before.saturating_add(since.elapsed());
        }
    }

    /// All of them, the present one included.
    pub fn total(&self) -> Duration {
        let stood = self.stood();
        let now = stood.since.map_or(Duration::ZERO, |since| since.elapsed());
        stood.before.saturating_add(now)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_add_up_and_count_while_they_last() {
        let pauses = Pauses::default();
        assert_eq!(pauses.total(), Duration::ZERO);
        let step = Duration::from_millis(10);
        for round in 1..3 {
            let paused = pauses.begin();
            std::thread::sleep(step);
            assert!(pauses.total() >= step * round);
            drop(paused);
            let after = pauses.total();
            assert!(after >= step * round);
            std::thread::sleep(step);
            assert_eq!(pauses.total(), after);
        }
    }

    #[test]
    fn an_order_to_a_paused_machine_counts_once() {
        let pauses = Pauses::default();
        let begun = Instant::now();
        pauses.enter();
        drop(pauses.begin());
        let within = pauses.total();
        std::thread::sleep(Duration::from_millis(5));
        assert!(pauses.total() > within, "it still stands still");
        pauses.leave();
        let total = pauses.total();
        assert!(total <= begun.elapsed());
        assert_eq!(pauses.total(), total);
    }
}
