//! Kernel configurations.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kernel::fuzzing::fuzz_config(data));
