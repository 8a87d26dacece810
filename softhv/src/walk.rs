//! Stage-1 translation table walks (VMSAv8-64, 4 KiB granule; Arm ARM D8).

use crate::page::PAGE_SIZE;

/// What an access wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Fetch,
}

/// A fault of the walk or the rights check: the status code (FSC) of the
/// syndrome, level included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault(pub u8);

/// Fault status codes (Arm ARM D24.2.40, DFSC), to be combined with a level.
pub mod fsc {
    /// Address size fault.
    pub const ADDRESS_SIZE: u8 = 0x00;
    /// Translation fault.
    pub const TRANSLATION: u8 = 0x04;
    /// Access flag fault.
    pub const ACCESS_FLAG: u8 = 0x08;
    /// Permission fault.
    pub const PERMISSION: u8 = 0x0c;
    /// Synchronous external abort, not on a walk.
    pub const EXTERNAL: u8 = 0x10;
    /// Synchronous external abort on a walk.
    pub const EXTERNAL_WALK: u8 = 0x14;
    /// Alignment fault.
    pub const ALIGNMENT: u8 = 0x21;
}

/// Translation control registers of one walk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Controls {
    /// SCTLR_EL1.
    pub sctlr: u64,
    /// TCR_EL1.
    pub tcr: u64,
    /// TTBR0_EL1.
    pub ttbr0: u64,
    /// TTBR1_EL1.
    pub ttbr1: u64,
    /// MAIR_EL1.
    pub mair: u64,
}

/// SCTLR_EL1.M: translation on.
pub const SCTLR_M: u64 = 1 << 0;
/// SCTLR_EL1.WXN: writable implies not executable.
const SCTLR_WXN: u64 = 1 << 19;

/// Output address bits supported: ID_AA64MMFR0_EL1.PARange = 40 bits.
pub const PA_BITS: u32 = 40;
const DESCRIPTOR_ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// Where a virtual page is and what may be done with it, for both levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Physical address of the 4 KiB page.
    pub page: u64,
    /// Bytes the leaf covers (4 KiB, 2 MiB or 1 GiB).
    pub block_bytes: u64,
    /// Level of the leaf, for permission faults.
    pub level: u8,
    /// Readable and writable at EL0.
    pub user: bool,
    /// Writable (at EL1, and at EL0 if `user`).
    pub writable: bool,
    /// Executable at EL0.
    pub user_exec: bool,
    /// Executable at EL1.
    pub kernel_exec: bool,
    /// Memory attribute byte from MAIR (0x00..0x0f are Device).
    pub attribute: u8,
}

/// Which level the access has the rights of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Privilege {
    /// Rights of EL0 (also for LDTR and STTR at EL1).
    pub user: bool,
    /// PSTATE.PAN, for privileged data accesses.
    pub pan: bool,
}

impl Mapping {
    /// Whether the mapping allows `access`.
    pub fn allows(&self, access: Access, privilege: Privilege) -> bool {
        match (privilege.user, access) {
            (true, Access::Read) => self.user,
            (true, Access::Write) => self.user && self.writable,
            (true, Access::Fetch) => self.user_exec,
            (false, Access::Read) => !(privilege.pan && self.user),
            (false, Access::Write) => self.writable && !(privilege.pan && self.user),
            (false, Access::Fetch) => self.kernel_exec,
        }
    }
}

/// Removes the tag byte where TCR.TBIx says to, by sign-extending from bit 55.
pub fn strip_tag(va: u64, tcr: u64) -> u64 {
    let high = va >> 55 & 1 != 0;
    let tbi = tcr >> if high { 38 } else { 37 } & 1 != 0;
    match (tbi, high) {
        (false, _) => va,
        (true, true) => va | 0xff << 56,
        (true, false) => va & !(0xff << 56),
    }
}

struct Half {
    table: u64,
    size: u32,
    disabled: bool,
}

