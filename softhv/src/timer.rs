//! The 24 MHz system counter and the generic timers of a vCPU.

use crate::vcpu_link::VcpuShared;
use crate::vm::VmShared;
use std::sync::Arc;
use std::time::Duration;

/// `CNTFRQ_EL0` in Hz, as on Apple silicon.
pub const COUNTER_HZ: u64 = 24_000_000;

/// The system counter in ticks of 1/24 MHz: what `mach_absolute_time` is on a
/// Mac. Monotonic across threads.
#[inline]
pub fn counter() -> u64 {
    0
}

/// A timer register the guest can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs, reason = "architectural names")]
pub enum TimerReg {
    CntvCtl,
    CntvCval,
    CntvTval,
    CntpCtl,
    CntpCval,
    CntpTval,
    Cntvct,
    Cntpct,
    Cntfrq,
}

/// The timers of one vCPU, used by its owning thread only.
#[derive(Debug)]
pub struct VcpuTimers {}

impl VcpuTimers {
    /// Disabled timers.
    pub fn new(_vm: Arc<VmShared>, _link: Arc<VcpuShared>) -> Self {
        Self {}
    }
    /// The virtual counter; the inline form of reading `CNTVCT_EL0`.
    #[inline]
    pub fn cntvct(&self) -> u64 {
        0
    }
    /// `MRS`.
    pub fn read_sysreg(&self, _reg: TimerReg) -> u64 {
        0
    }
    /// `MSR`. Moves the interrupt lines and the deadline at once.
    pub fn write_sysreg(&mut self, _reg: TimerReg, _value: u64) {}
    /// Looks at the clock: moves PPI lines 27 and 30. Call on
    /// `attention::TIMER`, on entry to a run and before a WFI sleeps.
    /// `true` only without a GIC: the run must exit with `VTIMER_ACTIVATED`
    /// (the mask is then already set).
    pub fn poll(&mut self) -> bool {
        false
    }
    /// Time until the earliest deadline, for `VcpuShared::park`.
    pub fn until_deadline(&self) -> Option<Duration> {
        None
    }
    /// `CNTVOFF`: the virtual counter is `counter() - offset`.
    pub fn offset(&self) -> u64 {
        0
    }
    /// Sets `CNTVOFF`.
    pub fn set_offset(&mut self, _offset: u64) {}
    /// Whether `VTIMER_ACTIVATED` exits are masked.
    pub fn is_masked(&self) -> bool {
        false
    }
    /// Masks or unmasks `VTIMER_ACTIVATED` exits.
    pub fn set_masked(&mut self, _masked: bool) {}
}

/// Raises `attention::TIMER` on running vCPUs at their deadlines.
#[derive(Debug)]
pub struct Alarm {}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self {}
    }
}
