//! The instruction forms under test, with Rd = 0, Rn = 1, Rm = 2, Ra = 3.

const RN: u32 = 1 << 5;
const RM: u32 = 2 << 16;

/// Scalar floating point: every form but register choices and most immediates.
pub fn scalar() -> Vec<u32> {
    let mut words = Vec::new();
    for ptype in [0, 1] {
        let base = 0x1e20_0000 | ptype << 22 | RN;
        // Two sources: FMUL to FNMUL.
        words.extend((0..9).map(|opcode| base | RM | opcode << 12 | 2 << 10));
        // One source: FMOV, FABS, FNEG, FSQRT, FRINT*.
        let one = [0, 1, 2, 3, 8, 9, 10, 11, 12, 14, 15];
        words.extend(one.map(|opcode| base | opcode << 15 | 1 << 14));
        // FCMP and FCMPE, register and zero.
        words.extend([0, 8, 16, 24].map(|op| {
            let rm = if op & 8 == 0 { RM } else { 0 };
            base | rm | 1 << 13 | op
        }));
        for cond in 0..16 {
            // FCSEL, FCCMP, FCCMPE.
            words.push(base | RM | cond << 12 | 3 << 10);
            words.push(base | RM | cond << 12 | 1 << 10 | (cond ^ 5));
            words.push(base | RM | cond << 12 | 1 << 10 | 1 << 4 | (cond ^ 10));
        }
        // FMOV immediate.
        words.extend([0x00, 0x70, 0xf8, 0xbf, 0x5a].map(|imm| (base & !RN) | imm << 13 | 1 << 12));
        // FMADD, FMSUB, FNMADD, FNMSUB.
        let three = 0x1f00_0000 | ptype << 22 | RN | RM | 3 << 10;
        words.extend([0, 1 << 15, 1 << 21, 1 << 21 | 1 << 15].map(|op| three | op));
        for sf in [0, 1 << 31] {
            // FCVT{N,P,M,Z}{S,U}, FCVTA{S,U}, SCVTF, UCVTF.
            for op in [0, 1, 8, 9, 16, 17, 24, 25, 4, 5, 2, 3] {
                words.push(sf | base | op << 16);
            }
            // The same with fraction bits: scale is 64 minus their number.
            for scale in [63, 60, 47, 33, 32, 31, 1, 0] {
                if sf != 0 || scale >= 32 {
                    for op in [2, 3, 24, 25] {
                        let fixed = base & !(1 << 21);
                        words.push(sf | fixed | op << 16 | scale << 10);
                    }
                }
            }
        }
    }
    // FCVT: single to double, half; double to single, half; half to both.
    for (ptype, opcode) in [(0, 5), (0, 7), (1, 4), (1, 7), (3, 4), (3, 5)] {
        words.push(0x1e20_0000 | ptype << 22 | opcode << 15 | 1 << 14 | RN);
    }
    // FMOV: W and S, X and D, X and the top half, both ways; FJCVTZS.
    words.extend(
        [
            0x1e26_0000,
            0x1e27_0000,
            0x9e66_0000,
            0x9e67_0000,
            0x9eae_0000,
            0x9eaf_0000,
            0x1e7e_0000,
        ]
        .map(|w| w | RN),
    );
    words
}

const Q: u32 = 1 << 30;
const U: u32 = 1 << 29;
/// The upper size bit, which chooses among operations.
const O: u32 = 1 << 23;
/// The lower size bit: double.
const D: u32 = 1 << 22;
/// Bits 30 and 28: a scalar form.
const SCALAR: u32 = 1 << 30 | 1 << 28;

/// Shape bits: 2S, 4S, 2D, then the scalar S and D.
const SHAPES: [u32; 5] = [0, Q, Q | D, SCALAR, SCALAR | D];

