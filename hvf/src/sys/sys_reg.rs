//! `hv_sys_reg_t`: system registers by their encoding.

use std::fmt;

/// `hv_sys_reg_t`: `op0<<14 | op1<<11 | CRn<<7 | CRm<<3 | op2`.
///
/// Not the layout of a trap's syndrome; see Arm ARM D24 `ESR_EL2` for that.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SysReg(pub u16);

impl SysReg {
    /// Packs an encoding; each field is cut to its width.
    pub const fn new(op0: u8, op1: u8, crn: u8, crm: u8, op2: u8) -> Self {
        Self(
            ((op0 & 3) as u16) << 14
                | ((op1 & 7) as u16) << 11
                | ((crn & 15) as u16) << 7
                | ((crm & 15) as u16) << 3
                | (op2 & 7) as u16,
        )
    }

    /// Breakpoint value register `n` (0 to 15).
    pub const fn dbgbvr(n: u8) -> Self {
        Self::new(2, 0, 0, n, 4)
    }
    /// Breakpoint control register `n` (0 to 15).
    pub const fn dbgbcr(n: u8) -> Self {
        Self::new(2, 0, 0, n, 5)
    }
    /// Watchpoint value register `n` (0 to 15).
    pub const fn dbgwvr(n: u8) -> Self {
        Self::new(2, 0, 0, n, 6)
    }
    /// Watchpoint control register `n` (0 to 15).
    pub const fn dbgwcr(n: u8) -> Self {
        Self::new(2, 0, 0, n, 7)
    }

    /// The register's fields: op0, op1, CRn, CRm, op2.
    pub const fn fields(self) -> [u8; 5] {
        let [low, high] = self.0.to_le_bytes();
        [
            high >> 6,
            high >> 3 & 7,
            (high & 7) << 1 | low >> 7,
            low >> 3 & 15,
            low & 7,
        ]
    }
}

impl fmt::Debug for SysReg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [op0, op1, crn, crm, op2] = self.fields();
        write!(f, "S{op0}_{op1}_C{crn}_C{crm}_{op2}")
    }
}

macro_rules! registers {
    ($($name:ident = $value:literal,)*) => {
        #[allow(missing_docs)] // Each is the architectural register of its name.
        impl SysReg {
            $(pub const $name: Self = Self($value);)*
        }
    };
}

registers! {
    MDCCINT_EL1 = 0x8010,
    MDSCR_EL1 = 0x8012,
    MIDR_EL1 = 0xc000,
    MPIDR_EL1 = 0xc005,
    ID_AA64PFR0_EL1 = 0xc020,
    ID_AA64PFR1_EL1 = 0xc021,
    ID_AA64ZFR0_EL1 = 0xc024,
    ID_AA64SMFR0_EL1 = 0xc025,
    ID_AA64DFR0_EL1 = 0xc028,
    ID_AA64DFR1_EL1 = 0xc029,
    ID_AA64ISAR0_EL1 = 0xc030,
    ID_AA64ISAR1_EL1 = 0xc031,
    ID_AA64MMFR0_EL1 = 0xc038,
    ID_AA64MMFR1_EL1 = 0xc039,
    ID_AA64MMFR2_EL1 = 0xc03a,
    SCTLR_EL1 = 0xc080,
    ACTLR_EL1 = 0xc081,
    CPACR_EL1 = 0xc082,
    SMPRI_EL1 = 0xc094,
    SMCR_EL1 = 0xc096,
    TTBR0_EL1 = 0xc100,
    TTBR1_EL1 = 0xc101,
    TCR_EL1 = 0xc102,
    APIAKEYLO_EL1 = 0xc108,
    APIAKEYHI_EL1 = 0xc109,
    APIBKEYLO_EL1 = 0xc10a,
    APIBKEYHI_EL1 = 0xc10b,
    APDAKEYLO_EL1 = 0xc110,
    APDAKEYHI_EL1 = 0xc111,
    APDBKEYLO_EL1 = 0xc112,
    APDBKEYHI_EL1 = 0xc113,
    APGAKEYLO_EL1 = 0xc118,
    APGAKEYHI_EL1 = 0xc119,
    SPSR_EL1 = 0xc200,
    ELR_EL1 = 0xc201,
    SP_EL0 = 0xc208,
    AFSR0_EL1 = 0xc288,
    AFSR1_EL1 = 0xc289,
    ESR_EL1 = 0xc290,
    FAR_EL1 = 0xc300,
    PAR_EL1 = 0xc3a0,
    MAIR_EL1 = 0xc510,
    AMAIR_EL1 = 0xc518,
    VBAR_EL1 = 0xc600,
    CONTEXTIDR_EL1 = 0xc681,
    TPIDR_EL1 = 0xc684,
    SCXTNUM_EL1 = 0xc687,
    CNTKCTL_EL1 = 0xc708,
    CSSELR_EL1 = 0xd000,
    TPIDR_EL0 = 0xde82,
    TPIDRRO_EL0 = 0xde83,
    TPIDR2_EL0 = 0xde85,
    SCXTNUM_EL0 = 0xde87,
    CNTP_TVAL_EL0 = 0xdf10,
    CNTP_CTL_EL0 = 0xdf11,
    CNTP_CVAL_EL0 = 0xdf12,
    CNTV_CTL_EL0 = 0xdf19,
    CNTV_CVAL_EL0 = 0xdf1a,
    SP_EL1 = 0xe208,
    MDCR_EL2 = 0xe089,
}

impl SysReg {
    /// `MDCR_EL2` as the macOS 15.0 headers number it: against the packing
    /// rule, and different from [`SysReg::MDCR_EL2`] of later ones. An engine
    /// accepts both.
    pub const MDCR_EL2_MACOS_15_0: Self = Self(0xe019);
}
