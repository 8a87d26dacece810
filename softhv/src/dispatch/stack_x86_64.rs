//! The host's stack pointer on x86-64.

/// Its value in the caller's frame, near enough for a limit.
#[inline(always)]
pub fn pointer() -> usize {
    let value: usize;
    // SAFETY: copies a register and touches nothing else.
    unsafe {
        std::arch::asm!("mov {}, rsp", out(reg) value, options(nomem, nostack, preserves_flags))
    };
    value
}
