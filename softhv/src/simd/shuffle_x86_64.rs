//! Lane operations as SSE2 instructions, which every x86-64 host has and which
//! LLVM does not find in the loops of `shuffle_portable.rs`.

use super::forms::{d, keep, m, put};
use super::int::Int;
use crate::cpu::Cpu;
use crate::cpu::op::{Handler, Op};
use crate::next_op;
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

/// Sums of neighbouring products of signed 16-bit lanes, in 32-bit lanes.
#[inline(always)]
pub fn multiply_add_pairs(a: V, b: V) -> V {
    // SAFETY: every x86-64 host has SSE2.
    store(unsafe { _mm_madd_epi16(load(a), load(b)) })
}

/// Whether any bit differs.
#[inline(always)]
pub fn differ(a: V, b: V) -> bool {
    // SAFETY: every x86-64 host has SSE2.
    unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(load(a), load(b))) != 0xffff }
}

#[inline]
#[target_feature(enable = "sse2")]
fn words<const SELECT: i32>(a: __m128i, b: __m128i) -> __m128i {
    _mm_castps_si128(_mm_shuffle_ps::<SELECT>(
        _mm_castsi128_ps(a),
        _mm_castsi128_ps(b),
    ))
}

/// The handler of TBL, or TBX if it `keeps_old`, with a table of 1 + `more`
/// registers: one over PSHUFB if the host has that, otherwise `portable`.
pub fn lookup(more: usize, keeps_old: bool, portable: Handler) -> Handler {
    const HANDLERS: [[Handler; 4]; 2] = [
        [
            lookup_handler::<1, false>,
            lookup_handler::<2, false>,
            lookup_handler::<3, false>,
            lookup_handler::<4, false>,
        ],
        [
            lookup_handler::<1, true>,
            lookup_handler::<2, true>,
            lookup_handler::<3, true>,
            lookup_handler::<4, true>,
        ],
    ];
    if is_x86_feature_detected!("ssse3") {
        HANDLERS[usize::from(keeps_old)][more & 3]
    } else {
        portable
    }
}

#[target_feature(enable = "ssse3")]
unsafe extern "C" fn lookup_handler<const REGS: usize, const KEEPS_OLD: bool>(
    cpu: *mut Cpu,
    op: *const Op,
) {
    // SAFETY: the run loop owns the vCPU and calls handlers with a live vCPU
    // and an op of a live block, which does not end with this op. `lookup` gave
    // this handler out only after it saw the feature.
    unsafe {
        let (regs, this) = (&mut (*cpu).regs, &*op);
        let index = load(m(regs, this));
        let mut found = _mm_setzero_si128();
        for i in 0..REGS {
            let part = load(regs.v[(usize::from(this.rn) + i) & 31]);
            // PSHUFB gives zero where bit 7 of the index is set: saturation
            // sets it in all that is not 0..=15 before the addition
            let local = _mm_sub_epi8(index, _mm_set1_epi8((16 * i) as i8));
            let local = _mm_adds_epu8(local, _mm_set1_epi8(0x70));
            found = _mm_or_si128(found, _mm_shuffle_epi8(part, local));
        }
        if KEEPS_OLD {
            let beyond = _mm_subs_epu8(index, _mm_set1_epi8((16 * REGS - 1) as i8));
            let inside = _mm_cmpeq_epi8(beyond, _mm_setzero_si128());
            let old = load(d(regs, this));
            found = _mm_or_si128(found, _mm_andnot_si128(inside, old));
        }
        put(regs, this, keep(this, store(found)));
        next_op!(cpu, op)
    }
}
