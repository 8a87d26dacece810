//! `clone3` on arm64.

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
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x22",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") args => ret,
            in("x1") size,
            in("x21") entry,
            in("x22") argument,
        );
    }
    ret
}
