//! Software AArch64 engine with the Hypervisor.framework C ABI.
// An emulator cuts registers to operand width everywhere, on purpose.
#![allow(clippy::cast_possible_truncation)]

pub mod abi;
pub mod address_hash;
pub mod ahead;
pub mod alarm;
pub mod block;
pub mod code;
mod code_place;
#[cfg(compiles)]
mod constants;
pub mod counter;
mod counting;
pub mod cpu;
pub mod decode;
pub mod dirty;
pub mod dispatch;
pub mod exception;
pub mod exec;
pub mod faults;
pub mod fp;
pub mod fuzzing;
pub mod gic;
#[cfg_attr(all(target_os = "linux", target_env = "gnu"), path = "heap_gnu.rs")]
#[cfg_attr(
    not(all(target_os = "linux", target_env = "gnu")),
    path = "heap_other.rs"
)]
mod heap;
pub mod held;
pub mod idregs;
pub mod inherit;
pub mod insn;
#[cfg_attr(not(compiles), path = "jit_none.rs")]
pub mod jit;
pub mod jump;
pub mod link;
#[cfg(test)]
mod link_tests;
pub mod mail;
pub mod mem;
pub mod mmu;
pub mod mode;
pub mod page;
mod page_code;
pub mod phys;
pub mod regs;
pub mod rest;
pub mod run;
pub mod simd;
pub mod step;
mod sync;
pub mod sys_regs;
pub mod sysreg;
pub mod sysreg_key;
pub mod tier;
pub mod timer;
pub mod tlb;
pub mod translate;
pub mod vm;
pub mod walk;
pub mod words;
pub mod work;
mod zeroes;

pub use abi::{api, api_with};
pub use tier::Tier;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
