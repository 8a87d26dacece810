//! Finds neighbours that one handler serves better.

use super::branch::kind_of;
use super::{Context, bit, bits};
use crate::exec::fused::{self, Shape, Size, Test};
use crate::op::Handler;

/// The handler that serves `word` at `context` together with `next` behind it.
pub fn pair(word: u32, next: u32, context: Context) -> Option<Handler> {
    if let Some(test) = test(word) {
        // B.cond: 0101_0100 imm19 0 cond.
        if next & 0xff00_0010 != 0x5400_0000 {
            return None;
        }
        let behind = Context {
            offset: context.offset + 4,
            ..context
        };
        return fused::test_branch(test, bits(next, 0, 4) as u16, kind_of(next, behind));
    }
    // ADRP Xd; ADD Xd, Xd, #imm12 (unshifted), Xd not being SP.
    let rd = bits(word, 0, 5);
    let adrp = word & 0x9f00_0000 == 0x9000_0000;
    let add = next & 0xffc0_0000 == 0x9100_0000;
    if adrp && add && rd != 31 && bits(next, 0, 5) == rd && bits(next, 5, 5) == rd {
        return Some(fused::adrp_add);
    }
    let first = shape(word)?;
    // CBZ and CBNZ: sf 011010 op imm19 Rt.
    if next & 0x7e00_0000 == 0x3400_0000 {
        let behind = Context {
            offset: context.offset + 4,
            ..context
        };
        let (wide, nonzero) = (bit(next, 31), bit(next, 24));
        return fused::load_zero_branch(first, wide, nonzero, kind_of(next, behind));
    }
    fused::two(first, shape(next)?)
}

/// The shape of `word`, if it is one that fuses. Encodings as in C4.1.
fn shape(word: u32) -> Option<Shape> {
    let size = |bits: u32| match bits {
        0 => Some(Size::B),
        2 => Some(Size::W),
        3 => Some(Size::X),
        _ => None,
    };
    Some(match word >> 22 {
        // ADD and SUB (immediate), the latter negated at decode.
        0x044 | 0x045 | 0x144 | 0x145 => Shape::AddImm32,
        0x244 | 0x245 | 0x344 | 0x345 => Shape::AddImm64,
        // LDR and STR (immediate, unsigned offset).
        0x0e5 | 0x2e5 | 0x3e5 => Shape::Load(size(word >> 30)?),
        0x0e4 | 0x2e4 | 0x3e4 => Shape::Store(size(word >> 30)?),
        // LDP and STP of X registers.
        0x2a5 => Shape::LoadPair { post: false },
        0x2a3 => Shape::LoadPair { post: true },
        0x2a4 => Shape::StorePair { pre: false },
        0x2a6 => Shape::StorePair { pre: true },
        _ => return register_shape(word, size(word >> 30)),
    })
}

fn register_shape(word: u32, size: Option<Size>) -> Option<Shape> {
    Some(match () {
        // ADD (shifted register) with no shift; ORR of XZR with no shift.
        () if word & 0xffe0_fc00 == 0x8b00_0000 => Shape::Add64,
        () if word & 0xffe0_ffe0 == 0xaa00_03e0 => Shape::Mov64,
        () if word & 0xffe0_ffe0 == 0x2a00_03e0 => Shape::Mov32,
        // MOVN, MOVZ; a halfword beyond a W register does not decode.
        () if word & 0x1f80_0000 == 0x1280_0000 && matches!(bits(word, 29, 2), 0 | 2) => {
            Shape::Constant
        }
        () if word & 0x9f00_0000 == 0x9000_0000 => Shape::Adrp,
        // LDR (immediate, post-index) and (register, LSL).
        () if word & 0x3fe0_0c00 == 0x3840_0400 => Shape::LoadPost(size?),
        () if word & 0x3fe0_ec00 == 0x3860_6800 => Shape::LoadIndex(size?),
        () => return None,
    })
}

/// Whether `word` is a flag setter that fuses.
fn test(word: u32) -> Option<Test> {
    let wide = bit(word, 31);
    match word & 0x7f80_0000 {
        0x7100_0000 => return Some(Test::SubsImm { wide }),
        0x3100_0000 => return Some(Test::AddsImm { wide }),
        // N must be 0 for 32 bits; other bad masks do not decode at all.
        0x7200_0000 if wide || !bit(word, 22) => return Some(Test::AndsImm { wide }),
        _ => (),
    }
    match word & 0x7fe0_fc00 {
        0x6b00_0000 => Some(Test::Subs { wide }),
        0x6a00_0000 => Some(Test::Ands { wide }),
        _ => None,
    }
}
