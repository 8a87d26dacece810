//! Names in an initial file system.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kernel::fuzzing::fuzz_archive(data));
