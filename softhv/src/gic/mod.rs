//! The interrupt controller: a GICv3 with what `hv_gic` has.

use crate::vcpu_link::VcpuShared;
use std::sync::Arc;

/// A CPU interface register, as `MRS`/`MSR` and `hv_gic_*_icc_reg` name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs, reason = "architectural names")]
pub enum IccReg {
    Pmr,
    Iar0,
    Eoir0,
    Hppir0,
    Bpr0,
    Ap0r0,
    Ap1r0,
    Dir,
    Rpr,
    Sgi1r,
    Asgi1r,
    Sgi0r,
    Iar1,
    Eoir1,
    Hppir1,
    Bpr1,
    Ctlr,
    Sre,
    Igrpen0,
    Igrpen1,
}

/// The interrupt controller of one VM.
#[derive(Debug)]
pub struct Gic {}

impl Gic {
    /// Connects a new vCPU.
    pub fn attach(&self, _link: &Arc<VcpuShared>) {}
    /// Disconnects a vCPU.
    pub fn detach(&self, _vcpu: usize) {}
    /// Sets the affinity (`MPIDR_EL1`) that SGIs and SPIs find the vCPU by.
    pub fn set_affinity(&self, _vcpu: usize, _mpidr: u64) {}
    /// Whether `pa` is a register of the distributor or of an existing
    /// redistributor.
    pub fn contains(&self, _pa: u64) -> bool {
        false
    }
    /// A guest load of `size` (1, 2, 4, 8) bytes.
    pub fn mmio_read(&self, _pa: u64, _size: u32, _vcpu: usize) -> u64 {
        0
    }
    /// A guest store of `size` (1, 2, 4, 8) bytes.
    pub fn mmio_write(&self, _pa: u64, _size: u32, _value: u64, _vcpu: usize) {}
    /// `MRS` of a CPU interface register.
    pub fn icc_read(&self, _vcpu: usize, _reg: IccReg) -> u64 {
        0
    }
    /// `MSR` of a CPU interface register.
    pub fn icc_write(&self, _vcpu: usize, _reg: IccReg, _value: u64) {}
    /// Whether the virtual IRQ line of the vCPU is high: a Group 1 interrupt is
    /// pending with sufficient priority. One relaxed load.
    #[inline]
    pub fn irq_line(&self, _vcpu: usize) -> bool {
        false
    }
    /// Whether WFI must not sleep. PSTATE.I does not matter.
    #[inline]
    pub fn wakes(&self, _vcpu: usize) -> bool {
        false
    }
    /// Sets the level of a private peripheral interrupt (16..=31).
    pub fn set_ppi(&self, _vcpu: usize, _intid: u32, _level: bool) {}
}

impl IccReg {
    /// The register with this `hv_sys_reg_t`-style key
    /// (`op0<<14|op1<<11|CRn<<7|CRm<<3|op2`).
    pub fn from_key(_key: u16) -> Option<Self> {
        None
    }
}
