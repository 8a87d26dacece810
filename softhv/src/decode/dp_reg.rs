//! Data processing, register (C4.1.95).

use super::{Decoded, bit, bits, sf, undefined};
use crate::cpu::op::{SP, ZERO, dst, src};
use crate::exec::int;
use crate::pure_op;

pub fn decode(word: u32) -> Decoded {
    match (bit(word, 28), bits(word, 21, 4)) {
        (false, op) if op & 8 == 0 => logical(word),
        (false, op) if op & 1 == 0 => add_sub_shifted(word),
        (false, _) => add_sub_extended(word),
        (true, 0) => with_carry(word),
        (true, 2) => conditional_compare(word),
        (true, 4) => conditional_select(word),
        (true, 6) if bit(word, 30) => one_source(word),
        (true, 6) => two_source(word),
        (true, op) if op & 8 != 0 => three_source(word),
        _ => undefined(),
    }
}

/// Picks the shift kind: `kinds!(kind, wide, add::<_>)`.
macro_rules! kinds {
    ($kind:expr, $wide:expr, $f:ident $(, $not:literal)?) => {
        match $kind {
            0 => sf!($wide, $f::<0 $(, $not)?>),
            1 => sf!($wide, $f::<1 $(, $not)?>),
            2 => sf!($wide, $f::<2 $(, $not)?>),
            _ => sf!($wide, $f::<3 $(, $not)?>),
        }
    };
}

macro_rules! logic {
    ($kind:expr, $wide:expr, $not:expr, $f:ident) => {
        if $not {
            kinds!($kind, $wide, $f, true)
        } else {
            kinds!($kind, $wide, $f, false)
        }
    };
}

fn logical(word: u32) -> Decoded {
    let wide = bit(word, 31);
    let (kind, by, not) = (bits(word, 22, 2), bits(word, 10, 6), bit(word, 21));
    if !wide && by >= 32 {
        return undefined();
    }
    let (rn, rm) = (src(word >> 5), src(word >> 16));
    let run = match bits(word, 29, 2) {
        0 => logic!(kind, wide, not, and),
        1 if rn == ZERO && by == 0 && !not => sf!(wide, mov),
        1 => logic!(kind, wide, not, orr),
        2 => logic!(kind, wide, not, eor),
        _ => logic!(kind, wide, not, ands),
    };
    Decoded::new(run).rd(dst(word)).rn(rn).rm(rm).aux(by as u16)
}

fn add_sub_shifted(word: u32) -> Decoded {
    let wide = bit(word, 31);
    let (kind, by) = (bits(word, 22, 2), bits(word, 10, 6));
    if kind == 3 || (!wide && by >= 32) {
        return undefined();
    }
    let run = match (bits(word, 29, 2), by) {
        (0, 0) => sf!(wide, add_plain),
        (0, _) => kinds!(kind, wide, add),
        (1, _) => kinds!(kind, wide, adds_reg),
        (2, 0) => sf!(wide, sub_plain),
        (2, _) => kinds!(kind, wide, sub),
        (_, 0) => sf!(wide, subs_plain),
        _ => kinds!(kind, wide, subs_reg),
    };
    Decoded::new(run)
        .rd(dst(word))
        .rn(src(word >> 5))
        .rm(src(word >> 16))
        .aux(by as u16)
}

macro_rules! extends {
    ($kind:expr, $wide:expr, $f:ident) => {
        match $kind {
            0 => sf!($wide, $f::<0>),
            1 => sf!($wide, $f::<1>),
            2 => sf!($wide, $f::<2>),
            3 => sf!($wide, $f::<3>),
            4 => sf!($wide, $f::<4>),
            5 => sf!($wide, $f::<5>),
            6 => sf!($wide, $f::<6>),
            _ => sf!($wide, $f::<7>),
        }
    };
}

fn add_sub_extended(word: u32) -> Decoded {
    let wide = bit(word, 31);
    let (kind, by) = (bits(word, 13, 3), bits(word, 10, 3));
    if by > 4 || bits(word, 22, 2) != 0 {
        return undefined();
    }
    let or_sp = |r: u32| if r & 31 == 31 { SP } else { (r & 31) as u8 };
    let (run, rd) = match bits(word, 29, 2) {
        0 => (extends!(kind, wide, add_ext), or_sp(word)),
        1 => (extends!(kind, wide, adds_ext), dst(word)),
        2 => (extends!(kind, wide, sub_ext), or_sp(word)),
        _ => (extends!(kind, wide, subs_ext), dst(word)),
    };
    Decoded::new(run)
        .rd(rd)
        .rn(or_sp(word >> 5))
        .rm(src(word >> 16))
        .aux(by as u16)
}

