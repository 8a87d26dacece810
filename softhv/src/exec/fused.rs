//! Two instructions in one handler, where that saves a dispatch often.
//!
//! The second op stays behind the first, with its own link and offset, so that
//! nothing else needs to know: the fused handler stands in the first op and
//! reaches over.

use super::branch::{BACK, FAR, NEAR, take};
use super::int::{self, w32, w64};
use super::ldst::{
    load_fast, load_pair_fast, load_pair_slow, load_slow, store_fast, store_pair_fast,
    store_pair_slow, store_slow,
};
use super::transfer::{B, Index, Kind, Mode, Offset, Post, Pre, W, X};
use crate::cpu::Cpu;
use crate::cpu::op::{Handler, Op};
use crate::insn::{Cond, Width};
use crate::regs::Regs;

/// A pure operation as a type, to be a parameter of fused handlers.
trait Pure {
    fn exec(regs: &mut Regs, op: &Op);
}

macro_rules! pure {
    ($($name:ident = $f:expr;)*) => {
        $(
            struct $name;
            impl Pure for $name {
                #[inline(always)]
                fn exec(regs: &mut Regs, op: &Op) {
                    $f(regs, op);
                }
            }
        )*
    };
}

pure! {
    SubsImm32 = w32::subs_imm;
    SubsImm64 = w64::subs_imm;
    Subs32 = w32::subs_plain;
    Subs64 = w64::subs_plain;
    AndsImm32 = w32::ands_imm;
    AndsImm64 = w64::ands_imm;
    Ands32 = w32::ands::<0, false>;
    Ands64 = w64::ands::<0, false>;
    AddsImm32 = w32::adds_imm;
    AddsImm64 = w64::adds_imm;
    AddImm32 = w32::add_imm;
    AddImm64 = w64::add_imm;
    Add64 = w64::add_plain;
    Mov32 = w32::mov;
    Mov64 = w64::mov;
    Constant = int::constant;
    Adrp = int::adrp;
}

/// A flag setter and the conditional branch behind it.
///
/// # Safety
/// As for a handler; the op behind `op` is a B.cond with `COND` and `KIND`.
unsafe extern "C" fn test_and_branch<P: Pure, const COND: u16, const KIND: u8>(
    cpu: *mut Cpu,
    op: *const Op,
) {
    // SAFETY: by the contract.
    unsafe {
        P::exec(&mut (*cpu).regs, &*op);
        let branch = op.add(1);
        if (*cpu).regs.cond_holds(COND) {
            take::<KIND>(cpu, branch)
        } else {
            crate::next_op!(cpu, branch)
        }
    }
}

/// The handlers of one flag setter, by condition and by how the branch reaches its
/// target; some conditions are rare.
type Conditions = [Option<[Handler; 3]>; 16];

const fn by_condition<P: Pure>() -> Conditions {
    macro_rules! kinds {
        ($cond:literal) => {
            Some([
                test_and_branch::<P, $cond, NEAR>,
                test_and_branch::<P, $cond, BACK>,
                test_and_branch::<P, $cond, FAR>,
            ])
        };
    }
    [
        kinds!(0),
        kinds!(1),
        kinds!(2),
        kinds!(3),
        None,
        None,
        None,
        None,
        kinds!(8),
        kinds!(9),
        kinds!(10),
        kinds!(11),
        kinds!(12),
        kinds!(13),
        None,
        None,
    ]
}

/// The flag setters that fuse with a conditional branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Named after the instructions.
pub enum Test {
    SubsImm32,
    SubsImm64,
    Subs32,
    Subs64,
    AndsImm32,
    AndsImm64,
    Ands32,
    Ands64,
    AddsImm32,
    AddsImm64,
}

/// In the order of [`Test`].
static TEST_BRANCH: [Conditions; 10] = [
    by_condition::<SubsImm32>(),
    by_condition::<SubsImm64>(),
    by_condition::<Subs32>(),
    by_condition::<Subs64>(),
    by_condition::<AndsImm32>(),
    by_condition::<AndsImm64>(),
    by_condition::<Ands32>(),
    by_condition::<Ands64>(),
    by_condition::<AddsImm32>(),
    by_condition::<AddsImm64>(),
];

/// The fused handler for `test` before a branch on `condition` that reaches
/// its target as `kind` says.
#[inline]
pub fn test_branch(test: Test, condition: Cond, kind: u8) -> Option<Handler> {
    let kinds = TEST_BRANCH[test as usize][condition as usize].as_ref()?;
    kinds.get(usize::from(kind)).copied()
}

/// ADRP and the ADD (immediate) behind it that completes the same register.
///
/// # Safety
/// As for a handler; the op behind `op` is such an ADD.
pub unsafe extern "C" fn adrp_add(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        let add = op.add(1);
        let page = (*cpu).regs.page.wrapping_add((*op).imm);
        (*cpu).regs.set((*op).rd, page.wrapping_add((*add).imm));
        crate::next_op!(cpu, add)
    }
}

