//! Floating point: Arm semantics over bit patterns, and the instructions.
//!
//! [`mod@format`] holds the formats, the control and status words and the one
//! rounding routine; [`arith`], [`compare`], [`convert`] and [`recip`] compute
//! every operation in integers, bit-exact in each FPCR mode. [`native`] answers
//! the common case with the host's own floating point, only where no status
//! flag other than IXC could change. [`bind()`] chooses among the handlers,
//! which are in `scalar` and `vector`.

pub mod arith;
mod bind;
pub mod compare;
pub mod convert;
mod decode_simd;
mod fields;
pub mod format;
mod fused;
pub mod native;
pub mod ops;
pub mod recip;
mod scalar;
mod vector;

pub use bind::bind;
pub use decode_simd::decode as decode_simd;

#[cfg(test)]
mod handler_tests;
#[cfg(test)]
mod tests;
