//! Finds neighbours that one handler serves better.

use super::branch::kind_of;
use super::{Context, bit, bits};
use crate::cpu::op::Handler;
use crate::exec::fused::{self, Shape, Size, Test};

/// What an instruction can be in a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Nothing, but for a branch behind another.
    Alone,
    /// The flag setter before a conditional branch.
    Test(Test),
    /// One of two that go together.
    Shape(Shape),
}

/// An instruction that was decoded, as one of a possible pair.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    word: u32,
    part: Part,
}

impl Candidate {
    /// What `word` can be. Encodings as in C4.1; each arm is one value of the
    /// highest byte, which tells most of them apart.
    pub fn new(word: u32) -> Self {
        let part = match word >> 24 {
            // ADD and SUB (immediate), the latter negated at decode.
            0x11 | 0x51 if !bit(word, 23) => Part::Shape(Shape::AddImm32),
            0x91 | 0xd1 if !bit(word, 23) => Part::Shape(Shape::AddImm64),
            // MOVN, MOVZ; a halfword beyond a W register does not decode.
            0x12 | 0x52 | 0x92 | 0xd2 if bit(word, 23) => Part::Shape(Shape::Constant),
            0x90 | 0xb0 | 0xd0 | 0xf0 => Part::Shape(Shape::Adrp),
            // LDR and STR (immediate, unsigned offset).
            0x39 | 0xb9 | 0xf9 => match (bits(word, 22, 2), size(word)) {
                (1, Some(size)) => Part::Shape(Shape::Load(size)),
                (0, Some(size)) => Part::Shape(Shape::Store(size)),
                _ => Part::Alone,
            },
            // LDR (immediate, post-index) and (register, LSL).
            0x38 | 0xb8 | 0xf8 => match (word & 0x00e0_ec00, size(word)) {
                (0x0060_6800, Some(size)) => Part::Shape(Shape::LoadIndex(size)),
                (masked, Some(size)) if masked & 0x00e0_0c00 == 0x0040_0400 => {
                    Part::Shape(Shape::LoadPost(size))
                }
                _ => Part::Alone,
            },
            // LDP and STP of X registers.
            0xa8 if bits(word, 22, 2) == 3 => Part::Shape(Shape::LoadPair { post: true }),
            0xa9 => match bits(word, 22, 2) {
                0 => Part::Shape(Shape::StorePair { pre: false }),
                1 => Part::Shape(Shape::LoadPair { post: false }),
                2 => Part::Shape(Shape::StorePair { pre: true }),
                _ => Part::Alone,
            },
            // ADD (shifted register) with no shift; ORR of XZR with no shift.
            0x8b if word & 0x00e0_fc00 == 0 => Part::Shape(Shape::Add64),
            0xaa if word & 0x00e0_ffe0 == 0x03e0 => Part::Shape(Shape::Mov64),
            0x2a if word & 0x00e0_ffe0 == 0x03e0 => Part::Shape(Shape::Mov32),
            _ => test(word).map_or(Part::Alone, Part::Test),
        };
        Self { word, part }
    }
}

/// The size of a load or store that fuses.
fn size(word: u32) -> Option<Size> {
    match word >> 30 {
        0 => Some(Size::B),
        2 => Some(Size::W),
        3 => Some(Size::X),
        _ => None,
    }
}

/// Whether `word` is a flag setter that fuses.
fn test(word: u32) -> Option<Test> {
    let wide = bit(word, 31);
    let immediate = !bit(word, 23);
    // No shift of the second register.
    let plain = word & 0x00e0_fc00 == 0;
    match word >> 24 & 0x7f {
        0x71 if immediate => Some(Test::SubsImm { wide }),
        0x31 if immediate => Some(Test::AddsImm { wide }),
        // N must be 0 for 32 bits; other bad masks do not decode at all.
        0x72 if immediate && (wide || !bit(word, 22)) => Some(Test::AndsImm { wide }),
        0x6b if plain => Some(Test::Subs { wide }),
        0x6a if plain => Some(Test::Ands { wide }),
        _ => None,
    }
}

/// The handler that serves `first` at `context` together with `next` behind it.
pub fn pair(first: Candidate, next: Candidate, context: Context) -> Option<Handler> {
    let behind = Context {
        offset: context.offset + 4,
        ..context
    };
    let shape = match first.part {
        Part::Alone => return None,
        // B.cond: 0101_0100 imm19 0 cond.
        Part::Test(test) if next.word & 0xff00_0010 == 0x5400_0000 => {
            let condition = bits(next.word, 0, 4) as u16;
            return fused::test_branch(test, condition, kind_of(next.word, behind));
        }
        Part::Test(_) => return None,
        Part::Shape(shape) => shape,
    };
    // ADRP Xd; ADD Xd, Xd, #imm12 (unshifted), Xd not being SP.
    if shape == Shape::Adrp && next.word & 0xffc0_0000 == 0x9100_0000 {
        let rd = bits(first.word, 0, 5);
        if rd != 31 && bits(next.word, 0, 5) == rd && bits(next.word, 5, 5) == rd {
            return Some(fused::adrp_add);
        }
    }
    // CBZ and CBNZ: sf 011010 op imm19 Rt.
    if next.word & 0x7e00_0000 == 0x3400_0000 {
        let (wide, nonzero) = (bit(next.word, 31), bit(next.word, 24));
        return fused::load_zero_branch(shape, wide, nonzero, kind_of(next.word, behind));
    }
    match next.part {
        Part::Shape(next) => fused::two(shape, next),
        _ => None,
    }
}
