//! The encoding classes that streams are made of.

/// What a word's fields mean, as far as they must be steered.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// Bits 4:0 are a destination; everything else goes.
    Data,
    /// Only vector registers.
    Vector,
    /// Load or store, base at 9:5, transfer register at 4:0.
    Memory,
    /// As `Memory`, with a second transfer register at 14:10.
    Pair,
    /// As `Memory`, with an unsigned scaled offset at 21:10.
    Scaled,
    /// As `Memory`, with an index register at 20:16.
    Indexed,
    /// As `Memory`, with a status or operand register at 20:16.
    Atomic,
    /// As `Memory`, with a step register at 20:16 or none.
    Structure,
}

/// Encoding classes (Arm ARM C4.1): fixed bits, their values, weight.
pub const CLASSES: &[(u32, u32, Kind, u32)] = &[
    (0x9f00_0000, 0x1000_0000, Kind::Data, 3),    // adr
    (0x9f00_0000, 0x9000_0000, Kind::Data, 3),    // adrp
    (0x1f80_0000, 0x1100_0000, Kind::Data, 10),   // add and subtract immediate
    (0x1f80_0000, 0x1200_0000, Kind::Data, 10),   // logical immediate
    (0x1f80_0000, 0x1280_0000, Kind::Data, 6),    // move wide
    (0x1f80_0000, 0x1300_0000, Kind::Data, 10),   // bitfield
    (0x1f80_0000, 0x1380_0000, Kind::Data, 5),    // extract
    (0x1f00_0000, 0x0a00_0000, Kind::Data, 10),   // logical shifted
    (0x1f20_0000, 0x0b00_0000, Kind::Data, 10),   // add and subtract shifted
    (0x1fe0_0000, 0x0b20_0000, Kind::Data, 8),    // add and subtract extended
    (0x1fe0_fc00, 0x1a00_0000, Kind::Data, 8),    // with carry
    (0x3fe0_0410, 0x3a40_0000, Kind::Vector, 8),  // conditional compare
    (0x3fe0_0800, 0x1a80_0000, Kind::Data, 8),    // conditional select
    (0x7fe0_8000, 0x1ac0_0000, Kind::Data, 12),   // two sources
    (0x7fff_c000, 0x5ac0_0000, Kind::Data, 8),    // one source
    (0x7f00_0000, 0x1b00_0000, Kind::Data, 12),   // three sources
    (0x3b20_0000, 0x3800_0000, Kind::Memory, 20), // unscaled, pre, post, unprivileged
    (0x3b20_0c00, 0x3820_0800, Kind::Indexed, 14),
    (0x3b00_0000, 0x3900_0000, Kind::Scaled, 16),
    (0x3a00_0000, 0x2800_0000, Kind::Pair, 16),
    (0x3f20_0c00, 0x3820_0000, Kind::Atomic, 10),
    (0x3fa0_0000, 0x0880_0000, Kind::Atomic, 6), // ordered
    (0x3fa0_7c00, 0x08a0_7c00, Kind::Atomic, 6), // cas
    (0xbfa0_7c00, 0x0820_7c00, Kind::Atomic, 4), // casp
    (0xbfbf_0000, 0x0c00_0000, Kind::Structure, 5),
    (0xbfa0_0000, 0x0c80_0000, Kind::Structure, 5),
    (0xbf9f_0000, 0x0d00_0000, Kind::Structure, 5),
    (0xbf80_0000, 0x0d80_0000, Kind::Structure, 5),
    (0x5f20_0c00, 0x1e20_0800, Kind::Vector, 8), // fp two sources
    (0x5f20_7c00, 0x1e20_4000, Kind::Vector, 6), // fp one source
    (0x5f20_fc07, 0x1e20_2000, Kind::Vector, 4), // fp compare
    (0x5f20_1fe0, 0x1e20_1000, Kind::Vector, 2), // fp immediate
    (0x5f20_0c10, 0x1e20_0400, Kind::Vector, 3), // fp conditional compare
    (0x5f20_0c00, 0x1e20_0c00, Kind::Vector, 3), // fp select
    (0x7f20_fc00, 0x1e20_0000, Kind::Data, 8),   // fp and integer
    (0x7f20_0000, 0x1e00_0000, Kind::Data, 6),   // fp and fixed point
    (0x5f00_0000, 0x1f00_0000, Kind::Vector, 6), // fp three sources
    (0x9f20_0400, 0x0e20_0400, Kind::Vector, 14), // three same
    (0x9f20_8400, 0x0e00_8400, Kind::Vector, 3), // three same extra
    (0x9f20_0c00, 0x0e20_0000, Kind::Vector, 8), // three different
    (0x9f3e_0c00, 0x0e20_0800, Kind::Vector, 12), // two registers
    (0x9f3e_0c00, 0x0e30_0800, Kind::Vector, 5), // across lanes
    (0xbf3f_fc00, 0x0e31_b800, Kind::Vector, 2), // addv
    (0x9f3e_fc00, 0x0e30_a800, Kind::Vector, 2), // maximum and minimum across lanes
    (0x9f00_0400, 0x0f00_0000, Kind::Vector, 8), // by element
    (0x9f80_0400, 0x0f00_0400, Kind::Vector, 8), // shift by immediate
    (0x9ff8_0400, 0x0f00_0400, Kind::Vector, 4), // modified immediate
    (0x9fe0_8400, 0x0e00_0400, Kind::Data, 5),   // copy
    (0xbf20_8c00, 0x0e00_0800, Kind::Vector, 5), // permute
    (0xbf20_8400, 0x2e00_0000, Kind::Vector, 3), // extract
    (0xbf20_8c00, 0x0e00_0000, Kind::Vector, 4), // table
    (0xff3e_0c00, 0x4e28_0800, Kind::Vector, 4), // aes
    (0xff20_8c00, 0x5e00_0000, Kind::Vector, 4), // sha, three registers
    (0xff3e_0c00, 0x5e28_0800, Kind::Vector, 3), // sha, two registers
    (0xdf20_0400, 0x5e20_0400, Kind::Vector, 6), // scalar three same
    (0xdf20_8400, 0x5e00_8400, Kind::Vector, 2), // scalar three same extra
    (0xdf20_0c00, 0x5e20_0000, Kind::Vector, 2), // scalar three different
    (0xdf3e_0c00, 0x5e20_0800, Kind::Vector, 6), // scalar two registers
    (0xdf3e_0c00, 0x5e30_0800, Kind::Vector, 3), // scalar pairwise
    (0xdf00_0400, 0x5f00_0000, Kind::Vector, 4), // scalar by element
    (0xdf80_0400, 0x5f00_0400, Kind::Vector, 5), // scalar shift by immediate
    (0xdfe0_8400, 0x5e00_0400, Kind::Vector, 2), // scalar copy
];

