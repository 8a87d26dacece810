//! Layer archives.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| oci_bake::fuzzing::fuzz_tar(data));
