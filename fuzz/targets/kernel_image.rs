//! Files said to be a kernel.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kernel::fuzzing::fuzz_image(data));
