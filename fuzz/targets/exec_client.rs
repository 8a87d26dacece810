//! An agent's bytes into the host's session.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| exec_proto::fuzzing::fuzz_client(data));
