//! From the run loop to handlers, where some of them are compiled code.

use crate::cpu::Cpu;
use crate::cpu::op::Op;

/// Calls the handler of `op`. Compiled code uses the registers that functions
/// keep for their callers, so this keeps them.
///
/// # Safety
/// As [`super::execute`].
#[unsafe(naked)]
pub unsafe extern "C" fn enter(cpu: *mut Cpu, op: *const Op) {
    // Six registers, the return address and eight bytes more: the handler's stack
    // is aligned as that of every function. Its address is at the start of an op.
    std::arch::naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "call [rsi]",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}
