//! Faults that tests inject: behaviours of the real framework that programs
//! must survive, and that this engine does not show by itself.
//!
//! All off unless a test sets them. Process-wide, as the VM is.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The switches.
#[derive(Debug)]
pub struct Faults {
    /// This many of the next runs return `CANCELED` at once, unasked.
    pub spurious_cancels: AtomicU32,
    /// This many of the next runs return `VTIMER_ACTIVATED` at once, GIC or not.
    pub vtimer_exits: AtomicU32,
    /// WFI exits with exception class 0x01 even with a GIC.
    pub wfi_exits: AtomicBool,
    /// Loads and stores to redistributors exit as data aborts.
    pub redistributor_exits: AtomicBool,
    /// `hv_gic_set_state` refuses every state, as after a system update.
    pub refuse_gic_state: AtomicBool,
    /// This many of the next VM or vCPU creations return `HV_NO_RESOURCES`.
    pub no_resources: AtomicU32,
    /// Flipped in every value of `ID_AA64ISAR0_EL1` that the ABI gives, as if
    /// the process had moved to another machine.
    pub isar0_flip: AtomicU64,
    /// vCPUs give their caches back whenever they wait, not only when they
    /// have waited for long.
    pub eager_release: AtomicBool,
}

/// The switches of this process.
pub static FAULTS: Faults = Faults {
    spurious_cancels: AtomicU32::new(0),
    vtimer_exits: AtomicU32::new(0),
    wfi_exits: AtomicBool::new(false),
    redistributor_exits: AtomicBool::new(false),
    refuse_gic_state: AtomicBool::new(false),
    no_resources: AtomicU32::new(0),
    isar0_flip: AtomicU64::new(0),
    eager_release: AtomicBool::new(false),
};

impl Faults {
    /// Switches everything off.
    pub fn clear(&self) {
        self.spurious_cancels.store(0, Ordering::Relaxed);
        self.vtimer_exits.store(0, Ordering::Relaxed);
        self.wfi_exits.store(false, Ordering::Relaxed);
        self.redistributor_exits.store(false, Ordering::Relaxed);
        self.refuse_gic_state.store(false, Ordering::Relaxed);
        self.no_resources.store(0, Ordering::Relaxed);
        self.isar0_flip.store(0, Ordering::Relaxed);
        self.eager_release.store(false, Ordering::Relaxed);
    }

    /// Takes one from a countdown; `false` if it was at zero.
    pub(crate) fn take(countdown: &AtomicU32) -> bool {
        countdown
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_ok()
    }
}
