//! Arbitrary notes of code that is to be decoded ahead.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| softhv::fuzzing::fuzz_code_notes(data));
