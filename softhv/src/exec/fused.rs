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

fn by_kind<P: Pure, const COND: u16>(kind: u8) -> Handler {
    match kind {
        NEAR => test_and_branch::<P, COND, NEAR>,
        BACK => test_and_branch::<P, COND, BACK>,
        _ => test_and_branch::<P, COND, FAR>,
    }
}

fn by_condition<P: Pure>(condition: u16, kind: u8) -> Option<Handler> {
    Some(match condition {
        0 => by_kind::<P, 0>(kind),
        1 => by_kind::<P, 1>(kind),
        2 => by_kind::<P, 2>(kind),
        3 => by_kind::<P, 3>(kind),
        8 => by_kind::<P, 8>(kind),
        9 => by_kind::<P, 9>(kind),
        10 => by_kind::<P, 10>(kind),
        11 => by_kind::<P, 11>(kind),
        12 => by_kind::<P, 12>(kind),
        13 => by_kind::<P, 13>(kind),
        _ => return None,
    })
}

/// The flag setters that fuse with a conditional branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Named after the instructions.
pub enum Test {
    SubsImm { wide: bool },
    Subs { wide: bool },
    AndsImm { wide: bool },
    Ands { wide: bool },
    AddsImm { wide: bool },
}

/// The fused handler for `test` before a branch on `condition` that reaches
/// its target as `kind` says.
pub fn test_branch(test: Test, condition: u16, kind: u8) -> Option<Handler> {
    match test {
        Test::SubsImm { wide: false } => by_condition::<SubsImm32>(condition, kind),
        Test::SubsImm { wide: true } => by_condition::<SubsImm64>(condition, kind),
        Test::Subs { wide: false } => by_condition::<Subs32>(condition, kind),
        Test::Subs { wide: true } => by_condition::<Subs64>(condition, kind),
        Test::AndsImm { wide: false } => by_condition::<AndsImm32>(condition, kind),
        Test::AndsImm { wide: true } => by_condition::<AndsImm64>(condition, kind),
        Test::Ands { wide: false } => by_condition::<Ands32>(condition, kind),
        Test::Ands { wide: true } => by_condition::<Ands64>(condition, kind),
        Test::AddsImm { wide: false } => by_condition::<AddsImm32>(condition, kind),
        Test::AddsImm { wide: true } => by_condition::<AddsImm64>(condition, kind),
    }
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
    Load(Size),
    LoadPost(Size),
    LoadIndex(Size),
    Store(Size),
    LoadPair { post: bool },
    StorePair { pre: bool },
}

/// Size of a fusing transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Size {
    B,
    W,
    X,
}

type Lo<K> = Load<Offset, K>;
type St<K> = Store<Offset, K>;

fn after_pure<P: Pure>(second: Shape) -> Option<Handler> {
    Some(match second {
        Shape::AddImm32 => two_pure::<P, AddImm32>,
        Shape::AddImm64 => two_pure::<P, AddImm64>,
        Shape::Add64 => two_pure::<P, Add64>,
        Shape::Mov32 => two_pure::<P, Mov32>,
        Shape::Mov64 => two_pure::<P, Mov64>,
        Shape::Constant => two_pure::<P, Constant>,
        Shape::Adrp => two_pure::<P, Adrp>,
        Shape::Load(Size::B) => pure_memory::<P, Lo<B>>,
        Shape::Load(Size::W) => pure_memory::<P, Lo<W>>,
        Shape::Load(Size::X) => pure_memory::<P, Lo<X>>,
        Shape::Store(Size::B) => pure_memory::<P, St<B>>,
        Shape::Store(Size::W) => pure_memory::<P, St<W>>,
        Shape::Store(Size::X) => pure_memory::<P, St<X>>,
        _ => return None,
    })
}

fn after_memory<A: Memory>(second: Shape) -> Option<Handler> {
    Some(match second {
        Shape::Load(Size::B) => two_memory::<A, Lo<B>>,
        Shape::Load(Size::W) => two_memory::<A, Lo<W>>,
        Shape::Load(Size::X) => two_memory::<A, Lo<X>>,
        Shape::Store(Size::B) => two_memory::<A, St<B>>,
        Shape::Store(Size::W) => two_memory::<A, St<W>>,
        Shape::Store(Size::X) => two_memory::<A, St<X>>,
        Shape::LoadPair { post: false } => two_memory::<A, LoadPair<Offset>>,
        Shape::LoadPair { post: true } => two_memory::<A, LoadPair<Post>>,
        Shape::StorePair { pre: false } => two_memory::<A, StorePair<Offset>>,
        _ => return None,
    })
}

/// The handler for two ops of these shapes, if there is one.
pub fn two(first: Shape, second: Shape) -> Option<Handler> {
    match first {
        Shape::AddImm32 => after_pure::<AddImm32>(second),
        Shape::AddImm64 => after_pure::<AddImm64>(second),
        Shape::Add64 => after_pure::<Add64>(second),
        Shape::Mov32 => after_pure::<Mov32>(second),
        Shape::Mov64 => after_pure::<Mov64>(second),
        Shape::Constant => after_pure::<Constant>(second),
        Shape::Adrp => after_pure::<Adrp>(second),
        Shape::Load(Size::B) => after_memory::<Lo<B>>(second),
        Shape::Load(Size::W) => after_memory::<Lo<W>>(second),
        Shape::Load(Size::X) => after_memory::<Lo<X>>(second),
        Shape::Store(Size::W) => after_memory::<St<W>>(second),
        Shape::Store(Size::X) => after_memory::<St<X>>(second),
        Shape::LoadPair { post: false } => after_memory::<LoadPair<Offset>>(second),
        Shape::StorePair { pre: false } => after_memory::<StorePair<Offset>>(second),
        Shape::StorePair { pre: true } => after_memory::<StorePair<Pre>>(second),
        _ => None,
    }
}

fn zero_branch<A: Memory>(wide: bool, nonzero: bool, kind: u8) -> Handler {
    macro_rules! kinds {
        ($wide:literal, $nonzero:literal) => {
            match kind {
                NEAR => load_branch::<A, $wide, $nonzero, NEAR>,
                BACK => load_branch::<A, $wide, $nonzero, BACK>,
                _ => load_branch::<A, $wide, $nonzero, FAR>,
            }
        };
    }
    match (wide, nonzero) {
        (false, false) => kinds!(false, false),
        (false, true) => kinds!(false, true),
        (true, false) => kinds!(true, false),
        (true, true) => kinds!(true, true),
    }
}

/// The handler for a load and a CBZ or CBNZ.
pub fn load_zero_branch(load: Shape, wide: bool, nonzero: bool, kind: u8) -> Option<Handler> {
    Some(match load {
        Shape::Load(Size::B) => zero_branch::<Lo<B>>(wide, nonzero, kind),
        Shape::Load(Size::W) => zero_branch::<Lo<W>>(wide, nonzero, kind),
        Shape::Load(Size::X) => zero_branch::<Lo<X>>(wide, nonzero, kind),
        Shape::LoadPost(Size::B) => zero_branch::<Load<Post, B>>(wide, nonzero, kind),
        Shape::LoadIndex(Size::B) => zero_branch::<Load<Index<3>, B>>(wide, nonzero, kind),
        Shape::LoadIndex(Size::X) => zero_branch::<Load<Index<3>, X>>(wide, nonzero, kind),
        _ => return None,
    })
}
