//! Kernel headers and where they put things.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmm_core::fuzzing::fuzz_kernel_image(data));
