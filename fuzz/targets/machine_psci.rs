//! Firmware calls of a guest.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm_core::fuzzing::fuzz_psci(data));
