//! Shifts by immediate. Arm ARM C4.1.96, "Advanced SIMD shift by immediate"
//! and its scalar twin.

use super::forms::{Shifted, ShiftedSat};
use super::lane_ops::*;
use super::ops::by_size;
use super::reshape::{Clamp, Floor, Nearest, Truncate, WidenShift};
use super::run;
use crate::cpu::op::Handler;
use crate::insn::simd::VecShift;

/// The handler of `op` on lanes of `1 << size` bytes.
pub fn run_of(op: VecShift, size: u32) -> Option<Handler> {
    lanes(op, size)
        .or_else(|| saturating(op, size))
        .or_else(|| widening(op, size))
        .or_else(|| narrowing_plain(op, size))
        .or_else(|| narrowing(op, size))
}

fn lanes(op: VecShift, size: u32) -> Option<Handler> {
    match op {
        VecShift::Sshr => by_size!(size, Shifted<Shr>, 0: i8 i16 i32 i64),
        VecShift::Ushr => by_size!(size, Shifted<Shr>, 0: u8 u16 u32 u64),
        VecShift::Ssra => by_size!(size, Shifted<Sra>, 0: i8 i16 i32 i64),
        VecShift::Usra => by_size!(size, Shifted<Sra>, 0: u8 u16 u32 u64),
        VecShift::Srshr => by_size!(size, Shifted<Rshr>, 0: i8 i16 i32 i64),
        VecShift::Urshr => by_size!(size, Shifted<Rshr>, 0: u8 u16 u32 u64),
        VecShift::Srsra => by_size!(size, Shifted<Rsra>, 0: i8 i16 i32 i64),
        VecShift::Ursra => by_size!(size, Shifted<Rsra>, 0: u8 u16 u32 u64),
        VecShift::Sri => by_size!(size, Shifted<Sri>, 0: u8 u16 u32 u64),
        VecShift::Shl => by_size!(size, Shifted<ShlImm>, 0: u8 u16 u32 u64),
        VecShift::Sli => by_size!(size, Shifted<Sli>, 0: u8 u16 u32 u64),
        _ => None,
    }
}

fn saturating(op: VecShift, size: u32) -> Option<Handler> {
    match op {
        VecShift::Sqshlu => by_size!(size, ShiftedSat<Qshlu>, 0: u8 u16 u32 u64),
        VecShift::Sqshl => by_size!(size, ShiftedSat<QshlImm>, 0: i8 i16 i32 i64),
        VecShift::Uqshl => by_size!(size, ShiftedSat<QshlImm>, 0: u8 u16 u32 u64),
        _ => None,
    }
}

/// SSHLL, USHLL.
fn widening(op: VecShift, size: u32) -> Option<Handler> {
    match op {
        VecShift::Sshll => by_size!(size, WidenShift, 0: i8 i16 i32),
        VecShift::Ushll => by_size!(size, WidenShift, 0: u8 u16 u32),
        _ => None,
    }
}

macro_rules! narrow_table {
    ($form:ident, $rounding:ty: $($wide:ty => $narrow:ty),*) => {
        [$(run::<$form<$wide, $narrow, $rounding>>()),*]
    };
}

/// SHRN, RSHRN.
fn narrowing_plain(op: VecShift, size: u32) -> Option<Handler> {
    let table = match op {
        VecShift::Shrn => narrow_table!(Truncate, Floor: u16 => u8, u32 => u16, u64 => u32),
        VecShift::Rshrn => narrow_table!(Truncate, Nearest: u16 => u8, u32 => u16, u64 => u32),
        _ => return None,
    };
    table.get(size as usize).copied()
}

/// SQ(R)SHRUN, SQ(R)SHRN, UQ(R)SHRN, which exist as scalars too.
fn narrowing(op: VecShift, size: u32) -> Option<Handler> {
    let table = match op {
        VecShift::Sqshrun => narrow_table!(Clamp, Floor: i16 => u8, i32 => u16, i64 => u32),
        VecShift::Sqrshrun => narrow_table!(Clamp, Nearest: i16 => u8, i32 => u16, i64 => u32),
        VecShift::Sqshrn => narrow_table!(Clamp, Floor: i16 => i8, i32 => i16, i64 => i32),
        VecShift::Uqshrn => narrow_table!(Clamp, Floor: u16 => u8, u32 => u16, u64 => u32),
        VecShift::Sqrshrn => narrow_table!(Clamp, Nearest: i16 => i8, i32 => i16, i64 => i32),
        VecShift::Uqrshrn => narrow_table!(Clamp, Nearest: u16 => u8, u32 => u16, u64 => u32),
        _ => return None,
    };
    table.get(size as usize).copied()
}
