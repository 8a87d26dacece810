//! Loads and stores (C4.1.94).

use super::stack::is_checked;
use super::{Context, Decoded, bit, bits, signed, undefined};
use crate::cpu::op::{Handler, SP, dst, src};
use crate::exec::atomic::{self, what};
use crate::exec::int::nop;
use crate::exec::transfer::{
    B, H, Index, Literal, Offset, Post, Pre, SbW, SbX, ShW, ShX, SwX, Vb, Vd, Vh, Vq, Vs, W, X,
};
use crate::exec::{ldst, simd_ldst, system};
use crate::pure_op;
use crate::simd::ldst::decode_struct;

pub fn decode(word: u32, context: Context) -> Decoded {
    let decoded = access(word, context);
    if context.mode.sp_off && !decoded.ends && is_checked(word) {
        return Decoded::end(system::stack_misaligned);
    }
    decoded
}

fn access(word: u32, context: Context) -> Decoded {
    let vector = bit(word, 26);
    if vector && context.mode.fp_traps {
        return Decoded::end(system::fp_trap);
    }
    match bits(word, 28, 2) {
        0 if vector => structures(word),
        0 if !bit(word, 24) => exclusive(word),
        1 if !bit(word, 24) => literal(word),
        2 => pair(word),
        3 if bit(word, 24) => scaled(word),
        3 if bit(word, 21) => indexed_or_atomic(word),
        3 => unscaled(word, context),
        _ => undefined(),
    }
}

/// The base register, where 31 is the stack pointer.
fn base(word: u32) -> u8 {
    let rn = bits(word, 5, 5) as u8;
    if rn == 31 { SP } else { rn }
}

/// A transfer's handlers for one addressing mode, by size, V and opc.
enum Transfer {
    Load(Handler, bool),
    Store(Handler, bool),
    Prefetch,
    None,
}

macro_rules! transfer {
    ($mode:ty, $word:expr) => {{
        use ldst::{load, store};
        let word = $word;
        match (bit(word, 26), bits(word, 30, 2), bits(word, 22, 2)) {
            (false, 0, 0) => Transfer::Store(store::<$mode, B>, false),
            (false, 0, 1) => Transfer::Load(load::<$mode, B>, false),
            (false, 0, 2) => Transfer::Load(load::<$mode, SbX>, false),
            (false, 0, _) => Transfer::Load(load::<$mode, SbW>, false),
            (false, 1, 0) => Transfer::Store(store::<$mode, H>, false),
            (false, 1, 1) => Transfer::Load(load::<$mode, H>, false),
            (false, 1, 2) => Transfer::Load(load::<$mode, ShX>, false),
            (false, 1, _) => Transfer::Load(load::<$mode, ShW>, false),
            (false, 2, 0) => Transfer::Store(store::<$mode, W>, false),
            (false, 2, 1) => Transfer::Load(load::<$mode, W>, false),
            (false, 2, 2) => Transfer::Load(load::<$mode, SwX>, false),
            (false, 3, 0) => Transfer::Store(store::<$mode, X>, false),
            (false, 3, 1) => Transfer::Load(load::<$mode, X>, false),
            (false, 3, 2) => Transfer::Prefetch,
            (true, 0, 0) => Transfer::Store(store::<$mode, Vb>, true),
            (true, 0, 1) => Transfer::Load(load::<$mode, Vb>, true),
            (true, 0, 2) => Transfer::Store(store::<$mode, Vq>, true),
            (true, 0, _) => Transfer::Load(load::<$mode, Vq>, true),
            (true, 1, 0) => Transfer::Store(store::<$mode, Vh>, true),
            (true, 1, 1) => Transfer::Load(load::<$mode, Vh>, true),
            (true, 2, 0) => Transfer::Store(store::<$mode, Vs>, true),
            (true, 2, 1) => Transfer::Load(load::<$mode, Vs>, true),
            (true, 3, 0) => Transfer::Store(store::<$mode, Vd>, true),
            (true, 3, 1) => Transfer::Load(load::<$mode, Vd>, true),
            _ => Transfer::None,
        }
    }};
}

/// log2 of the bytes that `word`, one of the register forms, transfers.
fn scale(word: u32) -> u32 {
    if bit(word, 26) && bit(word, 23) {
        4
    } else {
        bits(word, 30, 2)
    }
}

fn finish(transfer: Transfer, word: u32, prefetch: bool) -> Decoded {
    let decoded = match transfer {
        Transfer::Load(run, vector) => {
            let rt = if vector { (word & 31) as u8 } else { dst(word) };
            Decoded::new(run).rd(rt)
        }
        Transfer::Store(run, vector) => {
            let rt = if vector { (word & 31) as u8 } else { src(word) };
            Decoded::new(run).rd(rt)
        }
        Transfer::Prefetch if prefetch => return Decoded::new(pure_op!(nop)),
        Transfer::Prefetch | Transfer::None => return undefined(),
    };
    decoded.rn(base(word))
}

