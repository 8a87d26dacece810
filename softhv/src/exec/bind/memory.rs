//! Loads and stores.

use super::atomics;
use super::fuse::{self, Part};
use super::{Bound, Context, stack, undefined};
use crate::cpu::op::{Handler, destination, source};
use crate::exec::int::nop;
use crate::exec::transfer::{
    B, H, Index, Literal, Offset, Post, Pre, SbW, SbX, ShW, ShX, SwX, Vb, Vd, Vh, Vq, Vs, W, X,
};
use crate::exec::{ldst, simd_ldst, system};
use crate::insn::structure::StructAccess;
use crate::insn::{Address, Extend, Insn, Load, PairLoad, Size, VReg, VSize, Width};
use crate::pure_op;

#[inline(always)]
pub fn bind(insn: &Insn, context: Context) -> Bound {
    if context.mode.sp_off && stack::is_checked(insn) {
        return Bound::end(system::stack_misaligned);
    }
    match *insn {
        Insn::Load { what, rt, address } => load(what, address).rd(destination(rt)),
        Insn::Store { size, rt, address } => store(size, address).rd(source(rt)),
        Insn::Prefetch { .. } => Bound::new(pure_op!(nop)),
        // At EL0 its rights are the usual ones.
        Insn::LoadUser { what, rt, address } if context.mode.user => {
            load(what, address).rd(destination(rt))
        }
        Insn::StoreUser { size, rt, address } if context.mode.user => {
            store(size, address).rd(source(rt))
        }
        Insn::LoadUser { what, rt, address } => {
            operands(LOAD_USER[what as usize], address).rd(destination(rt))
        }
        Insn::StoreUser { size, rt, address } => {
            operands(STORE_USER[size as usize], address).rd(source(rt))
        }
        Insn::LoadPair {
            what,
            rt,
            rt2,
            address,
            ..
        } => operands(LOAD_PAIR[pair_row(address)][what as usize], address)
            .rd(destination(rt))
            .ra(destination(rt2))
            .part(match what {
                PairLoad::X => fuse::load_pair(address),
                _ => Part::Alone,
            }),
        Insn::StorePair {
            width,
            rt,
            rt2,
            address,
            ..
        } => operands(STORE_PAIR[pair_row(address)][width as usize], address)
            .rd(source(rt))
            .ra(source(rt2))
            .part(match width {
                Width::X => fuse::store_pair(address),
                Width::W => Part::Alone,
            }),
        _ if !insn.is_vector() => atomics::bind(insn),
        _ if context.mode.fp_traps => Bound::end(system::fp_trap),
        _ => vector(insn),
    }
}

fn vector(insn: &Insn) -> Bound {
    match *insn {
        Insn::LoadVec { size, rt, address } => load_vector(size, rt, address),
        Insn::StoreVec { size, rt, address } => {
            operands(STORE_VEC[row(address)][size as usize], address).rd(rt.number())
        }
        Insn::LoadVecPair {
            size,
            rt,
            rt2,
            address,
            ..
        } => pair_of_vectors(&LOAD_VEC_PAIR, size, address)
            .rd(rt.number())
            .ra(rt2.number()),
        Insn::StoreVecPair {
            size,
            rt,
            rt2,
            address,
            ..
        } => pair_of_vectors(&STORE_VEC_PAIR, size, address)
            .rd(rt.number())
            .ra(rt2.number()),
        Insn::Structure(ref access) => structures(access),
        _ => undefined(),
    }
}

/// The handlers of one addressing mode, in the order of [`Load`].
macro_rules! loads {
    ($f:ident $(, $mode:ty)?) => {
        [
            ldst::$f::<$($mode,)? B>,
            ldst::$f::<$($mode,)? H>,
            ldst::$f::<$($mode,)? W>,
            ldst::$f::<$($mode,)? X>,
            ldst::$f::<$($mode,)? SbW>,
            ldst::$f::<$($mode,)? SbX>,
            ldst::$f::<$($mode,)? ShW>,
            ldst::$f::<$($mode,)? ShX>,
            ldst::$f::<$($mode,)? SwX>,
        ]
    };
}

/// In the order of [`Size`].
macro_rules! stores {
    ($f:ident $(, $mode:ty)?) => {
        [
            ldst::$f::<$($mode,)? B>,
            ldst::$f::<$($mode,)? H>,
            ldst::$f::<$($mode,)? W>,
            ldst::$f::<$($mode,)? X>,
        ]
    };
}

/// In the order of [`VSize`].
macro_rules! vectors {
    ($f:ident, $mode:ty) => {
        [
            ldst::$f::<$mode, Vb>,
            ldst::$f::<$mode, Vh>,
            ldst::$f::<$mode, Vs>,
            ldst::$f::<$mode, Vd>,
            ldst::$f::<$mode, Vq>,
        ]
    };
}

