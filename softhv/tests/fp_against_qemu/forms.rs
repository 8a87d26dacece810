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
