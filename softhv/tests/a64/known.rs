//! Where QEMU 7.2's user mode and this engine may differ, and why.

/// Words that take no part: mask, value, reason.
pub const EXCLUDED: &[(u32, u32, &str)] = &[
    (
        0x7c00_0000,
        0x1400_0000,
        "a random branch leaves the stream",
    ),
    (
        0x7e00_0000,
        0x3400_0000,
        "a random branch leaves the stream",
    ),
    (
        0x7e00_0000,
        0x3600_0000,
        "a random branch leaves the stream",
    ),
    (
        0xfe00_0000,
        0x5400_0000,
        "a random branch leaves the stream",
    ),
    (
        0xfe00_0000,
        0xd600_0000,
        "a random branch leaves the stream",
    ),
    (
        0xffe0_001f,
        0xd400_0001,
        "SVC is a call of the kernel that QEMU plays",
    ),
    (
        0xffe0_001f,
        0xd440_0000,
        "HLT is a semihosting call in QEMU",
    ),
    (
        0xffff_ffff,
        0xd503_207f,
        "WFI waits here, and does nothing in user mode",
    ),
    (
        0xfff8_0000,
        0xd538_0000,
        "QEMU lets EL0 read ID registers, as Linux emulates",
    ),
    (0xffff_ff00, 0xd53b_e000, "counters differ from run to run"),
    (
        0xffff_ff00,
        0xd53b_0000,
        "cache geometry is each machine's own",
    ),
    (
        0xffff_ffe0,
        0xd53b_d040,
        "TPIDR_EL0 is set by the stream first",
    ),
    (0xffff_ffe0, 0xd53b_d060, "TPIDRRO_EL0 is the kernel's"),
    (0xffdf_ffe0, 0xd51b_42c0, "SSBS: the Cortex-A76 has it"),
    (
        0xffff_ffe0,
        0xd51b_4400,
        "random FPCR bits: FZ16 and others QEMU keeps",
    ),
    (
        0xffff_ffe0,
        0xd51b_4420,
        "random FPSR bits: AArch32 flags QEMU keeps",
    ),
    (
        0xffff_f000,
        0xd50b_7000,
        "DC and IC on any address: user mode does not look",
    ),
    (
        0x3fa0_8000,
        0x0880_0000,
        "LDLAR, STLLR: the Cortex-A76 has LORegions",
    ),
    (0xffff_fc00, 0x1e7e_0000, "FJCVTZS: the Cortex-A76 has none"),
    (
        0x5ec0_0000,
        0x1ec0_0000,
        "half-precision arithmetic: the Cortex-A76 has it",
    ),
    (
        0x9f60_c400,
        0x0e40_0400,
        "half-precision arithmetic, three same",
    ),
    (
        0xdf60_c400,
        0x5e40_0400,
        "half-precision arithmetic, scalar three same",
    ),
    (
        0x9f7e_0c00,
        0x0e78_0800,
        "half-precision arithmetic, two-register",
    ),
    (
        0xdf7e_0c00,
        0x5e78_0800,
        "half-precision arithmetic, scalar two-register",
    ),
    (
        0xbf3f_cc00,
        0x0e30_c800,
        "half-precision arithmetic, across lanes",
    ),
    (
        0xff3f_cc00,
        0x5e30_c800,
        "half-precision arithmetic, scalar pairwise",
    ),
    (
        0x9fc0_0400,
        0x0f00_0000,
        "half-precision arithmetic, by element",
    ),
    (
        0xdfc0_0400,
        0x5f00_0000,
        "half-precision arithmetic, scalar by element",
    ),
    (
        0x9ff0_c400,
        0x0f10_c400,
        "half-precision arithmetic, fixed point",
    ),
    (
        0xdff0_c400,
        0x5f10_c400,
        "half-precision arithmetic, scalar fixed point",
    ),
    (
        0x9ff8_fc00,
        0x0f00_fc00,
        "half-precision FMOV of an immediate",
    ),
];

/// Addresses where QEMU's user mode and its program have memory that the
/// engine's side has not: the loader's area for stacks, the program, and what
/// it moved away. Streams find them once in a hundred million instructions.
pub fn is_private_to_qemu(at: u64) -> bool {
    matches!(at >> 32, 0x4a | 0x55) || at >> 13 == super::qemu::PROGRAM >> 13
}

/// Why `word` takes no part, if so.
pub fn excluded(word: u32) -> Option<&'static str> {
    if word & 0xffff_7c00 == 0x1ee2_4000 {
        // FCVT from half precision is in the base architecture.
        return None;
    }
    let loads_pair = word & 0x3a40_0000 == 0x2840_0000;
    if loads_pair && word & 31 == word >> 10 & 31 {
        return Some("LDP of one register twice is constrained unpredictable");
    }
    if writes_base_twice(word) {
        return Some("writeback to a register also transferred is constrained unpredictable");
    }
    let found = EXCLUDED
        .iter()
        .find(|(mask, value, _)| word & mask == *value);
    found.map(|(.., reason)| *reason)
}

/// Stores of more than one register access memory in pieces; whether a fault
/// in the second page leaves the first piece stored is up to the machine. The
/// engine stores nothing then.
pub fn may_tear(word: u32) -> bool {
    let pair = word & 0x3a40_0000 == 0x2800_0000;
    let structure = is_structure(word) && word & 1 << 22 == 0;
    let whole_vector = word & 0x3e80_0000 == 0x3c80_0000;
    pair || structure || whole_vector
}

fn is_structure(word: u32) -> bool {
    word & 0xbe00_0000 == 0x0c00_0000
}

/// Vector registers that a load of several may have begun to load when it
/// faults; the engine has not.
pub fn may_be_loaded(word: u32) -> Vec<usize> {
    if word & 1 << 22 == 0 {
        return Vec::new();
    }
    let first = (word & 31) as usize;
    if is_structure(word) {
        return (first..first + 4).map(|n| n % 32).collect();
    }
    let pair = word & 0x3e00_0000 == 0x2c00_0000;
    if pair {
        vec![first, (word >> 10 & 31) as usize]
    } else {
        Vec::new()
    }
}

/// Whether a store-exclusive that is going to fail looks at memory first, and
/// so may fault, is up to the machine (Arm ARM, STXR). The engine looks.
pub fn is_store_exclusive(word: u32) -> bool {
    word & 0x3fc0_0000 == 0x0800_0000
}

/// DC ZVA, whose faults have no exact program counter in QEMU's user mode.
pub fn is_zero_block(word: u32) -> bool {
    word & 0xffff_ffe0 == 0xd50b_7420
}

/// Cache maintenance by address, which does nothing in QEMU's user mode.
pub fn is_cache_maintenance(word: u32) -> bool {
    word & 0xffff_f000 == 0xd50b_7000 && !is_zero_block(word)
}

/// LDAPR, which QEMU 7.2 lets be unaligned.
pub fn is_load_acquire_pc(word: u32) -> bool {
    word & 0x3fff_fc00 == 0x38bf_c000
}

/// Loads and stores of general registers with writeback whose base is one of
/// them, and not the stack pointer.
fn writes_base_twice(word: u32) -> bool {
    let base = word >> 5 & 31;
    let transfers = |low: u32| word >> low & 31 == base && base != 31;
    let single = word & 0x3f20_0400 == 0x3800_0400;
    let pair = word & 0x3e80_0000 == 0x2880_0000;
    single && transfers(0) || pair && (transfers(0) || transfers(10))
}
