//! Safe binding of Apple's Hypervisor.framework C ABI, as a table of entry points any engine can fill.

pub mod sys;
