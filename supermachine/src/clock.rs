//! The wall clock that guests are set to, and whether it was moved since.

use crate::limits::CLOCK_TOLERANCE;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime};

/// Tells what time guests are to have: the host's wall clock, or another one.
#[derive(Clone, Default)]
pub struct WallClock(Option<Arc<dyn Fn() -> SystemTime + Send + Sync>>);

impl WallClock {
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    /// Whether it is the host's.
    pub fn is_the_hosts(&self) -> bool {
        self.0.is_none()
    }

    /// What time it is there.
    pub fn now(&self) -> SystemTime {
        self.0.as_ref().map_or_else(SystemTime::now, |now| now())
    }

    /// Nanoseconds since the Unix epoch; 0 before it.
    fn now_ns(&self) -> u64 {
        let since = self.now().duration_since(SystemTime::UNIX_EPOCH);
        u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl PartialEq for WallClock {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for WallClock {}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_the_hosts() {
            "the host's"
        } else {
            "another"
        })
    }
}

/// A wall clock's time together with that of the clock which nobody moves.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub wall_ns: u64,
    /// Wall clock less the other one.
    offset_ns: i64,
}

impl Reading {
    pub fn of(clock: &WallClock) -> Self {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        // Both in i64: the year 2262 is far enough.
        let wall_ns = clock.now_ns();
        let wall = i64::try_from(wall_ns).unwrap_or(i64::MAX);
        let steady = i64::try_from(START.elapsed().as_nanos()).unwrap_or(i64::MAX);
        Self {
            wall_ns,
            offset_ns: wall.saturating_sub(steady),
        }
    }
}

/// By which reading a guest's clock was set last. Its own clock goes on like the
/// one that nobody moves.
#[derive(Debug)]
pub struct LastSet(AtomicI64);

/// The guest's clock has not been set.
const NEVER: i64 = i64::MIN;

impl Default for LastSet {
    fn default() -> Self {
        Self(AtomicI64::new(NEVER))
    }
}

impl LastSet {
    pub fn note(&self, reading: Reading) {
        self.0.store(reading.offset_ns, Ordering::Relaxed);
    }

    /// Whether a guest that was set then has another time than `now` by more
    /// than it can be left with.
    pub fn is_off(&self, now: Reading) -> bool {
        let then = self.0.load(Ordering::Relaxed);
        let moved = now.offset_ns.abs_diff(then);
        then != NEVER && u128::from(moved) > CLOCK_TOLERANCE.as_nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::time::Duration;

    #[test]
    fn only_a_clock_that_was_moved_is_set_again() {
        let shift = Arc::new(Mutex::new(0_i64));
        let shifted = Arc::clone(&shift);
        let clock = WallClock::new(move || {
            let by = Duration::from_millis(shifted.lock().unwrap().unsigned_abs());
            match *shifted.lock().unwrap() < 0 {
                true => SystemTime::now() - by,
                false => SystemTime::now() + by,
            }
        });
        let last = LastSet::default();
        assert!(!last.is_off(Reading::of(&clock)), "nobody set it");
        last.note(Reading::of(&clock));
        std::thread::sleep(Duration::from_millis(30));
        assert!(
            !last.is_off(Reading::of(&clock)),
            "time passed, that is all"
        );
        for moved in [20, -20, 3_600_000, -3_600_000] {
            *shift.lock().unwrap() = moved;
            let now = Reading::of(&clock);
            assert!(last.is_off(now), "{moved} ms");
            last.note(now);
            assert!(!last.is_off(Reading::of(&clock)));
            *shift.lock().unwrap() = 0;
            last.note(Reading::of(&clock));
        }
    }

    #[test]
    fn clocks_are_equal_if_they_are_one() {
        let one = WallClock::new(SystemTime::now);
        assert_eq!(one, one.clone());
        assert_ne!(one, WallClock::new(SystemTime::now));
        assert_ne!(one, WallClock::default());
        assert_eq!(WallClock::default(), WallClock::default());
    }
}
