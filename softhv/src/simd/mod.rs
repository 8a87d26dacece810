//! AdvSIMD integer, permute and cryptographic instructions, and the register
//! side of the SIMD structure loads and stores.

pub mod lanes;
