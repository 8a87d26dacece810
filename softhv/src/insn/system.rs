//! System instructions.

use super::operand::field_enum;

field_enum! {
    /// Who is called by an exception-generating instruction.
    Call:
    /// SVC: EL1.
    Svc,
    /// HVC: the hypervisor, from EL1.
    Hvc,
    /// SMC: the monitor, from EL1.
    Smc,
    /// BRK: a debugger.
    Brk,
}

field_enum! {
    /// A barrier.
    Barrier:
    /// DSB.
    Dsb,
    /// DMB.
    Dmb,
    /// ISB.
    Isb,
}

field_enum! {
    /// What MSR (immediate) writes.
    PstateField:
    /// SPSel.
    SpSel,
    /// PAN.
    Pan,
    /// DAIFSet.
    DaifSet,
    /// DAIFClr.
    DaifClr,
}

/// What an instruction of the SYS space does (IC, DC, AT, TLBI).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the parts are named as what they say")]
pub enum SysOp {
    /// DC ZVA.
    ZeroBlock,
    /// DC CVAC, CVAU, CVAP, CIVAC: at EL0, too, if EL1 allows it.
    CleanData,
    /// DC IVAC: at EL1 only.
    InvalidateData,
    /// DC by set and way.
    DataBySet,
    /// IC IVAU.
    InvalidateCode,
    /// IC IALLU, IALLUIS.
    InvalidateAllCode,
    /// AT S1E1R, S1E1W, S1E0R, S1E0W.
    Translate { write: bool, user: bool },
    /// TLBI of stage 1 at EL1.
    InvalidateTlb {
        by: ByTlb,
        range: bool,
        shared: bool,
    },
}

field_enum! {
    /// Which translations a TLBI drops.
    ByTlb:
    /// All.
    All,
    /// Those of an address in an address space.
    Va,
    /// Those of an address space.
    Asid,
    /// Those of an address in all address spaces.
    VaAllAsids,
}
