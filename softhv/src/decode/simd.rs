//! Floating point and vector data processing: two decoders side by side.

use super::{Context, Decoded, undefined};
use crate::exec::system::fp_trap;
use crate::{fp, simd};

pub fn decode(word: u32, context: Context) -> Decoded {
    if context.mode.fp_traps {
        return Decoded::end(fp_trap);
    }
    match fp::decode(word).or_else(|| simd::decode(word)) {
        Some(op) => Decoded { op, ends: false },
        None => undefined(),
    }
}
