//! Arbitrary words as code, in every tier.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| softhv::fuzzing::fuzz_code(data));
