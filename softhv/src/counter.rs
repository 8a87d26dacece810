//! The 24 MHz system counter.

use std::time::Duration;

/// `CNTFRQ_EL0` in Hz, as on Apple silicon.
pub const COUNTER_HZ: u64 = 24_000_000;
/// A tick is 125/3 ns.
const NANOS_PER_TICK: (u64, u64) = (125, 3);

/// No deadline.
pub const NEVER: u64 = u64::MAX;

/// The system counter in ticks of 1/24 MHz: what `mach_absolute_time` is on a
/// Mac. Monotonic across threads; stands still while the host sleeps. Not inlined,
/// because a handler that reads it must not have `now` in its frame.
#[inline(never)]
pub fn counter() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid place to write to. The call cannot fail: every
    // system that we build for has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    let (nanos, ticks) = NANOS_PER_TICK;
    now.tv_sec as u64 * COUNTER_HZ + now.tv_nsec as u64 * ticks / nanos
}

/// The ticks of a time, rounded down.
pub fn ticks_of(time: Duration) -> u64 {
    let (nanos, ticks) = NANOS_PER_TICK;
    let whole = time.as_secs().saturating_mul(COUNTER_HZ);
    whole.saturating_add(u64::from(time.subsec_nanos()) * ticks / nanos)
}

/// The time that `ticks` take, rounded up so that a sleeper wakes late, not early.
pub fn duration_of(ticks: u64) -> Duration {
    let (nanos, per) = NANOS_PER_TICK;
    let seconds = ticks / COUNTER_HZ;
    let rest = (ticks % COUNTER_HZ * nanos).div_ceil(per);
    Duration::from_secs(seconds) + Duration::from_nanos(rest)
}