fn scaled(word: u32) -> Decoded {
    let offset = u64::from(bits(word, 10, 12)) << scale(word);
    finish(transfer!(Offset, word), word, true).imm(offset)
}

fn unscaled(word: u32, context: Context) -> Decoded {
    let offset = signed(word, 12, 9);
    let decoded = match bits(word, 10, 2) {
        0 => finish(transfer!(Offset, word), word, true),
        1 => finish(transfer!(Post, word), word, false),
        2 if bit(word, 26) => undefined(),
        2 if context.mode.user => finish(transfer!(Offset, word), word, false),
        2 => unprivileged(word),
        _ => finish(transfer!(Pre, word), word, false),
    };
    decoded.imm(offset)
}

fn unprivileged(word: u32) -> Decoded {
    use ldst::{load_user, store_user};
    let (run, load): (Handler, bool) = match (bits(word, 30, 2), bits(word, 22, 2)) {
        (0, 0) => (store_user::<B>, false),
        (0, 1) => (load_user::<B>, true),
        (0, 2) => (load_user::<SbX>, true),
        (0, _) => (load_user::<SbW>, true),
        (1, 0) => (store_user::<H>, false),
        (1, 1) => (load_user::<H>, true),
        (1, 2) => (load_user::<ShX>, true),
        (1, _) => (load_user::<ShW>, true),
        (2, 0) => (store_user::<W>, false),
        (2, 1) => (load_user::<W>, true),
        (2, 2) => (load_user::<SwX>, true),
        (3, 0) => (store_user::<X>, false),
        (3, 1) => (load_user::<X>, true),
        _ => return undefined(),
    };
    Decoded::new(run)
        .rd(if load { dst(word) } else { src(word) })
        .rn(base(word))
}

fn indexed_or_atomic(word: u32) -> Decoded {
    match bits(word, 10, 2) {
        2 => indexed(word),
        0 if !bit(word, 26) => update(word),
        _ => undefined(),
    }
}

fn indexed(word: u32) -> Decoded {
    let shift = if bit(word, 12) { scale(word) } else { 0 };
    let transfer = match bits(word, 13, 3) {
        2 => transfer!(Index<2>, word),
        3 => transfer!(Index<3>, word),
        6 => transfer!(Index<6>, word),
        7 => transfer!(Index<7>, word),
        _ => Transfer::None,
    };
    finish(transfer, word, true)
        .rm(src(word >> 16))
        .aux(shift as u16)
}

/// Picks the operand size: `by_size!(size, load_exclusive)`.
macro_rules! by_size {
    ($size:expr, $f:ident $(, $arg:expr)*) => {
        match $size {
            0 => atomic::$f::<u8 $(, { $arg })*> as Handler,
            1 => atomic::$f::<u16 $(, { $arg })*>,
            2 => atomic::$f::<u32 $(, { $arg })*>,
            _ => atomic::$f::<u64 $(, { $arg })*>,
        }
    };
}

fn update(word: u32) -> Decoded {
    let size = bits(word, 30, 2);
    let run = match (bit(word, 15), bits(word, 12, 3)) {
        (false, 0) => by_size!(size, update, what::ADD),
        (false, 1) => by_size!(size, update, what::CLR),
        (false, 2) => by_size!(size, update, what::EOR),
        (false, 3) => by_size!(size, update, what::SET),
        (false, 4) => by_size!(size, update, what::SMAX),
        (false, 5) => by_size!(size, update, what::SMIN),
        (false, 6) => by_size!(size, update, what::UMAX),
        (false, _) => by_size!(size, update, what::UMIN),
        (true, 0) => by_size!(size, update, what::SWP),
        // LDAPR: A = 1, R = 0, Rs = 31.
        (true, 4) if bits(word, 16, 8) == 0b1011_1111 => by_size!(size, load_acquire),
        _ => return undefined(),
    };
    Decoded::new(run)
        .rd(dst(word))
        .rn(base(word))
        .rm(src(word >> 16))
}

