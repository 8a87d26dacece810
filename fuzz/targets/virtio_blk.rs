//! A driver's block requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| devices::fuzzing::fuzz_blk(data));