/// Classes of the instructions that compilers put next to each other, and
/// that the engine serves in pairs.
pub const COMMON: &[(u32, u32, Kind)] = &[
    (0x1f80_0000, 0x1100_0000, Kind::Data), // add and subtract immediate
    (0x7fe0_fc00, 0x0b00_0000, Kind::Data), // add, no shift
    (0x7fe0_ffe0, 0x2a00_03e0, Kind::Data), // mov
    (0x3f80_0000, 0x1280_0000, Kind::Data), // movn, movz
    (0x9f00_0000, 0x9000_0000, Kind::Data), // adrp
    (0x3f80_0000, 0x3900_0000, Kind::Scaled), // ldr and str, scaled
    (0x7e80_0000, 0x2880_0000, Kind::Pair), // ldp and stp with writeback
    (0x7f80_0000, 0x2900_0000, Kind::Pair), // ldp and stp
    (0x3fe0_0c00, 0x3840_0400, Kind::Memory), // ldr, post-index
    (0x3fe0_ec00, 0x3860_6800, Kind::Indexed), // ldr, register offset
];

/// Flag setters that come before conditional branches.
pub const TESTS: &[(u32, u32, Kind)] = &[
    (0x3f80_0000, 0x3100_0000, Kind::Data), // adds and subs immediate
    (0x7f80_0000, 0x7200_0000, Kind::Data), // ands immediate
    (0x7fe0_fc00, 0x6b00_0000, Kind::Data), // subs
    (0x7fe0_fc00, 0x6a00_0000, Kind::Data), // ands
];