fn half(va: u64, user: bool, c: &Controls) -> Option<Half> {
    let high = va >> 55 & 1 != 0;
    let (size, walk_off, e0pd, ttbr) = if high {
        (c.tcr >> 16 & 63, c.tcr >> 23 & 1, c.tcr >> 56 & 1, c.ttbr1)
    } else {
        (c.tcr & 63, c.tcr >> 7 & 1, c.tcr >> 55 & 1, c.ttbr0)
    };
    // T0SZ and T1SZ below 16 or above 39 behave as the nearest legal value.
    let size = 64 - (size as u32).clamp(16, 39);
    let top = va >> size;
    let expected = if high { u64::MAX >> size } else { 0 };
    (top == expected).then_some(Half {
        table: ttbr & DESCRIPTOR_ADDRESS & !1,
        size,
        disabled: walk_off != 0 || (user && e0pd != 0),
    })
}

/// Walks the tables for `va` (tag already stripped). `read` reads one aligned
/// descriptor from guest memory, or tells that there is none.
pub fn walk(
    va: u64,
    user: bool,
    controls: &Controls,
    read: impl Fn(u64) -> Option<u64>,
) -> Result<Mapping, Fault> {
    if controls.sctlr & SCTLR_M == 0 {
        return flat(va);
    }
    let half = half(va, user, controls).ok_or(Fault(fsc::TRANSLATION))?;
    if half.disabled {
        return Err(Fault(fsc::TRANSLATION));
    }
    let mut level = 4 - (half.size - 12).div_ceil(9) as u8;
    let mut table = half.table;
    let mut shift = 12 + 9 * u32::from(3 - level);
    let mut index_mask = (1u64 << (half.size - shift)) - 1;
    let (mut no_user, mut read_only, mut uxn, mut pxn) = (false, false, false, false);
    if table >> PA_BITS != 0 {
        return Err(Fault(fsc::ADDRESS_SIZE));
    }
    loop {
        let at = table + (va >> shift & index_mask) * 8;
        let descriptor = read(at).ok_or(Fault(fsc::EXTERNAL_WALK | level))?;
        let is_table = descriptor & 2 != 0;
        if descriptor & 1 == 0 || (level == 3 && !is_table) || (level == 0 && !is_table) {
            return Err(Fault(fsc::TRANSLATION | level));
        }
        if level < 3 && is_table {
            // Hierarchical rights: APTable at 62:61, UXNTable 60, PXNTable 59.
            no_user |= descriptor >> 61 & 1 != 0;
            read_only |= descriptor >> 62 & 1 != 0;
            uxn |= descriptor >> 60 & 1 != 0;
            pxn |= descriptor >> 59 & 1 != 0;
            table = descriptor & DESCRIPTOR_ADDRESS;
            if table >> PA_BITS != 0 {
                return Err(Fault(fsc::ADDRESS_SIZE | level));
            }
            level += 1;
            shift -= 9;
            index_mask = 511;
            continue;
        }
        let block_bytes = 1u64 << shift;
        let base = descriptor & DESCRIPTOR_ADDRESS & !(block_bytes - 1);
        if base >> PA_BITS != 0 {
            return Err(Fault(fsc::ADDRESS_SIZE | level));
        }
        if descriptor >> 10 & 1 == 0 {
            return Err(Fault(fsc::ACCESS_FLAG | level));
        }
        let user = descriptor >> 6 & 1 != 0 && !no_user;
        let writable = descriptor >> 7 & 1 == 0 && !read_only;
        let wxn = controls.sctlr & SCTLR_WXN != 0 && writable;
        // PXN, and: a page writable at EL0 is never executable at EL1.
        let never_privileged = descriptor >> 53 & 1 != 0 || (user && writable);
        let attribute = controls.mair >> (8 * (descriptor >> 2 & 7));
        return Ok(Mapping {
            page: base | (va & (block_bytes - 1) & !(PAGE_SIZE - 1)),
            block_bytes,
            level,
            user,
            writable,
            // Execute-only pages are not readable at EL0 (AP[1] = 0) yet run there.
            user_exec: descriptor >> 54 & 1 == 0 && !uxn && !wxn,
            kernel_exec: !(never_privileged || pxn || wxn),
            attribute: (attribute & 0xff) as u8,
        });
    }
}

