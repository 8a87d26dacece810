//! The host's fused multiply-add, found at run time.

/// `a × b + c`, rounded once.
#[inline(always)]
pub(super) fn fused(a: f64, b: f64, c: f64) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has FMA, checked on the line above.
        return unsafe { with_fma(a, b, c) };
    }
    a.mul_add(b, c)
}

/// `a × b + c` in single precision, rounded once.
#[inline(always)]
pub(super) fn fused_single(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has FMA, checked on the line above.
        return unsafe { with_fma_single(a, b, c) };
    }
    a.mul_add(b, c)
}

// Plain `mul_add` calls the C library unless the whole crate is built for FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "fma")]
fn with_fma(a: f64, b: f64, c: f64) -> f64 {
    a.mul_add(b, c)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "fma")]
fn with_fma_single(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}
