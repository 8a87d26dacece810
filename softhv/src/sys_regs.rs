//! What system registers without side effects store.

use crate::idregs::IdRegs;

/// Hardware breakpoints and watchpoints with storage (ID_AA64DFR0_EL1 says 2).
pub const BREAKPOINTS: usize = 16;

/// Registers that only store what is written.
#[derive(Clone, Default, Debug)]
#[allow(missing_docs)] // The names are the architecture's.
pub struct SysRegs {
    pub sctlr: u64,
    pub actlr: u64,
    pub cpacr: u64,
    pub ttbr0: u64,
    pub ttbr1: u64,
    pub tcr: u64,
    pub afsr0: u64,
    pub afsr1: u64,
    pub esr: u64,
    pub far: u64,
    pub par: u64,
    pub mair: u64,
    pub amair: u64,
    pub vbar: u64,
    pub contextidr: u64,
    pub tpidr_el1: u64,
    pub tpidr_el0: u64,
    pub tpidrro_el0: u64,
    pub scxtnum_el0: u64,
    pub scxtnum_el1: u64,
    pub csselr: u64,
    pub cntkctl: u64,
    pub mdscr: u64,
    pub mdccint: u64,
    pub os_lock: u64,
    pub os_double_lock: u64,
    pub spsr: u64,
    pub elr: u64,
    /// SP_EL0 and SP_EL1 while they are not the current stack pointer.
    pub sp: [u64; 2],
    pub dbgbvr: [u64; BREAKPOINTS],
    pub dbgbcr: [u64; BREAKPOINTS],
    pub dbgwvr: [u64; BREAKPOINTS],
    pub dbgwcr: [u64; BREAKPOINTS],
    /// Affinity and ID registers the monitor may set before the first run.
    pub mpidr: u64,
    pub id: IdRegs,
}
