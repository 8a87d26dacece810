//! A guest's frames, and what becomes of the host's sockets.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| net::fuzzing::fuzz_frames(data));
