//! The host's fused multiply-add, found at run time.

/// Runs `f` compiled for hosts with FMA, if this is one. Elsewhere `mul_add`
/// calls the C library, which is right but slow.
#[inline(always)]
pub(super) fn on_host<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has FMA, checked on the line above.
        return unsafe { with_fma(f) };
    }
    f()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "fma")]
fn with_fma<R>(f: impl FnOnce() -> R) -> R {
    f()
}
