//! Identification registers: exactly what this engine implements, no more.
//!
//! Field layouts: Arm ARM D24.2. Everything not named here reads as zero.

use crate::sysreg_key::key;

/// MIDR_EL1: implementer 0 (software), architecture 15 (by ID registers), own
/// part number. No erratum table of Linux matches it.
pub const MIDR_EL1: u64 = 0x000f_5a10;
/// ID_AA64PFR0_EL1: EL0 and EL1 AArch64 only, FP and AdvSIMD without FP16,
/// GIC system registers, CSV2 = 3, CSV3 = 1.
pub const ID_AA64PFR0_EL1: u64 = 0x1300_0000_0100_0011;
/// ID_AA64DFR0_EL1: v8 debug, 2 breakpoints, 2 watchpoints, no PMU.
pub const ID_AA64DFR0_EL1: u64 = 0x0000_0000_0010_1006;
/// ID_AA64ISAR0_EL1: AES+PMULL, SHA1, SHA256, CRC32, LSE, RDM, DotProd, TLBI
/// range operations.
pub const ID_AA64ISAR0_EL1: u64 = 0x0200_1000_1021_1120;
/// ID_AA64ISAR1_EL1: DC CVAP, FJCVTZS, LDAPR.
pub const ID_AA64ISAR1_EL1: u64 = 0x0000_0000_0010_1001;
/// ID_AA64MMFR0_EL1: 40-bit physical addresses, 16-bit ASIDs, 4 KiB granule
/// only.
pub const ID_AA64MMFR0_EL1: u64 = 0x0000_0000_0f00_0022;
/// ID_AA64MMFR1_EL1: PAN.
pub const ID_AA64MMFR1_EL1: u64 = 0x0000_0000_0010_0000;
/// ID_AA64MMFR2_EL1: E0PD.
pub const ID_AA64MMFR2_EL1: u64 = 0x1000_0000_0000_0000;
/// CTR_EL0: 64-byte lines, PIPT, IDC = 1 (no clean to unification needed),
/// DIC = 0 (software announces new code with IC IVAU).
pub const CTR_EL0: u64 = 0x9444_c004;
/// DCZID_EL0: DC ZVA zeroes 64 bytes.
pub const DCZID_EL0: u64 = 4;
/// CLIDR_EL1: separate level 1 caches, unified level 2.
pub const CLIDR_EL1: u64 = 0x0a20_0023;
/// Counter frequency, as on Apple silicon.
pub const CNTFRQ_HZ: u64 = 24_000_000;

/// The ID registers that a monitor may override before the first run.
#[derive(Clone, Debug)]
pub struct IdRegs {
    values: [(u16, u64); 8],
}

impl Default for IdRegs {
    fn default() -> Self {
        Self {
            values: [
                (key(3, 0, 0, 4, 0), ID_AA64PFR0_EL1),
                (key(3, 0, 0, 4, 1), 0),
                (key(3, 0, 0, 5, 0), ID_AA64DFR0_EL1),
                (key(3, 0, 0, 6, 0), ID_AA64ISAR0_EL1),
                (key(3, 0, 0, 6, 1), ID_AA64ISAR1_EL1),
                (key(3, 0, 0, 7, 0), ID_AA64MMFR0_EL1),
                (key(3, 0, 0, 7, 1), ID_AA64MMFR1_EL1),
                (key(3, 0, 0, 7, 2), ID_AA64MMFR2_EL1),
            ],
        }
    }
}

impl IdRegs {
    /// The value of ID register `key`; zero if it has no fields set.
    pub fn read(&self, key: u16) -> u64 {
        let found = self.values.iter().find(|(known, _)| *known == key);
        found.map_or(0, |(_, value)| *value)
    }

    /// Replaces the value of `key`; false if that register is fixed.
    pub fn set(&mut self, key: u16, value: u64) -> bool {
        match self.values.iter_mut().find(|(known, _)| *known == key) {
            Some(slot) => {
                slot.1 = value;
                true
            }
            None => false,
        }
    }
}
