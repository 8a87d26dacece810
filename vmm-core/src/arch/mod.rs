//! What depends on the guest's architecture and on nothing else: pure
//! functions over numbers and bytes.

pub mod aarch64;