/// The mapping while translation is off: VA = PA, everything allowed.
fn flat(va: u64) -> Result<Mapping, Fault> {
    if va >> PA_BITS != 0 {
        return Err(Fault(fsc::ADDRESS_SIZE));
    }
    Ok(Mapping {
        page: va & !(PAGE_SIZE - 1),
        block_bytes: PAGE_SIZE,
        level: 0,
        user: true,
        writable: true,
        user_exec: true,
        kernel_exec: true,
        attribute: 0xff,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const CONTROLS: Controls = Controls {
        sctlr: SCTLR_M,
        // T0SZ = T1SZ = 16, TBI0, TBI1.
        tcr: 16 | 16 << 16 | 1 << 37 | 1 << 38,
        ttbr0: 0x1000,
        ttbr1: 0x2000,
        mair: 0xff,
    };
    const VALID: u64 = 1;
    const TABLE: u64 = 3;
    const AF: u64 = 1 << 10;
    const USER: u64 = 1 << 6;
    const READ_ONLY: u64 = 1 << 7;

    fn tables(entries: &[(u64, u64)]) -> impl Fn(u64) -> Option<u64> + use<> {
        let map: HashMap<u64, u64> = entries.iter().copied().collect();
        move |at| (at < 0x10_0000).then(|| map.get(&at).copied().unwrap_or(0))
    }

    fn chain(leaf: u64) -> Vec<(u64, u64)> {
        vec![
            (0x1000, 0x3000 | TABLE),
            (0x3000, 0x4000 | TABLE),
            (0x4000, 0x5000 | TABLE),
            (0x5008, leaf),
        ]
    }

    #[test]
    fn each_level_reports_its_own_translation_fault() {
        let all = chain(0);
        for level in 0..4usize {
            let read = tables(&all[..level]);
            let fault = walk(0x1000, true, &CONTROLS, read).unwrap_err();
            assert_eq!(fault.0, fsc::TRANSLATION | level as u8);
        }
    }

    #[test]
    fn access_flag_and_rights_come_from_the_leaf() {
        let read = tables(&chain(0x9000 | TABLE));
        assert_eq!(
            walk(0x1000, true, &CONTROLS, read),
            Err(Fault(fsc::ACCESS_FLAG | 3))
        );
        let read = tables(&chain(0x9000 | TABLE | AF | USER | READ_ONLY));
        let mapping = walk(0x1234, true, &CONTROLS, read).unwrap();
        assert_eq!(mapping.page, 0x9000);
        let user = Privilege {
            user: true,
            pan: false,
        };
        let kernel = Privilege {
            user: false,
            pan: true,
        };
        assert!(mapping.allows(Access::Read, user));
        assert!(!mapping.allows(Access::Write, user));
        assert!(!mapping.allows(Access::Read, kernel));
        assert!(mapping.allows(Access::Fetch, user));
    }

    #[test]
    fn blocks_cover_their_range_and_tables_restrict() {
        let entries = [
            (0x1000, 0x3000 | TABLE),
            (0x3000, 0x4000 | TABLE | 1 << 62),
            (0x4000, 0x20_0000 | VALID | AF),
        ];
        let mapping = walk(0x3456, false, &CONTROLS, tables(&entries)).unwrap();
        assert_eq!(mapping.page, 0x20_3000);
        assert_eq!(mapping.block_bytes, 2 << 20);
        assert!(!mapping.writable);
    }

    #[test]
    fn addresses_outside_both_halves_and_missing_tables_fault() {
        let read = tables(&[]);
        assert!(walk(1 << 50, true, &CONTROLS, &read).is_err());
        let far = [(0x1000, 0x20_0000 | TABLE)];
        assert_eq!(
            walk(0, true, &CONTROLS, tables(&far)),
            Err(Fault(fsc::EXTERNAL_WALK | 1))
        );
        let wide = [(0x1000, 0x0000_8000_0000_0000 | TABLE)];
        assert_eq!(
            walk(0, true, &CONTROLS, tables(&wide)),
            Err(Fault(fsc::ADDRESS_SIZE))
        );
    }

    #[test]
    fn tags_are_stripped_per_half() {
        assert_eq!(strip_tag(0xab00_0000_0000_1000, 1 << 37), 0x1000);
        assert_eq!(
            strip_tag(0xab80_0000_0000_1000, 1 << 38),
            0xff80_0000_0000_1000
        );
        assert_eq!(strip_tag(0xab00_0000_0000_1000, 0), 0xab00_0000_0000_1000);
    }
}
