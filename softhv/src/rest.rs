//! When an idle vCPU gives its decoded code back to the host.

use std::time::{Duration, Instant};

/// How long a vCPU keeps decoded code it does not use.
const IDLE_LIMIT: Duration = Duration::from_secs(1);
/// The same once it has given code back and did not work since. Timers fire in
/// pairs, a tick apart (10 ms at HZ = 100): the second finds the code of the
/// first.
const RESTING_LIMIT: Duration = Duration::from_millis(30);
/// The same of a vCPU that is not alone: all of them would decode the same code
/// for each of the guest's timers. Whenever Linux ran a task, it wakes up once
/// more a second later (its deadline server: 0.95 s, then a tick); then the code
/// is still there.
const SHARED_RESTING_LIMIT: Duration = Duration::from_millis(1100);
/// What an idle guest's own timers take at most when they fire.
const MOMENT: Duration = Duration::from_millis(2);
/// The same with all code to be decoded anew.
const COLD_MOMENT: Duration = Duration::from_millis(8);

/// Whether a vCPU is idle but for a moment now and then.
#[derive(Debug)]
pub struct Rest {
    /// When it last had real work.
    since: Instant,
    /// When it last woke up.
    woke: Instant,
    /// When it last had anything to do.
    worked: Instant,
    /// It gave its code back and has had no real work since.
    resting: bool,
    /// It had no code when it woke up.
    cold: bool,
    /// For how long it has had nothing to do, in all.
    idle: Duration,
}

impl Rest {
    /// That of a vCPU that starts to work now.
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            since: now,
            woke: now,
            worked: now,
            resting: false,
            cold: false,
            idle: Duration::ZERO,
        }
    }

    /// For how long it has had nothing to do, in all.
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// It has nothing to do from now on.
    pub fn begin(&mut self) {
        let now = Instant::now();
        let moment = if self.cold { COLD_MOMENT } else { MOMENT };
        if now.duration_since(self.woke) > moment {
            self.since = now;
            self.resting = false;
        }
        self.worked = now;
        self.cold = false;
    }

    /// For how much longer it keeps its code if nothing happens; whether it is
    /// the only vCPU.
    pub fn left(&self, alone: bool) -> Duration {
        if self.resting {
            let limit = if alone {
                RESTING_LIMIT
            } else {
                SHARED_RESTING_LIMIT
            };
            limit.saturating_sub(self.worked.elapsed())
        } else {
            IDLE_LIMIT.saturating_sub(self.since.elapsed())
        }
    }

    /// It gave its code back.
    pub fn released(&mut self) {
        self.resting = true;
        self.cold = true;
    }

    /// It has something to do, by its own timer or not. Whether it had given its code
    /// back, and is likely to need it now.
    pub fn end(&mut self, timer: bool) -> bool {
        self.woke = Instant::now();
        self.idle += self.woke.duration_since(self.worked);
        if timer {
            return false;
        }
        // Somebody wants something. A vCPU that gets short requests, one after the
        // other, works as one does that runs for long.
        self.since = self.woke;
        std::mem::take(&mut self.resting)
    }
}

impl Default for Rest {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ago(time: Duration) -> Instant {
        Instant::now().checked_sub(time).unwrap()
    }

    /// Released a minute ago, just back to sleep.
    fn resting() -> Rest {
        let mut rest = Rest::new();
        rest.since = ago(Duration::from_secs(60));
        rest.released();
        rest.begin();
        rest
    }

    #[test]
    fn a_resting_vcpu_stays_so_while_only_its_timers_wake_it() {
        let mut rest = resting();
        assert!(rest.left(true) <= RESTING_LIMIT);
        rest.end(true);
        rest.begin();
        assert!(rest.resting);
        assert!(rest.left(true) <= RESTING_LIMIT);
    }

    #[test]
    fn idle_time_is_that_between_beginning_and_end() {
        let mut rest = Rest::new();
        for before in [Duration::ZERO, Duration::from_secs(60)] {
            rest.begin();
            rest.worked = ago(Duration::from_secs(60));
            assert!(rest.idle() >= before && rest.idle() < before + Duration::from_secs(60));
            rest.end(false);
        }
        assert!(rest.idle() >= Duration::from_secs(120));
    }

    #[test]
    fn an_event_from_outside_ends_the_rest() {
        let mut rest = resting();
        rest.end(false);
        rest.begin();
        assert!(rest.left(true) > RESTING_LIMIT);
    }

    #[test]
    fn short_requests_one_after_the_other_are_work() {
        let mut rest = Rest::new();
        rest.since = ago(IDLE_LIMIT * 2);
        for _ in 0..3 {
            rest.begin();
            assert!(!rest.end(false));
        }
        rest.begin();
        assert!(rest.left(true) > IDLE_LIMIT / 2);
        // And its own timers are not.
        rest.since = ago(IDLE_LIMIT * 2);
        rest.end(true);
        rest.begin();
        assert!(rest.left(true).is_zero());
    }

    #[test]
    fn real_work_ends_the_rest_and_decoding_anew_does_not_count_as_such() {
        let mut rest = resting();
        rest.cold = true;
        rest.woke = ago(MOMENT * 2);
        rest.begin();
        assert!(rest.resting);
        rest.woke = ago(MOMENT * 2);
        rest.begin();
        assert!(!rest.resting && rest.left(true) > RESTING_LIMIT);
    }
}
