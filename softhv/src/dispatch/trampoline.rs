//! Handlers return, and a loop calls the next one.

use crate::cpu::Cpu;
use crate::cpu::op::Op;

/// Nothing to limit: each handler has returned before the next is called.
#[derive(Clone, Copy, Debug, Default)]
pub struct StackLimit;

impl StackLimit {
    /// The limit for what the caller calls.
    pub fn here() -> Self {
        Self
    }

    /// Whether the stack is beyond it.
    #[inline(always)]
    pub fn is_passed(self) -> bool {
        false
    }
}

/// Executes ops from `op` on, until a handler returns to the run loop.
///
/// # Safety
/// The calling thread owns `cpu`; `op` is of one of its live blocks.
pub unsafe fn execute(cpu: *mut Cpu, op: *const Op) {
    let mut next = op;
    while !next.is_null() {
        // SAFETY: by the contract; what a handler names next is of a live
        // block, too.
        unsafe {
            (*cpu).next = std::ptr::null();
            ((*next).run)(cpu, next);
            next = (*cpu).next;
        }
    }
}

/// Continues at `op`. Last expression of a handler.
///
/// # Safety
/// As for a handler.
#[inline(always)]
pub unsafe fn go_on(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe { (*cpu).next = op }
}