/// AdvSIMD on three registers, pairwise included.
pub fn three_same() -> Vec<u32> {
    // (U and O, opcode, has a scalar form)
    let vector = [
        (0, [0, 1, 2, 3, 4, 6, 7].as_slice()),
        (O, &[0, 1, 2, 6, 7]),
        (U, &[0, 2, 3, 4, 5, 6, 7]),
        (U | O, &[0, 2, 4, 5, 6]),
    ];
    let scalar = [
        (0, [3, 4, 7].as_slice()),
        (O, &[7]),
        (U, &[4, 5]),
        (U | O, &[2, 4, 5]),
    ];
    let mut words = Vec::new();
    for (table, shapes) in [(vector, &SHAPES[..3]), (scalar, &SHAPES[3..])] {
        for (bits, opcodes) in table {
            for opcode in opcodes {
                let word = 0x0e20_c400 | bits | opcode << 11 | RN | RM;
                words.extend(shapes.iter().map(|shape| word | shape));
            }
        }
    }
    words
}

/// AdvSIMD on one register: arithmetic, rounding, comparison with zero,
/// conversions, reductions.
pub fn two_misc() -> Vec<u32> {
    let vector = [
        (0, [0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d].as_slice()),
        (O, &[0xc, 0xd, 0xe, 0xf, 0x18, 0x19, 0x1a, 0x1b, 0x1d]),
        (U, &[0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d]),
        (U | O, &[0xc, 0xd, 0xf, 0x19, 0x1a, 0x1b, 0x1d, 0x1f]),
    ];
    let scalar = [
        (0, [0x1a, 0x1b, 0x1c, 0x1d].as_slice()),
        (O, &[0xc, 0xd, 0xe, 0x1a, 0x1b, 0x1d, 0x1f]),
        (U, &[0x1a, 0x1b, 0x1c, 0x1d]),
        (U | O, &[0xc, 0xd, 0x1a, 0x1b, 0x1d]),
    ];
    let mut words = Vec::new();
    for (table, shapes) in [(vector, &SHAPES[..3]), (scalar, &SHAPES[3..])] {
        for (bits, opcodes) in table {
            for opcode in opcodes {
                let word = 0x0e20_0800 | bits | opcode << 12 | RN;
                words.extend(shapes.iter().map(|shape| word | shape));
            }
        }
    }
    let base = 0x0e20_0800 | RN;
    for q in [0, Q] {
        // URECPE, URSQRTE; FCVTN, FCVTL of both sizes; FCVTXN.
        words.extend([O | 0x1c << 12, U | O | 0x1c << 12].map(|w| base | q | w));
        for d in [0, D] {
            words.extend([0x16 << 12, 0x17 << 12].map(|w| base | q | d | w));
        }
        words.push(base | q | U | D | 0x16 << 12);
    }
    words.push(base | SCALAR | U | D | 0x16 << 12);
    let base = 0x0e30_0800 | U | RN;
    for (bits, opcode) in [(0, 0xc), (0, 0xf), (O, 0xc), (O, 0xf), (0, 0xd)] {
        // FMAXNMV to FMINV, and the scalar pairwise forms, FADDP included.
        let word = base | bits | opcode << 12;
        if opcode != 0xd {
            words.push(word | Q);
        }
        words.extend([word | SCALAR, word | SCALAR | D]);
    }
    words
}

/// AdvSIMD by element, and conversions with fraction bits.
pub fn by_element_and_fixed() -> Vec<u32> {
    let mut words = Vec::new();
    for shape in SHAPES {
        for (bits, opcode) in [(0, 1), (0, 5), (0, 9), (U, 9)] {
            for index in 0..4 {
                let (high, low) = match shape & D {
                    0 => (index >> 1, index & 1),
                    _ => (index & 1, 0),
                };
                let word = 0x0f80_0000 | shape | bits | opcode << 12 | RN | RM;
                words.push(word | high << 11 | low << 21);
            }
        }
        let width = if shape & D == 0 { 32 } else { 64 };
        for fraction in [1, 2, 5, 23, 31, 32, 53, 63, 64] {
            if fraction <= width {
                for bits in [0x1c << 11, 0x1f << 11, U | 0x1c << 11, U | 0x1f << 11] {
                    let word = 0x0f00_0400 | shape & !D | bits | RN;
                    words.push(word | (2 * width - fraction) << 16);
                }
            }
        }
    }
    words
}
