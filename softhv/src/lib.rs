//! Software AArch64 engine with the Hypervisor.framework C ABI.
// An emulator cuts registers to operand width everywhere, on purpose.
#![allow(clippy::cast_possible_truncation)]

pub mod alarm;
pub mod cpu;
pub mod faults;
pub mod fp;
pub mod gic;
pub mod op;
pub mod phys;
pub mod regs;
pub mod timer;
pub mod vcpu_link;
pub mod vm;