/// An access whose fast path may fail before it changed anything.
trait Memory {
    /// Does the access; false if the TLB does not have it.
    ///
    /// # Safety
    /// As for a handler.
    unsafe fn fast(cpu: *mut Cpu, op: *const Op) -> bool;
    /// The whole access and what follows.
    const SLOW: Handler;
}

struct Load<M, K>(std::marker::PhantomData<(M, K)>);
struct Store<M, K>(std::marker::PhantomData<(M, K)>);
struct LoadPair<M>(std::marker::PhantomData<M>);
struct StorePair<M>(std::marker::PhantomData<M>);

impl<M: Mode, K: Kind> Memory for Load<M, K> {
    #[inline(always)]
    unsafe fn fast(cpu: *mut Cpu, op: *const Op) -> bool {
        // SAFETY: by the contract.
        unsafe { load_fast::<M, K>(cpu, op) }
    }
    const SLOW: Handler = load_slow::<M, K>;
}

impl<M: Mode, K: Kind> Memory for Store<M, K> {
    #[inline(always)]
    unsafe fn fast(cpu: *mut Cpu, op: *const Op) -> bool {
        // SAFETY: by the contract.
        unsafe { store_fast::<M, K>(cpu, op) }
    }
    const SLOW: Handler = store_slow::<M, K>;
}

impl<M: Mode> Memory for LoadPair<M> {
    #[inline(always)]
    unsafe fn fast(cpu: *mut Cpu, op: *const Op) -> bool {
        // SAFETY: by the contract.
        unsafe { load_pair_fast::<M, X>(cpu, op) }
    }
    const SLOW: Handler = load_pair_slow::<M, X>;
}

impl<M: Mode> Memory for StorePair<M> {
    #[inline(always)]
    unsafe fn fast(cpu: *mut Cpu, op: *const Op) -> bool {
        // SAFETY: by the contract.
        unsafe { store_pair_fast::<M, X>(cpu, op) }
    }
    const SLOW: Handler = store_pair_slow::<M, X>;
}

/// Two pure operations.
///
/// # Safety
/// As for a handler; the ops are `P` and `Q`.
unsafe extern "C" fn two_pure<P: Pure, Q: Pure>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        let second = op.add(1);
        P::exec(&mut (*cpu).regs, &*op);
        Q::exec(&mut (*cpu).regs, &*second);
        crate::next_op!(cpu, second)
    }
}

/// A pure operation and an access.
///
/// # Safety
/// As for a handler; the ops are `P` and `A`.
unsafe extern "C" fn pure_memory<P: Pure, A: Memory>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        let second = op.add(1);
        P::exec(&mut (*cpu).regs, &*op);
        if A::fast(cpu, second) {
            crate::next_op!(cpu, second)
        } else {
            A::SLOW(cpu, second)
        }
    }
}

/// Two accesses. The slow path of the first goes on to the second's own
/// handler.
///
/// # Safety
/// As for a handler; the ops are `A` and `C`.
unsafe extern "C" fn two_memory<A: Memory, C: Memory>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        if !A::fast(cpu, op) {
            return A::SLOW(cpu, op);
        }
        let second = op.add(1);
        if C::fast(cpu, second) {
            crate::next_op!(cpu, second)
        } else {
            C::SLOW(cpu, second)
        }
    }
}

/// A load and the CBZ or CBNZ behind it.
///
/// # Safety
/// As for a handler; the ops are `A` and such a branch.
unsafe extern "C" fn load_branch<
    A: Memory,
    const WIDE: bool,
    const NONZERO: bool,
    const KIND: u8,
>(
    cpu: *mut Cpu,
    op: *const Op,
) {
    // SAFETY: by the contract.
    unsafe {
        if !A::fast(cpu, op) {
            return A::SLOW(cpu, op);
        }
        let branch = op.add(1);
        let value = (*cpu).regs.get((*branch).rn);
        let zero = if WIDE { value == 0 } else { value as u32 == 0 };
        if zero != NONZERO {
            take::<KIND>(cpu, branch)
        } else {
            crate::next_op!(cpu, branch)
        }
    }
}

/// Operations that fuse with each other, by shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Named after the instructions.
pub enum Shape {
    AddImm32,
    AddImm64,
    Add64,
    Mov32,
    Mov64,
    Constant,
    Adrp,
    LoadB,
    LoadW,
    LoadX,
    StoreB,
    StoreW,
    StoreX,
    LoadPair,
    LoadPairPost,
    StorePair,
    StorePairPre,
    LoadPostB,
    LoadIndexB,
    LoadIndexX,
}

/// How many shapes there are.
const SHAPES: usize = Shape::LoadIndexX as usize + 1;

type Lo<K> = Load<Offset, K>;
type St<K> = Store<Offset, K>;
/// The handlers of one first operation, by the second.
type Row = [Option<Handler>; SHAPES];

const NONE: Row = [None; SHAPES];