fn with_carry(word: u32) -> Decoded {
    let wide = bit(word, 31);
    if bits(word, 10, 6) != 0 {
        return undefined();
    }
    let run = match bits(word, 29, 2) {
        0 => sf!(wide, adc),
        1 => sf!(wide, adcs),
        2 => sf!(wide, sbc),
        _ => sf!(wide, sbcs),
    };
    Decoded::new(run)
        .rd(dst(word))
        .rn(src(word >> 5))
        .rm(src(word >> 16))
}

fn conditional_compare(word: u32) -> Decoded {
    let wide = bit(word, 31);
    if !bit(word, 29) || bit(word, 10) || bit(word, 4) {
        return undefined();
    }
    let run = match (bit(word, 30), bit(word, 11)) {
        (false, false) => sf!(wide, ccmp::<true, false>),
        (false, true) => sf!(wide, ccmp::<true, true>),
        (true, false) => sf!(wide, ccmp::<false, false>),
        (true, true) => sf!(wide, ccmp::<false, true>),
    };
    Decoded::new(run)
        .rn(src(word >> 5))
        .rm(src(word >> 16))
        .imm(u64::from(bits(word, 16, 5)))
        .aux((bits(word, 12, 4) | bits(word, 0, 4) << 4) as u16)
}

fn conditional_select(word: u32) -> Decoded {
    let wide = bit(word, 31);
    let run = match (bits(word, 29, 2), bits(word, 10, 2)) {
        (0, 0) => sf!(wide, csel),
        (0, 1) => sf!(wide, csinc),
        (2, 0) => sf!(wide, csinv),
        (2, 1) => sf!(wide, csneg),
        _ => return undefined(),
    };
    Decoded::new(run)
        .rd(dst(word))
        .rn(src(word >> 5))
        .rm(src(word >> 16))
        .aux(bits(word, 12, 4) as u16)
}

fn one_source(word: u32) -> Decoded {
    let wide = bit(word, 31);
    if bit(word, 29) || bits(word, 16, 5) != 0 {
        return undefined();
    }
    let run = match bits(word, 10, 6) {
        0 => sf!(wide, rbit),
        1 => sf!(wide, rev16),
        2 if wide => pure_op!(int::rev32),
        2 => sf!(false, rev),
        3 if wide => sf!(true, rev),
        4 => sf!(wide, clz),
        5 => sf!(wide, cls),
        _ => return undefined(),
    };
    Decoded::new(run).rd(dst(word)).rn(src(word >> 5))
}

fn two_source(word: u32) -> Decoded {
    let wide = bit(word, 31);
    if bit(word, 29) {
        return undefined();
    }
    let run = match bits(word, 10, 6) {
        2 => sf!(wide, udiv),
        3 => sf!(wide, sdiv),
        8 => sf!(wide, lslv),
        9 => sf!(wide, lsrv),
        10 => sf!(wide, asrv),
        11 => sf!(wide, rorv),
        16 if !wide => pure_op!(int::crc32::<1, false>),
        17 if !wide => pure_op!(int::crc32::<2, false>),
        18 if !wide => pure_op!(int::crc32::<4, false>),
        19 if wide => pure_op!(int::crc32::<8, false>),
        20 if !wide => pure_op!(int::crc32::<1, true>),
        21 if !wide => pure_op!(int::crc32::<2, true>),
        22 if !wide => pure_op!(int::crc32::<4, true>),
        23 if wide => pure_op!(int::crc32::<8, true>),
        _ => return undefined(),
    };
    Decoded::new(run)
        .rd(dst(word))
        .rn(src(word >> 5))
        .rm(src(word >> 16))
}

fn three_source(word: u32) -> Decoded {
    let wide = bit(word, 31);
    if bits(word, 29, 2) != 0 {
        return undefined();
    }
    let run = match (bits(word, 21, 3), bit(word, 15)) {
        (0, false) => sf!(wide, madd),
        (0, true) => sf!(wide, msub),
        (1, false) if wide => pure_op!(int::maddl::<true, false>),
        (1, true) if wide => pure_op!(int::maddl::<true, true>),
        (2, false) if wide => pure_op!(int::smulh),
        (5, false) if wide => pure_op!(int::maddl::<false, false>),
        (5, true) if wide => pure_op!(int::maddl::<false, true>),
        (6, false) if wide => pure_op!(int::umulh),
        _ => return undefined(),
    };
    Decoded::new(run)
        .rd(dst(word))
        .rn(src(word >> 5))
        .rm(src(word >> 16))
        .ra(src(word >> 10))
}
