//! Accesses to the interrupt controller.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| softhv::fuzzing::fuzz_gic_registers(data));