const fn after_pure<P: Pure>() -> Row {
    let mut row = NONE;
    row[Shape::AddImm32 as usize] = Some(two_pure::<P, AddImm32>);
    row[Shape::AddImm64 as usize] = Some(two_pure::<P, AddImm64>);
    row[Shape::Add64 as usize] = Some(two_pure::<P, Add64>);
    row[Shape::Mov32 as usize] = Some(two_pure::<P, Mov32>);
    row[Shape::Mov64 as usize] = Some(two_pure::<P, Mov64>);
    row[Shape::Constant as usize] = Some(two_pure::<P, Constant>);
    row[Shape::Adrp as usize] = Some(two_pure::<P, Adrp>);
    row[Shape::LoadB as usize] = Some(pure_memory::<P, Lo<B>>);
    row[Shape::LoadW as usize] = Some(pure_memory::<P, Lo<W>>);
    row[Shape::LoadX as usize] = Some(pure_memory::<P, Lo<X>>);
    row[Shape::StoreB as usize] = Some(pure_memory::<P, St<B>>);
    row[Shape::StoreW as usize] = Some(pure_memory::<P, St<W>>);
    row[Shape::StoreX as usize] = Some(pure_memory::<P, St<X>>);
    row
}

const fn after_memory<A: Memory>() -> Row {
    let mut row = NONE;
    row[Shape::LoadB as usize] = Some(two_memory::<A, Lo<B>>);
    row[Shape::LoadW as usize] = Some(two_memory::<A, Lo<W>>);
    row[Shape::LoadX as usize] = Some(two_memory::<A, Lo<X>>);
    row[Shape::StoreB as usize] = Some(two_memory::<A, St<B>>);
    row[Shape::StoreW as usize] = Some(two_memory::<A, St<W>>);
    row[Shape::StoreX as usize] = Some(two_memory::<A, St<X>>);
    row[Shape::LoadPair as usize] = Some(two_memory::<A, LoadPair<Offset>>);
    row[Shape::LoadPairPost as usize] = Some(two_memory::<A, LoadPair<Post>>);
    row[Shape::StorePair as usize] = Some(two_memory::<A, StorePair<Offset>>);
    row
}

static TWO: [Row; SHAPES] = {
    let mut rows = [NONE; SHAPES];
    rows[Shape::AddImm32 as usize] = after_pure::<AddImm32>();
    rows[Shape::AddImm64 as usize] = after_pure::<AddImm64>();
    rows[Shape::Add64 as usize] = after_pure::<Add64>();
    rows[Shape::Mov32 as usize] = after_pure::<Mov32>();
    rows[Shape::Mov64 as usize] = after_pure::<Mov64>();
    rows[Shape::Constant as usize] = after_pure::<Constant>();
    rows[Shape::Adrp as usize] = after_pure::<Adrp>();
    rows[Shape::LoadB as usize] = after_memory::<Lo<B>>();
    rows[Shape::LoadW as usize] = after_memory::<Lo<W>>();
    rows[Shape::LoadX as usize] = after_memory::<Lo<X>>();
    rows[Shape::StoreW as usize] = after_memory::<St<W>>();
    rows[Shape::StoreX as usize] = after_memory::<St<X>>();
    rows[Shape::LoadPair as usize] = after_memory::<LoadPair<Offset>>();
    rows[Shape::StorePair as usize] = after_memory::<StorePair<Offset>>();
    rows[Shape::StorePairPre as usize] = after_memory::<StorePair<Pre>>();
    rows
};

/// The handler for two ops of these shapes, if there is one.
#[inline]
pub fn two(first: Shape, second: Shape) -> Option<Handler> {
    TWO[first as usize][second as usize]
}

/// By width (X last), sense (CBNZ last) and how the branch reaches its target.
type ZeroBranches = [[[Handler; 3]; 2]; 2];

const fn zero_branch<A: Memory>() -> ZeroBranches {
    macro_rules! kinds {
        ($wide:literal, $nonzero:literal) => {
            [
                load_branch::<A, $wide, $nonzero, NEAR>,
                load_branch::<A, $wide, $nonzero, BACK>,
                load_branch::<A, $wide, $nonzero, FAR>,
            ]
        };
    }
    [
        [kinds!(false, false), kinds!(false, true)],
        [kinds!(true, false), kinds!(true, true)],
    ]
}

static ZERO_BRANCH: [Option<ZeroBranches>; SHAPES] = {
    let mut loads = [None; SHAPES];
    loads[Shape::LoadB as usize] = Some(zero_branch::<Lo<B>>());
    loads[Shape::LoadW as usize] = Some(zero_branch::<Lo<W>>());
    loads[Shape::LoadX as usize] = Some(zero_branch::<Lo<X>>());
    loads[Shape::LoadPostB as usize] = Some(zero_branch::<Load<Post, B>>());
    loads[Shape::LoadIndexB as usize] = Some(zero_branch::<Load<Index<3>, B>>());
    loads[Shape::LoadIndexX as usize] = Some(zero_branch::<Load<Index<3>, X>>());
    loads
};

/// The handler for a load and a CBZ or CBNZ.
#[inline]
pub fn load_zero_branch(load: Shape, width: Width, nonzero: bool, kind: u8) -> Option<Handler> {
    let branches = ZERO_BRANCH[load as usize].as_ref()?;
    let kinds = &branches[width as usize][usize::from(nonzero)];
    kinds.get(usize::from(kind)).copied()
}
