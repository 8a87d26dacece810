//! Handlers jump to the next handler.

use super::stack;
use crate::cpu::Cpu;
use crate::cpu::op::Op;

/// Bytes of host stack that handlers may take before a branch returns to the
/// run loop. Handlers that jump take none; one that the compiler made call the
/// next takes some 50, and there are at most 2,048 ops between two such
/// branches.
const WINDOW_BYTES: usize = 64 << 10;

/// How far down the host stack may go.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub struct StackLimit {
    lowest: usize,
}

impl StackLimit {
    /// The limit for what the caller calls.
    pub fn here() -> Self {
        Self {
            lowest: stack::pointer().saturating_sub(WINDOW_BYTES),
        }
    }

    /// Whether the stack is beyond it.
    #[inline(always)]
    pub fn is_passed(self) -> bool {
        stack::pointer() < self.lowest
    }
}

/// Executes ops from `op` on, until a handler returns to the run loop.
///
/// # Safety
/// The calling thread owns `cpu`; `op` is of one of its live blocks.
pub unsafe fn execute(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe {
        #[cfg(compiles)]
        super::enter::enter(cpu, op);
        #[cfg(not(compiles))]
        ((*op).run)(cpu, op);
    }
}

/// Continues at `op`. Last expression of a handler.
///
/// # Safety
/// As for a handler.
#[inline(always)]
pub unsafe fn go_on(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: by the contract.
    unsafe { ((*op).run)(cpu, op) }
}
