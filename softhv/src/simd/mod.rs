//! AdvSIMD integer, permute and cryptographic instructions, and the register
//! side of the SIMD structure loads and stores.
//!
//! [`decode`] turns an instruction word into an [`Op`] whose handler has the
//! operation, the lane type and the operand form compiled in. Encodings with
//! floating-point arithmetic are decoded elsewhere, as are loads and stores
//! other than the structure ones, whose register side is [`ldst`].
// Decode patterns group digits by encoding field: opcode_U.
#![allow(clippy::unusual_byte_groupings)]

mod by_element;
mod copy;
mod crypto;
mod forms;
#[cfg(target_arch = "x86_64")]
mod host_crypto;
#[cfg(not(target_arch = "x86_64"))]
#[path = "host_crypto_none.rs"]
mod host_crypto;
mod int;
mod lane_ops;
pub mod lanes;
pub mod ldst;
mod logic;
mod modified_imm;
mod permute;
mod reshape;
mod shift_imm;
#[cfg_attr(target_arch = "x86_64", path = "shuffle_x86_64.rs")]
#[cfg_attr(not(target_arch = "x86_64"), path = "shuffle_portable.rs")]
mod shuffle;
#[cfg(test)]
#[allow(
    dead_code,
    reason = "tests compare its shuffles only; hosts without x86 use all of it"
)]
mod shuffle_portable;
#[cfg(test)]
mod tests;
mod three_diff;
mod three_same;
mod two_reg;
mod word;

use crate::cpu::Cpu;
use crate::cpu::op::{Handler, Op};
use crate::next_op;
use crate::regs::Regs;
use word::Word;

pub use forms::FPSR_QC;

/// Semantics of an instruction over the register file only.
trait Pure {
    /// Executes `op`.
    fn exec(regs: &mut Regs, op: &Op);
}

/// The handler of `P`: [`crate::pure_op`] for an operation that is a type.
unsafe extern "C" fn handler<P: Pure>(cpu: *mut Cpu, op: *const Op) {
    // SAFETY: the run loop owns the vCPU and calls handlers with a live vCPU
    // and an op of a live block; every block ends in an op that does not
    // continue to the next.
    unsafe {
        P::exec(&mut (*cpu).regs, &*op);
        next_op!(cpu, op)
    }
}

/// `P` as a plain value, for the decode tables.
fn run<P: Pure>() -> Handler {
    handler::<P>
}

/// An encoding class: instruction words with `word & mask == value`.
struct Class {
    mask: u32,
    value: u32,
    decode: fn(Word) -> Option<Op>,
}

const fn class(mask: u32, value: u32, decode: fn(Word) -> Option<Op>) -> Class {
    Class {
        mask,
        value,
        decode,
    }
}

/// Arm ARM C4.1.96, "Data Processing -- Scalar Floating-Point and Advanced
/// SIMD", the classes with members that do no floating-point arithmetic. The
/// masks are disjoint except that shifts and modified immediates share theirs
/// (told apart by immh), in this order.
const CLASSES: &[Class] = &[
    class(0x9f20_0400, 0x0e20_0400, three_same::vector),
    class(0x9ff8_0400, 0x0f00_0400, modified_imm::decode),
    class(0x9f80_0400, 0x0f00_0400, shift_imm::vector),
    class(0x9fe0_8400, 0x0e00_0400, copy::vector),
    class(0x9f3e_0c00, 0x0e20_0800, two_reg::vector),
    class(0x9f3e_0c00, 0x0e30_0800, two_reg::across),
    class(0xbf20_8c00, 0x0e00_0800, permute::zip),
    class(0xbf20_8400, 0x2e00_0000, permute::extract),
    class(0xbf20_8c00, 0x0e00_0000, permute::table),
    class(0x9f20_0c00, 0x0e20_0000, three_diff::vector),
    class(0x9f00_0400, 0x0f00_0000, by_element::vector),
    class(0x9f20_8400, 0x0e00_8400, three_same::extra_vector),
    class(0xfffe_0c00, 0x4e28_0800, crypto::aes),
    class(0xdf20_0400, 0x5e20_0400, three_same::scalar),
    class(0xdf80_0400, 0x5f00_0400, shift_imm::scalar),
    class(0xdfe0_8400, 0x5e00_0400, copy::scalar),
    class(0xdf3e_0c00, 0x5e20_0800, two_reg::scalar),
    class(0xdf3e_0c00, 0x5e30_0800, two_reg::pairwise),
    class(0xdf20_0c00, 0x5e20_0000, three_diff::scalar),
    class(0xdf00_0400, 0x5f00_0000, by_element::scalar),
    class(0xdf20_8400, 0x5e00_8400, three_same::extra_scalar),
    class(0xffe0_8c00, 0x5e00_0000, crypto::sha_three),
    class(0xfffe_0c00, 0x5e28_0800, crypto::sha_two),
];

/// The op for `word`, if it is an allocated AdvSIMD data-processing encoding
/// without floating-point arithmetic that this CPU has.
#[must_use]
pub fn decode(word: u32) -> Option<Op> {
    CLASSES
        .iter()
        .find(|class| word & class.mask == class.value)
        .and_then(|class| (class.decode)(Word(word)))
}
