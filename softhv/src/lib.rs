//! Software AArch64 engine with the Hypervisor.framework C ABI.
// An emulator cuts registers to operand width everywhere, on purpose.
#![allow(clippy::cast_possible_truncation)]

pub mod cpu;
pub mod op;
pub mod regs;
pub mod simd;
