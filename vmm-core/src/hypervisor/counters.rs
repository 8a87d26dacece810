use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Reasons the counters tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCount {
    /// A device was read.
    MmioRead,
    /// A device was written.
    MmioWrite,
    /// A system register was emulated.
    SystemRegister,
    /// A firmware call.
    Firmware,
    /// The guest waited for an interrupt.
    WaitForInterrupt,
    /// Another thread kicked.
    Kicked,
    /// The virtual timer fired.
    Vtimer,
    /// Anything else.
    Other,
}

impl ExitCount {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::MmioRead,
        Self::MmioWrite,
        Self::SystemRegister,
        Self::Firmware,
        Self::WaitForInterrupt,
        Self::Kicked,
        Self::Vtimer,
        Self::Other,
    ];
}

/// How often an engine stopped running the guest, and for how long it ran it. Clones
/// share the counts; reading them never disturbs a vCPU.
#[derive(Clone, Debug, Default)]
pub struct ExitCounters {
    counts: Arc<[AtomicU64; ExitCount::ALL.len()]>,
    guest_nanos: Arc<AtomicU64>,
}

impl ExitCounters {
    /// Counts one exit; for the engine, on the vCPU's thread alone.
    pub fn add(&self, kind: ExitCount) {
        // One thread writes each vCPU's counters: no need for an atomic add.
        let slot = &self.counts[kind as usize];
        // Who sees the exit sees the time until then.
        slot.store(
            slot.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Release,
        );
    }

    /// Says for how long in all the vCPU has executed guest code, at an exit; for the
    /// engine, on the vCPU's thread alone.
    pub fn ran(&self, in_all: Duration) {
        let nanos = u64::try_from(in_all.as_nanos()).unwrap_or(u64::MAX);
        self.guest_nanos.store(nanos, Ordering::Relaxed);
    }

    /// For how long the vCPU had executed guest code when it last exited. Waiting for
    /// interrupts is not part of it, wherever that is done.
    pub fn guest_time(&self) -> Duration {
        Duration::from_nanos(self.guest_nanos.load(Ordering::Relaxed))
    }

    /// Exits of one kind.
    pub fn get(&self, kind: ExitCount) -> u64 {
        self.counts[kind as usize].load(Ordering::Acquire)
    }

    /// Exits of every kind.
    pub fn total(&self) -> u64 {
        ExitCount::ALL.iter().map(|kind| self.get(*kind)).sum()
    }
}
