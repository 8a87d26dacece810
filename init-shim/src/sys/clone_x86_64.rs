//! `clone3` on x86-64, for the tests on a development host.

use std::arch::asm;

/// Starts a child that runs `entry(argument)` on the stack named in `args`.
/// Returns its process id or a negated errno.
///
/// # Safety
/// `args` must point to a valid `clone_args` of `size` bytes whose stack is
/// 16-byte aligned, unused and large enough for `entry`. With `CLONE_VM` set,
/// `CLONE_VFORK` must be too, and `entry` may only use what is sound while the
/// calling thread is suspended in the same address space.
pub(super) unsafe fn clone3(
    args: *const libc::clone_args,
    size: usize,
    entry: unsafe extern "C" fn(*mut libc::c_void) -> !,
    argument: *mut libc::c_void,
) -> i64 {
    let ret: i64;
    // SAFETY: the caller vouches for the arguments. The parent's registers and
    // stack are untouched: the child gets copies and a stack of its own, and
    // never comes back from `entry`.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => ret,
            in("rdi") args,
            in("rsi") size,
            in("r12") entry,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    ret
}
