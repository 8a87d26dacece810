//! A host's bytes into the agent's parser.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| exec_proto::fuzzing::fuzz_server(data));
