//! The state of one vCPU.

use crate::regs::Regs;

/// One vCPU: registers first, so that handlers reach them at small offsets.
#[repr(C)]
pub struct Cpu {
    /// General, flag and vector registers.
    pub regs: Regs,
}
