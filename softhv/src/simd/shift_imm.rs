//! Shifts by immediate. Arm ARM C4.1.96, "Advanced SIMD shift by immediate"
//! and its scalar twin. The fixed-point conversions of the same class are
//! floating-point instructions.

use super::forms::{Shifted, ShiftedSat};
use super::lane_ops::*;
use super::reshape::{Clamp, Floor, Nearest, Truncate, WidenShift};
use super::run;
use super::word::{Word, by_size, with_imm};
use crate::cpu::op::{Handler, Op};

/// log2 of the element bytes: the position of the highest set bit of immh.
fn element_size(w: Word) -> Option<u32> {
    w.bits(19, 4).checked_ilog2()
}

/// Shift counts share immh:immb with the element size: left shifts count up
/// from the element's bits, right shifts down from twice that.
fn left_count(w: Word, size: u32) -> u32 {
    w.bits(16, 7) - (8 << size)
}

fn right_count(w: Word, size: u32) -> u32 {
    (16 << size) - w.bits(16, 7)
}

fn count(w: Word, size: u32) -> u32 {
    match w.bits(11, 5) {
        // SLI, SHL, SQSHLU, SQSHL, UQSHL, SSHLL, USHLL
        0b01010 | 0b01100 | 0b01110 | 0b10100 => left_count(w, size),
        _ => right_count(w, size),
    }
}

/// Vector form.
pub fn vector(w: Word) -> Option<Op> {
    let size = element_size(w)?;
    let code = w.code(11, 5);
    let half = narrowing(code, size)
        .or_else(|| narrowing_plain(code, size))
        .or_else(|| widening(code, size));
    let op = match half {
        Some(run) => w.half_op(run),
        None if w.is_1d(size) => return None,
        None => {
            let run = lanes(code, size).or_else(|| saturating(code, size))?;
            w.vector_op(run)
        }
    };
    Some(with_imm(op, count(w, size)))
}

/// Scalar form: plain shifts of 64 bits, saturating ones of every size.
pub fn scalar(w: Word) -> Option<Op> {
    let size = element_size(w)?;
    let code = w.code(11, 5);
    let op = if let Some(run) = narrowing(code, size) {
        w.scalar_op(run, size + 1)
    } else if let Some(run) = saturating(code, size) {
        w.scalar_op(run, size)
    } else if size == 3 {
        w.scalar_op(lanes(code, size)?, size)
    } else {
        return None;
    };
    Some(with_imm(op, count(w, size)))
}

fn lanes(code: u32, size: u32) -> Option<Handler> {
    match code {
        0b00000_0 => by_size!(size, Shifted<Shr>, 0: i8 i16 i32 i64),
        0b00000_1 => by_size!(size, Shifted<Shr>, 0: u8 u16 u32 u64),
        0b00010_0 => by_size!(size, Shifted<Sra>, 0: i8 i16 i32 i64),
        0b00010_1 => by_size!(size, Shifted<Sra>, 0: u8 u16 u32 u64),
        0b00100_0 => by_size!(size, Shifted<Rshr>, 0: i8 i16 i32 i64),
        0b00100_1 => by_size!(size, Shifted<Rshr>, 0: u8 u16 u32 u64),
        0b00110_0 => by_size!(size, Shifted<Rsra>, 0: i8 i16 i32 i64),
        0b00110_1 => by_size!(size, Shifted<Rsra>, 0: u8 u16 u32 u64),
        0b01000_1 => by_size!(size, Shifted<Sri>, 0: u8 u16 u32 u64),
        0b01010_0 => by_size!(size, Shifted<ShlImm>, 0: u8 u16 u32 u64),
        0b01010_1 => by_size!(size, Shifted<Sli>, 0: u8 u16 u32 u64),
        _ => None,
    }
}

fn saturating(code: u32, size: u32) -> Option<Handler> {
    match code {
        0b01100_1 => by_size!(size, ShiftedSat<Qshlu>, 0: u8 u16 u32 u64),
        0b01110_0 => by_size!(size, ShiftedSat<QshlImm>, 0: i8 i16 i32 i64),
        0b01110_1 => by_size!(size, ShiftedSat<QshlImm>, 0: u8 u16 u32 u64),
        _ => None,
    }
}

/// SSHLL, USHLL.
fn widening(code: u32, size: u32) -> Option<Handler> {
    match code {
        0b10100_0 => by_size!(size, WidenShift, 0: i8 i16 i32),
        0b10100_1 => by_size!(size, WidenShift, 0: u8 u16 u32),
        _ => None,
    }
}

macro_rules! narrow_table {
    ($form:ident, $rounding:ty: $($wide:ty => $narrow:ty),*) => {
        [$(run::<$form<$wide, $narrow, $rounding>>()),*]
    };
}

/// SHRN, RSHRN.
fn narrowing_plain(code: u32, size: u32) -> Option<Handler> {
    let table = match code {
        0b10000_0 => narrow_table!(Truncate, Floor: u16 => u8, u32 => u16, u64 => u32),
        0b10001_0 => narrow_table!(Truncate, Nearest: u16 => u8, u32 => u16, u64 => u32),
        _ => return None,
    };
    table.get(size as usize).copied()
}

/// SQ(R)SHRUN, SQ(R)SHRN, UQ(R)SHRN, which exist as scalars too.
fn narrowing(code: u32, size: u32) -> Option<Handler> {
    let table = match code {
        0b10000_1 => narrow_table!(Clamp, Floor: i16 => u8, i32 => u16, i64 => u32),
        0b10001_1 => narrow_table!(Clamp, Nearest: i16 => u8, i32 => u16, i64 => u32),
        0b10010_0 => narrow_table!(Clamp, Floor: i16 => i8, i32 => i16, i64 => i32),
        0b10010_1 => narrow_table!(Clamp, Floor: u16 => u8, u32 => u16, u64 => u32),
        0b10011_0 => narrow_table!(Clamp, Nearest: i16 => i8, i32 => i16, i64 => i32),
        0b10011_1 => narrow_table!(Clamp, Nearest: u16 => u8, u32 => u16, u64 => u32),
        _ => return None,
    };
    table.get(size as usize).copied()
}
