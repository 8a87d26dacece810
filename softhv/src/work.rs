//! How long vCPUs worked on code before it could be executed, and how much of it they
//! executed where that is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Of so many blocks that are decoded, one is looked at by the clock: two looks at each
/// would be a noticeable part of what decoding takes.
const ONE_IN: u64 = 8;

/// Begins to decode a block behind `others`: when, if this is one of those that are timed.
#[inline]
pub fn begin(others: u64) -> Option<Instant> {
    others.is_multiple_of(ONE_IN).then(Instant::now)
}

/// What the vCPUs of one machine did.
#[derive(Debug, Default)]
pub struct Work {
    decoded: AtomicU64,
    timed: AtomicU64,
    timed_ns: AtomicU64,
    compiled: AtomicU64,
    compiling_ns: AtomicU64,
    begun: AtomicU64,
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Work {
    /// A block of so many instructions is decoded, which began at `begun`.
    #[inline]
    pub fn end(&self, begun: Option<Instant>, instructions: usize) {
        let instructions = instructions as u64;
        self.decoded.fetch_add(instructions, Ordering::Relaxed);
        if let Some(begun) = begun {
            self.timed.fetch_add(instructions, Ordering::Relaxed);
            let time = nanoseconds(begun.elapsed());
            self.timed_ns.fetch_add(time, Ordering::Relaxed);
        }
    }

    /// So many instructions of a block were compiled, or it was found that none can be.
    pub fn compiled(&self, begun: Instant, instructions: usize) {
        self.compiled
            .fetch_add(instructions as u64, Ordering::Relaxed);
        let time = nanoseconds(begun.elapsed());
        self.compiling_ns.fetch_add(time, Ordering::Relaxed);
    }

    /// A vCPU has begun so many instructions more.
    pub fn begun(&self, instructions: u64) {
        self.begun.fetch_add(instructions, Ordering::Relaxed);
    }

    /// Instructions that were decoded.
    pub fn instructions_decoded(&self) -> u64 {
        self.decoded.load(Ordering::Relaxed)
    }

    /// How long decoding took, in nanoseconds: what was timed, for all instructions.
    pub fn decoding_ns(&self) -> u64 {
        let timed = u128::from(self.timed.load(Ordering::Relaxed));
        let time = u128::from(self.timed_ns.load(Ordering::Relaxed));
        let all = u128::from(self.instructions_decoded());
        let whole = (time * all).checked_div(timed).unwrap_or(0);
        u64::try_from(whole).unwrap_or(u64::MAX)
    }

    /// Instructions that were compiled, once more each time.
    pub fn instructions_compiled(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    /// Instructions that vCPUs had begun when each last exited or began to wait, where
    /// they are counted.
    pub fn instructions_begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// How long compiling took, in nanoseconds.
    pub fn compiling_ns(&self) -> u64 {
        self.compiling_ns.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_are_timed_stand_for_all() {
        let work = Work::default();
        assert_eq!((work.decoding_ns(), work.compiling_ns()), (0, 0));
        let long_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let mut timed = 0;
        for others in 0..16 {
            let begun = begin(others);
            timed += usize::from(begun.is_some());
            work.end(begun.map(|_| long_ago), 10);
        }
        assert_eq!((timed, work.instructions_decoded()), (2, 160));
        // Two of sixteen took a second each.
        assert!((16_000_000_000..20_000_000_000).contains(&work.decoding_ns()));
        work.compiled(long_ago, 10);
        assert_eq!(work.instructions_compiled(), 10);
        assert!(work.compiling_ns() >= 1_000_000_000);
    }
}
