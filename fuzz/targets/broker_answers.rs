//! Answers of a host of a secret.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| broker::fuzzing::fuzz_answers(data));
