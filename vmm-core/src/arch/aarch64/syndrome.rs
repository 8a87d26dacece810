//! `ESR_EL2` of a guest exit, taken apart (Arm ARM DDI 0487, D24.2).

/// A data abort that an emulated device can serve or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAbort {
    /// How the instruction moves data, if the processor says.
    pub transfer: Option<Transfer>,
    /// Cache maintenance, which moves no data.
    pub cache_maintenance: bool,
    /// A walk of the guest's page tables, not the access itself.
    pub page_table_walk: bool,
    /// Memory is mapped there, but not for this access.
    pub permission: bool,
}

/// A load or store of one general register, without write-back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Whether it stores.
    pub write: bool,
    /// Length in bytes: 1, 2, 4 or 8.
    pub bytes: u8,
    /// The register; 31 is the zero register.
    pub register: u8,
    /// Whether a loaded value is sign-extended.
    pub sign_extend: bool,
    /// Whether the register is 64 bits wide; a 32-bit one clears its upper
    /// half.
    pub wide: bool,
}

impl DataAbort {
    /// Reads the instruction-specific syndrome of a data abort.
    pub fn decode(syndrome: u64) -> Self {
        let bit = |n: u32| syndrome >> n & 1 == 1;
        let transfer = bit(24).then(|| Transfer {
            write: bit(6),
            bytes: 1 << (syndrome >> 22 & 3),
            register: field(syndrome, 16, 5),
            sign_extend: bit(21),
            wide: bit(15),
        });
        Self {
            transfer,
            cache_maintenance: bit(8),
            page_table_walk: bit(7),
            permission: is_permission_fault(syndrome),
        }
    }
}

/// Whether an abort is a permission fault: fault status codes 0b0011xx, the
/// same for data and instructions (Arm ARM DDI 0487, D24.2.40).
pub const fn is_permission_fault(syndrome: u64) -> bool {
    syndrome & 0x3c == 0x0c
}

impl Transfer {
    /// What a store sends to the device, from its register's value.
    pub const fn store_value(&self, register: u64) -> u64 {
        register & self.mask()
    }

    /// What a load leaves in its register, from the device's answer.
    pub const fn load_value(&self, value: u64) -> u64 {
        let value = value & self.mask();
        let shift = 64 - 8 * self.bytes as u32;
        let extended = if self.sign_extend {
            ((value << shift).cast_signed() >> shift).cast_unsigned()
        } else {
            value
        };
        if self.wide {
            extended
        } else {
            extended & 0xffff_ffff
        }
    }

    const fn mask(&self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes as u32)
    }
}

/// A trapped access to a system register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemAccess {
    /// Whether it reads (`MRS`).
    pub read: bool,
    /// The register moved to or from; 31 is the zero register.
    pub register: u8,
    /// The encoding: op0, op1, CRn, CRm, op2.
    pub encoding: [u8; 5],
}

impl SystemAccess {
    /// Reads the instruction-specific syndrome of a trapped `MSR` or `MRS`.
    pub fn decode(syndrome: u64) -> Self {
        Self {
            read: syndrome & 1 == 1,
            register: field(syndrome, 5, 5),
            encoding: [
                field(syndrome, 20, 2),
                field(syndrome, 14, 3),
                field(syndrome, 10, 4),
                field(syndrome, 1, 4),
                field(syndrome, 17, 3),
            ],
        }
    }

    /// Whether reading as zero and ignoring writes is right for it: the debug
    /// locks, the limited-ordering control, the performance monitors hidden
    /// from the guest, and identification registers no one gave a value.
    pub fn is_inert(&self) -> bool {
        match self.encoding {
            // OSLAR, OSLSR, OSDLR, DBGPRCR, DBGCLAIM, DBGAUTHSTATUS.
            [2, 0, 1 | 7, _, _] => true,
            // MDCCINT, MDSCR, breakpoints and watchpoints.
            [2, 0, 0, _, _] => true,
            // LORSA, LOREA, LORN, LORC, LORID.
            [3, 0, 10, 4, _] => true,
            // The performance monitors of EL0 and EL1.
            [3, 3, 9, 12..=14, _] | [3, 0, 9, 14, _] => true,
            [3, 3, 14, 8..=15, _] => true,
            // Identification registers.
            [3, 0, 0, 1..=7, _] => self.read,
            _ => false,
        }
    }
}

