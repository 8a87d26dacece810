//! Bytes as frames of either direction.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| exec_proto::fuzzing::fuzz_frames(data));
