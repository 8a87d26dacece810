//! Exclusive, ordered and atomic accesses.

use super::{Bound, undefined};
use crate::cpu::op::{Handler, destination, source};
use crate::exec::atomic::{self, what};
use crate::insn::{Insn, Width};

/// By size: `sizes!(load_exclusive)`.
macro_rules! sizes {
    ($f:ident $(, $arg:expr)*) => {
        [
            atomic::$f::<u8 $(, { $arg })*>,
            atomic::$f::<u16 $(, { $arg })*>,
            atomic::$f::<u32 $(, { $arg })*>,
            atomic::$f::<u64 $(, { $arg })*>,
        ]
    };
}

type Sizes = [Handler; 4];

static LOAD_EXCLUSIVE: Sizes = sizes!(load_exclusive);
static STORE_EXCLUSIVE: Sizes = sizes!(store_exclusive);
static LOAD_ACQUIRE: Sizes = sizes!(load_acquire);
static STORE_RELEASE: Sizes = sizes!(store_release);
static CAS: Sizes = sizes!(cas);
/// In the order of [`crate::insn::Atomic`].
static UPDATE: [Sizes; 9] = [
    sizes!(update, what::ADD),
    sizes!(update, what::CLR),
    sizes!(update, what::EOR),
    sizes!(update, what::SET),
    sizes!(update, what::SMAX),
    sizes!(update, what::SMIN),
    sizes!(update, what::UMAX),
    sizes!(update, what::UMIN),
    sizes!(update, what::SWP),
];

#[inline(always)]
pub fn bind(insn: &Insn) -> Bound {
    match *insn {
        Insn::LoadExclusive { size, rt, base, .. } => Bound::new(LOAD_EXCLUSIVE[size as usize])
            .rd(destination(rt))
            .rn(source(base)),
        Insn::StoreExclusive {
            size,
            status,
            rt,
            base,
            ..
        } => Bound::new(STORE_EXCLUSIVE[size as usize])
            .rd(source(rt))
            .rm(destination(status))
            .rn(source(base)),
        Insn::LoadAcquire { size, rt, base, .. } => Bound::new(LOAD_ACQUIRE[size as usize])
            .rd(destination(rt))
            .rn(source(base)),
        Insn::StoreRelease { size, rt, base } => Bound::new(STORE_RELEASE[size as usize])
            .rd(source(rt))
            .rn(source(base)),
        Insn::CompareSwap {
            size, rs, rt, base, ..
        } => Bound::new(CAS[size as usize])
            .rd(source(rt))
            .rm(destination(rs))
            .ra(source(rs))
            .rn(source(base)),
        Insn::Update {
            op,
            size,
            rs,
            rt,
            base,
            ..
        } => Bound::new(UPDATE[op as usize][size as usize])
            .rd(destination(rt))
            .rn(source(base))
            .rm(source(rs)),
        _ => pair(insn),
    }
}

/// Those of two registers.
fn pair(insn: &Insn) -> Bound {
    match *insn {
        Insn::LoadExclusivePair {
            width,
            rt,
            rt2,
            base,
            ..
        } => {
            let run: Handler = match width {
                Width::W => atomic::load_exclusive_pair::<u32>,
                Width::X => atomic::load_exclusive_pair::<u64>,
            };
            Bound::new(run)
                .rd(destination(rt))
                .ra(destination(rt2))
                .rn(source(base))
        }
        Insn::StoreExclusivePair {
            width,
            status,
            rt,
            rt2,
            base,
            ..
        } => {
            let run: Handler = match width {
                Width::W => atomic::store_exclusive_pair::<u32>,
                Width::X => atomic::store_exclusive_pair::<u64>,
            };
            Bound::new(run)
                .rd(source(rt))
                .ra(source(rt2))
                .rm(destination(status))
                .rn(source(base))
        }
        Insn::CompareSwapPair {
            width,
            rs,
            rt,
            base,
            ..
        } => {
            let run: Handler = match width {
                Width::W => atomic::cas_two_registers::<u32>,
                Width::X => atomic::cas_two_registers::<u64>,
            };
            // Even ones, so neither is XZR.
            Bound::new(run)
                .rd(rt.number())
                .rm(rs.number())
                .rn(source(base))
        }
        _ => undefined(),
    }
}
