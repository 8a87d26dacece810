//! Files as a stream, taken apart and put together again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| exec_proto::fuzzing::fuzz_tree(data));
