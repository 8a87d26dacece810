//! Saved interrupt controllers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| softhv::fuzzing::fuzz_gic_state(data));
