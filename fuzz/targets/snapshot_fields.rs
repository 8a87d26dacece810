//! Fields of saved state.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapshot::fuzzing::fuzz_fields(data));
