//! From instruction words to instructions. Pure: nothing here looks at a vCPU or
//! at the level the word is executed at, and nothing knows of handlers.
//!
//! Encodings are those of the Arm ARM, chapter C4. Whatever is not decoded is
//! undefined, which includes every extension that the ID registers do not
//! advertise.

mod branch;
mod dp_imm;
mod dp_reg;
mod fp;
mod ldst;
mod structure;
mod system;

use crate::insn::{Insn, Width};

/// Bits `low..low + count` of `word`.
#[inline]
fn bits(word: u32, low: u32, count: u32) -> u32 {
    word >> low & ((1 << count) - 1)
}

/// Bit `at` of `word`.
#[inline]
fn bit(word: u32, at: u32) -> bool {
    word >> at & 1 != 0
}

/// Bits `low..low + count` of `word`, sign-extended.
#[inline]
fn signed(word: u32, low: u32, count: u32) -> i32 {
    let up = 32 - count;
    (bits(word, low, count) << up) as i32 >> up
}

/// The operand width of bit 31.
#[inline]
fn width(word: u32) -> Width {
    Width::of(bits(word, 31, 1))
}

/// Decodes one word.
#[must_use]
pub fn instruction(word: u32) -> Insn {
    match bits(word, 25, 4) {
        0b1000 | 0b1001 => dp_imm::decode(word),
        0b1010 | 0b1011 => branch::decode(word),
        0b0100 | 0b0110 | 0b1100 | 0b1110 => ldst::decode(word),
        0b0101 | 0b1101 => dp_reg::decode(word),
        // With bits 28 and 30 set it is the scalar form of AdvSIMD.
        0b1111 if !bit(word, 30) => fp::decode(word),
        0b0111 | 0b1111 => Insn::Word(word),
        _ => Insn::Undefined,
    }
}
