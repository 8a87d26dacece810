//! Saved machines that are damaged under good checksums.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm_core::fuzzing::fuzz_saved_machine(data));
