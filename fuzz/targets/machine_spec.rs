//! Descriptions of machines and their command lines.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm_core::fuzzing::fuzz_spec(data));
