//! Handlers over the AES, SHA and carry-less multiplication instructions of
//! x86-64 hosts.

use super::forms::{d, m, n, put};
use crate::cpu::Cpu;
use crate::cpu::op::{Handler, Op};
use crate::next_op;
use crate::regs::V;
use std::arch::x86_64::*;

/// A handler that needs a host feature.
pub struct HostHandler {
    run: Handler,
    present: fn() -> bool,
}

impl HostHandler {
    /// This handler if the host can execute it, otherwise `portable`.
    pub fn choose(&self, portable: Handler) -> Handler {
        if (self.present)() { self.run } else { portable }
    }
}

fn load(v: V) -> __m128i {
    bytemuck::cast(v.0)
}

fn store(v: __m128i) -> V {
    V(bytemuck::cast(v))
}

/// Defines functions on register values and handlers around them, all compiled
/// for a host feature: only then are the intrinsics inlined.
macro_rules! host_ops {
    ($feature:literal, $present:expr;
        $($constant:ident $name:ident($half:ident, $d:ident, $n:ident, $m:ident) $body:block)*) => {$(
        #[target_feature(enable = $feature)]
        fn $name($half: bool, $d: __m128i, $n: __m128i, $m: __m128i) -> __m128i $body

        pub const $constant: HostHandler = {
            #[target_feature(enable = $feature)]
            unsafe extern "C" fn handler(cpu: *mut Cpu, op: *const Op) {
                // SAFETY: the run loop owns the vCPU and calls handlers with a
                // live vCPU and an op of a live block, which does not end with
                // this op. `HostHandler::choose` gave this handler out only
                // after it saw the feature.
                unsafe {
                    let (regs, this) = (&mut (*cpu).regs, &*op);
                    let half = this.ra & 1 == 1;
                    let (d, n, m) = (d(regs, this), n(regs, this), m(regs, this));
                    let result = $name(half, load(d), load(n), load(m));
                    put(regs, this, store(result));
                    next_op!(cpu, op)
                }
            }
            HostHandler { run: handler, present: $present }
        };
    )*};
}

host_ops! { "aes,sse2", || is_x86_feature_detected!("aes");
    AESE aese(_half, d, n, _m) {
        _mm_aesenclast_si128(_mm_xor_si128(d, n), _mm_setzero_si128())
    }
    AESD aesd(_half, d, n, _m) {
        _mm_aesdeclast_si128(_mm_xor_si128(d, n), _mm_setzero_si128())
    }
    // The inverse of everything that a round does besides MixColumns, then a
    // round.
    AESMC aesmc(_half, _d, n, _m) {
        let zero = _mm_setzero_si128();
        _mm_aesenc_si128(_mm_aesdeclast_si128(n, zero), zero)
    }
    AESIMC aesimc(_half, _d, n, _m) {
        _mm_aesimc_si128(n)
    }
}

host_ops! { "pclmulqdq,sse2", || is_x86_feature_detected!("pclmulqdq");
    PMULL pmull(half, _d, n, m) {
        if half {
            _mm_clmulepi64_si128::<0x11>(n, m)
        } else {
            _mm_clmulepi64_si128::<0x00>(n, m)
        }
    }
}

/// Four rounds. The host keeps the state as a, b, e, f and c, d, g, h, each
/// from the highest lane down, and does two rounds at a time, after which the
/// old a, b, e, f are the new c, d, g, h.
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn rounds(abcd: __m128i, efgh: __m128i, words: __m128i) -> (__m128i, __m128i) {
    let dcba = _mm_shuffle_epi32::<0b00_01_10_11>(abcd);
    let hgfe = _mm_shuffle_epi32::<0b00_01_10_11>(efgh);
    let abef = _mm_unpackhi_epi64(hgfe, dcba);
    let cdgh = _mm_unpacklo_epi64(hgfe, dcba);
    let middle = _mm_sha256rnds2_epu32(cdgh, abef, words);
    let end = _mm_sha256rnds2_epu32(abef, middle, _mm_unpackhi_epi64(words, words));
    (middle, end)
}

host_ops! { "sha,ssse3,sse4.1", || is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1");
    SHA256H sha256h(_half, d, n, m) {
        let (middle, end) = rounds(d, n, m);
        _mm_shuffle_epi32::<0b00_01_10_11>(_mm_unpackhi_epi64(middle, end))
    }
    SHA256H2 sha256h2(_half, d, n, m) {
        let (middle, end) = rounds(n, d, m);
        _mm_shuffle_epi32::<0b00_01_10_11>(_mm_unpacklo_epi64(middle, end))
    }
    SHA256SU0 sha256su0(_half, d, n, _m) {
        _mm_sha256msg1_epu32(d, n)
    }
    SHA256SU1 sha256su1(_half, d, n, m) {
        let sum = _mm_add_epi32(d, _mm_alignr_epi8::<4>(m, n));
        _mm_sha256msg2_epu32(sum, m)
    }
}

#[cfg(test)]
mod tests {
    use super::super::crypto;
    use super::*;

    fn registers() -> impl Iterator<Item = [V; 3]> {
        let mut state = 1u64;
        let mut next = move || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            state ^ state >> 29
        };
        (0..1000).map(move |_| [(); 3].map(|()| V([next(), next()])))
    }

    #[test]
    fn host_aes_agrees_with_the_portable_one() {
        if !is_x86_feature_detected!("aes") {
            return;
        }
        for [d, n, m] in registers() {
            // SAFETY: the feature was just seen.
            let host = unsafe {
                [aese, aesd, aesmc, aesimc].map(|f| store(f(false, load(d), load(n), load(m))))
            };
            assert_eq!(host[0], crypto::aese(d, n));
            assert_eq!(host[1], crypto::aesd(d, n));
            assert_eq!(host[2], crypto::mix_columns(n, [2, 3, 1, 1]));
            assert_eq!(host[3], crypto::mix_columns(n, [14, 11, 13, 9]));
        }
    }

    #[test]
    fn host_carryless_multiplication_agrees_with_the_portable_one() {
        if !is_x86_feature_detected!("pclmulqdq") {
            return;
        }
        for [d, n, m] in registers() {
            // SAFETY: the feature was just seen.
            let host =
                unsafe { [false, true].map(|half| store(pmull(half, load(d), load(n), load(m)))) };
            assert_eq!(host[0], crypto::multiply(n.0[0], m.0[0]));
            assert_eq!(host[1], crypto::multiply(n.0[1], m.0[1]));
        }
    }

    #[test]
    fn host_sha256_agrees_with_the_portable_one() {
        if !(SHA256H.present)() {
            return;
        }
        for [d, n, m] in registers() {
            // SAFETY: the features were just seen.
            let host = unsafe {
                [sha256h, sha256h2, sha256su0, sha256su1]
                    .map(|f| store(f(false, load(d), load(n), load(m))))
            };
            assert_eq!(host[0], crypto::sha256_rounds(d, n, m).0);
            assert_eq!(host[1], crypto::sha256_rounds(n, d, m).1);
            assert_eq!(host[2], crypto::sha256_schedule_0(d, n));
            assert_eq!(host[3], crypto::sha256_schedule_1(d, n, m));
        }
    }
}
