//! The pre-decoded instruction and the calling convention of its handler.

use super::Cpu;
use crate::insn::Reg;
use std::cell::Cell;

/// Executes one [`Op`] and continues with the next: see [`crate::dispatch`].
///
/// Every handler has this one signature, so that LLVM turns the call at its end
/// into a jump (sibling-call optimisation): no handler may keep a value that
/// needs dropping, or a stack slot whose address escaped, across that call. A
/// function with such a slot must not be inlined into one.
pub type Handler = unsafe extern "C" fn(cpu: *mut Cpu, op: *const Op);

/// Register slot that always reads zero: how XZR is decoded as a source.
pub const ZERO: u8 = 32;
/// Register slot that nobody reads: how XZR is decoded as a destination.
pub const SINK: u8 = 33;
/// Register slot of the current stack pointer.
pub const SP: u8 = 31;

/// One pre-decoded instruction, half a cache line.
#[repr(C, align(32))]
#[derive(Clone)]
pub struct Op {
    /// What executes it.
    pub run: Handler,
    /// Immediate operand, meaning set by the handler.
    pub imm: u64,
    /// Successor chained by a branch handler, or null.
    pub link: Cell<*const Op>,
    /// Destination register slot.
    pub rd: u8,
    /// First source register slot.
    pub rn: u8,
    /// Second source register slot.
    pub rm: u8,
    /// Third source register slot.
    pub ra: u8,
    /// Byte offset of the instruction in its page.
    pub pc_offset: u16,
    /// Small operand (shift, condition, lane, ...), meaning set by the handler.
    pub aux: u16,
}

impl Op {
    /// An op with handler `run` and all operands zero.
    pub fn new(run: Handler) -> Self {
        Self {
            run,
            imm: 0,
            link: Cell::new(std::ptr::null()),
            rd: 0,
            rn: 0,
            rm: 0,
            ra: 0,
            pc_offset: 0,
            aux: 0,
        }
    }
}

/// The slot that `reg` is read from.
#[inline]
pub const fn source(reg: Reg) -> u8 {
    const { assert!(SP == Reg::SP.number() && ZERO == Reg::ZR.number()) };
    reg.number()
}

/// The slot that `reg` is written to.
#[inline]
pub const fn destination(reg: Reg) -> u8 {
    if reg.is_zr() { SINK } else { reg.number() }
}

/// Source slot of general register field `r`, 31 being XZR.
#[inline]
pub fn src(r: u32) -> u8 {
    if r & 31 == 31 { ZERO } else { (r & 31) as u8 }
}

/// Destination slot of general register field `r`, 31 being XZR.
#[inline]
pub fn dst(r: u32) -> u8 {
    if r & 31 == 31 { SINK } else { (r & 31) as u8 }
}

/// Continues with the op after `op`. Last expression of a handler.
#[macro_export]
#[doc(hidden)]
macro_rules! next_op {
    ($cpu:expr, $op:expr) => {
        $crate::dispatch::go_on($cpu, $op.add(1))
    };
}

/// The [`Handler`] for a pure function `fn(&mut Regs, &Op)`, which may be
/// generic if its parameters are concrete: `pure_op!(add_lanes::<u8>)`.
#[macro_export]
#[doc(hidden)]
macro_rules! pure_op {
    ($f:expr) => {{
        unsafe extern "C" fn handler(cpu: *mut $crate::cpu::Cpu, op: *const $crate::cpu::op::Op) {
            // SAFETY: the run loop owns the vCPU and calls handlers with a live
            // vCPU and an op of a live block; every block ends in an op that
            // does not continue to the next.
            unsafe {
                $f(&mut (*cpu).regs, &*op);
                $crate::next_op!(cpu, op)
            }
        }
        handler as $crate::cpu::op::Handler
    }};
}
