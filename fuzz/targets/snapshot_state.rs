//! State files of saved machines.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapshot::fuzzing::fuzz_state(data));
