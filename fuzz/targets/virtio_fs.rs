//! A guest's requests for a directory.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| devices::fuzzing::fuzz_fs(data));
