//! Image references.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| oci_bake::fuzzing::fuzz_reference(data));
