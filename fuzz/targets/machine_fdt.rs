//! Device trees of described machines, read back.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm_core::fuzzing::fuzz_fdt(data));