fn exclusive(word: u32) -> Decoded {
    let size = bits(word, 30, 2);
    let load = bit(word, 22);
    let rs = word >> 16;
    let decoded = match (bit(word, 23), bit(word, 21)) {
        (false, false) if load => Decoded::new(by_size!(size, load_exclusive)).rd(dst(word)),
        (false, false) => Decoded::new(by_size!(size, store_exclusive))
            .rd(src(word))
            .rm(dst(rs)),
        (false, true) if size >= 2 => {
            let wide = size == 3;
            let (load_pair, store_pair): (Handler, Handler) = if wide {
                (
                    atomic::load_exclusive_pair::<u64>,
                    atomic::store_exclusive_pair::<u64>,
                )
            } else {
                (
                    atomic::load_exclusive_pair::<u32>,
                    atomic::store_exclusive_pair::<u32>,
                )
            };
            if load {
                Decoded::new(load_pair).rd(dst(word)).ra(dst(word >> 10))
            } else {
                Decoded::new(store_pair)
                    .rd(src(word))
                    .ra(src(word >> 10))
                    .rm(dst(rs))
            }
        }
        (false, true) => return compare_pair(word),
        (true, false) if bit(word, 15) => {
            if load {
                Decoded::new(by_size!(size, load_acquire)).rd(dst(word))
            } else {
                Decoded::new(by_size!(size, store_release)).rd(src(word))
            }
        }
        (true, true) if bits(word, 10, 5) == 31 => Decoded::new(by_size!(size, cas))
            .rd(src(word))
            .rm(dst(rs))
            .ra(src(rs)),
        _ => return undefined(),
    };
    decoded.rn(base(word))
}

/// CASP: both registers even.
fn compare_pair(word: u32) -> Decoded {
    let (rs, rt) = (bits(word, 16, 5), bits(word, 0, 5));
    if bits(word, 10, 5) != 31 || rs & 1 != 0 || rt & 1 != 0 {
        return undefined();
    }
    let run: Handler = if bit(word, 30) {
        atomic::cas_two_registers::<u64>
    } else {
        atomic::cas_two_registers::<u32>
    };
    Decoded::new(run).rd(rt as u8).rm(rs as u8).rn(base(word))
}

fn literal(word: u32) -> Decoded {
    use ldst::load;
    let offset = signed(word, 5, 19) << 2;
    let (run, rt): (Handler, u8) = match (bit(word, 26), bits(word, 30, 2)) {
        (false, 0) => (load::<Literal, W>, dst(word)),
        (false, 1) => (load::<Literal, X>, dst(word)),
        (false, 2) => (load::<Literal, SwX>, dst(word)),
        (false, _) => return Decoded::new(pure_op!(nop)),
        (true, 0) => (load::<Literal, Vs>, (word & 31) as u8),
        (true, 1) => (load::<Literal, Vd>, (word & 31) as u8),
        (true, 2) => (load::<Literal, Vq>, (word & 31) as u8),
        _ => return undefined(),
    };
    Decoded::new(run).rd(rt).imm(offset)
}

macro_rules! pairs {
    ($mode:ty, $word:expr) => {{
        use ldst::{load_pair, store_pair};
        let (load, store): (Handler, Option<Handler>) = match (bit($word, 26), bits($word, 30, 2)) {
            (false, 0) => (load_pair::<$mode, W>, Some(store_pair::<$mode, W>)),
            (false, 1) => (load_pair::<$mode, SwX>, None),
            (false, 2) => (load_pair::<$mode, X>, Some(store_pair::<$mode, X>)),
            (true, 0) => (load_pair::<$mode, Vs>, Some(store_pair::<$mode, Vs>)),
            (true, 1) => (load_pair::<$mode, Vd>, Some(store_pair::<$mode, Vd>)),
            (true, 2) => (load_pair::<$mode, Vq>, Some(store_pair::<$mode, Vq>)),
            _ => return undefined(),
        };
        if bit($word, 22) { Some(load) } else { store }
    }};
}

fn pair(word: u32) -> Decoded {
    let vector = bit(word, 26);
    let size = bits(word, 30, 2);
    let mode = bits(word, 23, 2);
    // LDPSW has no non-temporal form.
    if mode == 0 && !vector && size == 1 {
        return undefined();
    }
    let run = match mode {
        1 => pairs!(Post, word),
        3 => pairs!(Pre, word),
        _ => pairs!(Offset, word),
    };
    let Some(run) = run else {
        return undefined();
    };
    let shift = if vector { 2 + size } else { 2 + size / 2 };
    let slot = |r: u32| match (vector, bit(word, 22)) {
        (true, _) => (r & 31) as u8,
        (false, true) => dst(r),
        (false, false) => src(r),
    };
    Decoded::new(run)
        .rd(slot(word))
        .ra(slot(word >> 10))
        .rn(base(word))
        .imm(signed(word, 15, 7) << shift)
}

fn structures(word: u32) -> Decoded {
    match decode_struct(word) {
        Some(access) => {
            let whole = simd_ldst::whole_registers(&access);
            let run: Handler = match (access.load, whole.is_some()) {
                (true, true) => simd_ldst::load_whole,
                (true, false) => simd_ldst::load,
                (false, true) => simd_ldst::store_whole,
                (false, false) => simd_ldst::store,
            };
            Decoded::new(run)
                .rd(access.rt)
                .rn(access.rn)
                .aux(whole.unwrap_or(0))
                .imm(u64::from(word))
        }
        None => undefined(),
    }
}