/// Whether a trapped `WFI` or `WFE` is the latter, which only yields.
pub const fn is_wait_for_event(syndrome: u64) -> bool {
    syndrome & 1 == 1
}

/// `width` (at most 8) bits of a syndrome from bit `low`.
fn field(syndrome: u64, low: u32, width: u32) -> u8 {
    (syndrome >> low).to_le_bytes()[0] & (0xff >> (8 - width))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISV: u64 = 1 << 24;

    fn load(bytes_log2: u64, sign: bool, wide: bool) -> Transfer {
        let syndrome =
            ISV | bytes_log2 << 22 | u64::from(sign) << 21 | 5 << 16 | u64::from(wide) << 15;
        DataAbort::decode(syndrome).transfer.unwrap()
    }

    #[test]
    fn stores_are_cut_to_their_width() {
        // STRB W31: the device sees one zero byte; STRH X7 is cut to 16 bits.
        let byte = DataAbort::decode(ISV | 31 << 16 | 1 << 6).transfer.unwrap();
        assert_eq!((byte.write, byte.bytes, byte.register), (true, 1, 31));
        let half = DataAbort::decode(ISV | 1 << 22 | 7 << 16 | 1 << 6)
            .transfer
            .unwrap();
        assert_eq!(half.store_value(0x1234_5678), 0x5678);
    }

    #[test]
    fn loads_extend_as_the_instruction_says() {
        assert_eq!(load(0, true, true).load_value(0x80), 0xffff_ffff_ffff_ff80);
        assert_eq!(load(0, true, false).load_value(0x80), 0xffff_ff80);
        assert_eq!(load(0, false, true).load_value(0x1ff), 0xff);
        assert_eq!(load(2, true, true).load_value(1 << 31), !0 << 31);
        assert_eq!(load(2, false, false).load_value(u64::MAX), 0xffff_ffff);
        assert_eq!(load(3, false, true).load_value(u64::MAX), u64::MAX);
        assert_eq!(load(3, true, true).load_value(1 << 63), 1 << 63);
    }

    #[test]
    fn instructions_that_move_more_than_one_register_have_no_transfer() {
        assert_eq!(DataAbort::decode(1 << 6).transfer, None);
        assert!(DataAbort::decode(1 << 8).cache_maintenance);
        assert!(DataAbort::decode(1 << 7).page_table_walk);
    }

    #[test]
    fn missing_rights_differ_from_missing_memory() {
        assert!(DataAbort::decode(1 << 6 | 0x0f).permission);
        assert!(!DataAbort::decode(1 << 6 | 0x07).permission);
        assert!(!DataAbort::decode(1 << 6 | 0x21).permission);
    }

    #[test]
    fn system_accesses_decode_to_their_encoding() {
        // MSR OSLAR_EL1, XZR: op0=2 op1=0 CRn=1 CRm=0 op2=4.
        let oslar = SystemAccess::decode(2 << 20 | 4 << 17 | 1 << 10 | 31 << 5);
        assert_eq!(oslar.encoding, [2, 0, 1, 0, 4]);
        assert!(!oslar.read && oslar.register == 31 && oslar.is_inert());
        // MRS X3, PMCR_EL0: op0=3 op1=3 CRn=9 CRm=12 op2=0.
        let pmcr = SystemAccess::decode(3 << 20 | 3 << 14 | 9 << 10 | 3 << 5 | 12 << 1 | 1);
        assert_eq!(pmcr.encoding, [3, 3, 9, 12, 0]);
        assert!(pmcr.read && pmcr.register == 3 && pmcr.is_inert());
    }

    #[test]
    fn registers_that_matter_are_not_inert() {
        let of = |encoding, read| SystemAccess {
            read,
            register: 0,
            encoding,
        };
        // SCTLR_EL1, ICC_SGI1R_EL1, CNTP_CTL_EL0, a write to an ID register.
        assert!(!of([3, 0, 1, 0, 0], true).is_inert());
        assert!(!of([3, 0, 12, 11, 5], false).is_inert());
        assert!(!of([3, 3, 14, 2, 1], false).is_inert());
        assert!(of([3, 0, 0, 4, 5], true).is_inert());
        assert!(!of([3, 0, 0, 4, 5], false).is_inert());
    }
}
