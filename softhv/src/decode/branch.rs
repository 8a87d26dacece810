//! Branches and exception generation (C4.1.93); system instructions go on.

use super::{Context, Decoded, bit, bits, signed, system, undefined};
use crate::cpu::op::{Handler, src};
use crate::exec::branch::{self, BACK, FAR, NEAR};
use crate::exec::system as exec;

pub fn decode(word: u32, context: Context) -> Decoded {
    match bits(word, 29, 3) {
        0 | 4 => immediate(word, context),
        1 | 5 if !bit(word, 25) => compare(word, context),
        1 | 5 => test(word, context),
        2 if bits(word, 24, 2) == 0 && !bit(word, 4) => conditional(word, context),
        6 if bits(word, 24, 2) == 0 => exception(word, context),
        6 if bits(word, 22, 4) == 4 => system::decode(word, context),
        6 if bit(word, 25) => register(word, context),
        _ => undefined(),
    }
}

/// How a direct branch by `offset` bytes reaches its target.
fn kind(context: Context, offset: u64) -> u8 {
    let target = i64::from(context.offset) + offset as i64;
    if !(0..4096).contains(&target) {
        FAR
    } else if (offset as i64) > 0 {
        NEAR
    } else {
        BACK
    }
}

/// How B.cond `word` reaches its target.
pub fn kind_of(word: u32, context: Context) -> u8 {
    kind(context, signed(word, 5, 19) << 2)
}

macro_rules! by_kind {
    ($kind:expr, $f:ident $(, $arg:expr)*) => {
        match $kind {
            NEAR => branch::$f::<$($arg,)* NEAR> as Handler,
            BACK => branch::$f::<$($arg,)* BACK>,
            _ => branch::$f::<$($arg,)* FAR>,
        }
    };
}

fn immediate(word: u32, context: Context) -> Decoded {
    let offset = signed(word, 0, 26) << 2;
    let kind = kind(context, offset);
    let run = if bit(word, 31) {
        by_kind!(kind, bl)
    } else {
        by_kind!(kind, b)
    };
    Decoded::end(run).imm(offset)
}

fn compare(word: u32, context: Context) -> Decoded {
    let offset = signed(word, 5, 19) << 2;
    let kind = kind(context, offset);
    let run = match (bit(word, 31), bit(word, 24)) {
        (false, false) => by_kind!(kind, cbz, false, false),
        (false, true) => by_kind!(kind, cbz, false, true),
        (true, false) => by_kind!(kind, cbz, true, false),
        (true, true) => by_kind!(kind, cbz, true, true),
    };
    Decoded::new(run).rn(src(word)).imm(offset)
}

fn test(word: u32, context: Context) -> Decoded {
    let offset = signed(word, 5, 14) << 2;
    let kind = kind(context, offset);
    let number = bits(word, 31, 1) << 5 | bits(word, 19, 5);
    let run = if bit(word, 24) {
        by_kind!(kind, tbz, true)
    } else {
        by_kind!(kind, tbz, false)
    };
    Decoded::new(run)
        .rn(src(word))
        .imm(offset)
        .aux(number as u16)
}

fn conditional(word: u32, context: Context) -> Decoded {
    let offset = signed(word, 5, 19) << 2;
    let kind = kind(context, offset);
    let run = match bits(word, 0, 4) {
        0 => by_kind!(kind, b_cond, 0),
        1 => by_kind!(kind, b_cond, 1),
        2 => by_kind!(kind, b_cond, 2),
        3 => by_kind!(kind, b_cond, 3),
        4 => by_kind!(kind, b_cond, 4),
        5 => by_kind!(kind, b_cond, 5),
        6 => by_kind!(kind, b_cond, 6),
        7 => by_kind!(kind, b_cond, 7),
        8 => by_kind!(kind, b_cond, 8),
        9 => by_kind!(kind, b_cond, 9),
        10 => by_kind!(kind, b_cond, 10),
        11 => by_kind!(kind, b_cond, 11),
        12 => by_kind!(kind, b_cond, 12),
        13 => by_kind!(kind, b_cond, 13),
        _ => return Decoded::end(by_kind!(kind, b)).imm(offset),
    };
    Decoded::new(run).imm(offset)
}

fn exception(word: u32, context: Context) -> Decoded {
    let run = match (bits(word, 21, 3), bits(word, 0, 5)) {
        (0, 1) => exec::svc as Handler,
        (0, 2) if !context.mode.user => exec::hvc,
        (0, 3) if !context.mode.user => exec::smc,
        (1, 0) => exec::brk,
        _ => return undefined(),
    };
    Decoded::end(run).imm(u64::from(bits(word, 5, 16)))
}

fn register(word: u32, context: Context) -> Decoded {
    // Pointer authentication forms have a non-zero op3 or op4.
    if bits(word, 16, 5) != 31 || bits(word, 10, 6) != 0 || bits(word, 0, 5) != 0 {
        return undefined();
    }
    match bits(word, 21, 4) {
        0 | 2 => Decoded::end(branch::br).rn(src(word >> 5)),
        1 => Decoded::end(branch::blr).rn(src(word >> 5)),
        4 if !context.mode.user && bits(word, 5, 5) == 31 => Decoded::end(exec::eret),
        _ => undefined(),
    }
}
