//! Stacks of layers against a plain model of an overlay.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| oci_bake::fuzzing::fuzz_layer_stack(data));