/// For each addressing mode with a base, in the order of [`row`].
macro_rules! by_mode {
    ($kinds:ident, $f:ident) => {
        [
            $kinds!($f, Offset),
            $kinds!($f, Pre),
            $kinds!($f, Post),
            $kinds!($f, Index<2>),
            $kinds!($f, Index<3>),
            $kinds!($f, Index<6>),
            $kinds!($f, Index<7>),
        ]
    };
}

/// For each addressing mode of pairs, in the order of [`pair_row`].
macro_rules! pairs {
    ($f:ident, $($kind:ty),*) => {
        [
            [$(ldst::$f::<Offset, $kind>),*],
            [$(ldst::$f::<Pre, $kind>),*],
            [$(ldst::$f::<Post, $kind>),*],
        ]
    };
}

static LOAD: [[Handler; 9]; 7] = by_mode!(loads, load);
static STORE: [[Handler; 4]; 7] = by_mode!(stores, store);
static LOAD_VEC: [[Handler; 5]; 7] = by_mode!(vectors, load);
static STORE_VEC: [[Handler; 5]; 7] = by_mode!(vectors, store);
static LOAD_USER: [Handler; 9] = loads!(load_user);
static STORE_USER: [Handler; 4] = stores!(store_user);
static LOAD_PAIR: [[Handler; 3]; 3] = pairs!(load_pair, W, SwX, X);
static STORE_PAIR: [[Handler; 2]; 3] = pairs!(store_pair, W, X);
static LOAD_VEC_PAIR: [[Handler; 3]; 3] = pairs!(load_pair, Vs, Vd, Vq);
static STORE_VEC_PAIR: [[Handler; 3]; 3] = pairs!(store_pair, Vs, Vd, Vq);

/// The row of an address with a base.
fn row(address: Address) -> usize {
    match address {
        Address::Offset { .. } | Address::Literal { .. } => 0,
        Address::PreIndex { .. } => 1,
        Address::PostIndex { .. } => 2,
        Address::Index { extend, .. } => match extend {
            Extend::Uxtw => 3,
            Extend::Sxtw => 5,
            Extend::Sxtx => 6,
            _ => 4,
        },
    }
}

/// The same for pairs, which have no index.
fn pair_row(address: Address) -> usize {
    row(address).min(2)
}

/// An op with the operands of its address.
#[inline(always)]
fn operands(run: Handler, address: Address) -> Bound {
    let bound = Bound::new(run);
    match address {
        Address::Offset { base, offset }
        | Address::PreIndex { base, offset }
        | Address::PostIndex { base, offset } => {
            bound.rn(source(base)).imm(i64::from(offset) as u64)
        }
        Address::Index {
            base,
            index,
            amount,
            ..
        } => bound
            .rn(source(base))
            .rm(source(index))
            .aux(u16::from(amount)),
        Address::Literal { offset } => bound.imm(i64::from(offset) as u64),
    }
}

fn load(what: Load, address: Address) -> Bound {
    let run = match (address, what) {
        (Address::Literal { .. }, Load::W) => ldst::load::<Literal, W> as Handler,
        (Address::Literal { .. }, Load::SwX) => ldst::load::<Literal, SwX>,
        (Address::Literal { .. }, _) => ldst::load::<Literal, X>,
        _ => LOAD[row(address)][what as usize],
    };
    operands(run, address).part(fuse::load(what, address))
}

fn store(size: Size, address: Address) -> Bound {
    operands(STORE[row(address)][size as usize], address).part(fuse::store(size, address))
}

fn load_vector(size: VSize, rt: VReg, address: Address) -> Bound {
    let run = match (address, size) {
        (Address::Literal { .. }, VSize::Q) => ldst::load::<Literal, Vq> as Handler,
        (Address::Literal { .. }, VSize::D) => ldst::load::<Literal, Vd>,
        (Address::Literal { .. }, _) => ldst::load::<Literal, Vs>,
        _ => LOAD_VEC[row(address)][size as usize],
    };
    operands(run, address).rd(rt.number())
}

fn pair_of_vectors(run: &[[Handler; 3]; 3], size: VSize, address: Address) -> Bound {
    let size = match size {
        VSize::Q => 2,
        VSize::D => 1,
        _ => 0,
    };
    operands(run[pair_row(address)][size], address)
}

/// LD1 to LD4 and ST1 to ST4.
fn structures(access: &StructAccess) -> Bound {
    let whole = simd_ldst::whole_registers(access);
    let run: Handler = match (access.load, whole.is_some()) {
        (true, true) => simd_ldst::load_whole,
        (true, false) => simd_ldst::load,
        (false, true) => simd_ldst::store_whole,
        (false, false) => simd_ldst::store,
    };
    Bound::new(run)
        .rd(access.rt.number())
        .rn(source(access.base))
        .aux(whole.unwrap_or(0))
        .imm(simd_ldst::pack(access))
}
