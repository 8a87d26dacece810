//! A client of the file system device, in any order.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| supermachine_fsd::fuzzing::fuzz_front(data));
