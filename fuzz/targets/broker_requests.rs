//! A guest's requests to a host of a secret.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker::fuzzing::fuzz_requests(data));
