//! Lane movements as SSE2 instructions, which every x86-64 host has and which
//! LLVM does not find in the loops of `shuffle_portable.rs`.

use super::int::Int;
use crate::regs::V;
use std::arch::x86_64::*;

fn load(v: V) -> __m128i {
    bytemuck::cast(v.0)
}

fn store(v: __m128i) -> V {
    V(bytemuck::cast(v))
}

macro_rules! moves {
    ($($(#[$doc:meta])* $name:ident($a:ident, $b:ident) = $body:expr;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<T: Int>(a: V, b: V) -> V {
            #[inline]
            #[target_feature(enable = "sse2")]
            fn of<T: Int>($a: __m128i, $b: __m128i) -> __m128i {
                $body
            }
            // SAFETY: every x86-64 host has SSE2.
            store(unsafe { of::<T>(load(a), load(b)) })
        }
    )*};
}

moves! {
    /// The low halves of `a` and `b`, lane by lane in turn.
    interleave_low(a, b) = match T::BITS {
            8 => _mm_unpacklo_epi8(a, b),
            16 => _mm_unpacklo_epi16(a, b),
            32 => _mm_unpacklo_epi32(a, b),
            _ => _mm_unpacklo_epi64(a, b),
    };

    /// The high halves of `a` and `b`, lane by lane in turn.
    interleave_high(a, b) = match T::BITS {
            8 => _mm_unpackhi_epi8(a, b),
            16 => _mm_unpackhi_epi16(a, b),
            32 => _mm_unpackhi_epi32(a, b),
            _ => _mm_unpackhi_epi64(a, b),
    };

    /// The even lanes of `a` and, above them, those of `b`.
    evens(a, b) = match T::BITS {
            8 => {
                let low = _mm_set1_epi16(0xff);
                _mm_packus_epi16(_mm_and_si128(a, low), _mm_and_si128(b, low))
            }
            16 => _mm_packs_epi32(
                _mm_srai_epi32::<16>(_mm_slli_epi32::<16>(a)),
                _mm_srai_epi32::<16>(_mm_slli_epi32::<16>(b)),
            ),
            32 => words::<0b10_00_10_00>(a, b),
            _ => _mm_unpacklo_epi64(a, b),
    };

    /// The odd lanes of `a` and, above them, those of `b`.
    odds(a, b) = match T::BITS {
            8 => _mm_packus_epi16(_mm_srli_epi16::<8>(a), _mm_srli_epi16::<8>(b)),
            16 => _mm_packs_epi32(_mm_srai_epi32::<16>(a), _mm_srai_epi32::<16>(b)),
            32 => words::<0b11_01_11_01>(a, b),
            _ => _mm_unpackhi_epi64(a, b),
    };
}

#[inline]
#[target_feature(enable = "sse2")]
fn words<const SELECT: i32>(a: __m128i, b: __m128i) -> __m128i {
    _mm_castps_si128(_mm_shuffle_ps::<SELECT>(
        _mm_castsi128_ps(a),
        _mm_castsi128_ps(b),
    ))
}
