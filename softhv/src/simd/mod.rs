//! AdvSIMD integer, permute and cryptographic instructions, and the register
//! side of the SIMD structure loads and stores.
//!
//! [`bind()`] turns an instruction into an [`Op`] whose handler has the operation, the
//! lane type and the operand form compiled in. Floating-point arithmetic is elsewhere,
//! as are loads and stores other than the structure ones, whose register side is
//! [`ldst`].

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
mod ops;
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

use crate::cpu::Cpu;
use crate::cpu::op::{Handler, Op};
use crate::insn::simd::{Arrangement, VecUnary};
use crate::insn::{Insn, VReg};
use crate::next_op;
use crate::regs::Regs;

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

/// `P` as a plain value, for the tables.
fn run<P: Pure>() -> Handler {
    handler::<P>
}

/// The op of `insn`, if it is an AdvSIMD data-processing instruction without
/// floating-point arithmetic.
#[must_use]
pub fn bind(insn: &Insn) -> Option<Op> {
    Some(match *insn {
        Insn::VecBinary {
            op,
            arrangement,
            rd,
            rn,
            rm,
        } if op.changes_size() => {
            let run = three_diff::run_of(op, arrangement.size())?;
            ops::resized(run, arrangement, rd, rn, rm)
        }
        Insn::VecBinary {
            op,
            arrangement,
            rd,
            rn,
            rm,
        } => {
            let run = three_same::run(op, arrangement)
                .or_else(|| logic::run_of(op, arrangement.is_full(), rn == rm))
                .or_else(|| permute::zip(op, arrangement))
                .or_else(|| crypto::binary(op))?;
            ops::op(run, ops::keep(arrangement), rd, rn, rm)
        }
        Insn::VecElement {
            op,
            arrangement,
            rd,
            rn,
            rm,
            index,
        } => {
            let run = by_element::run(op, arrangement.size())?;
            let op = if op.changes_size() {
                ops::resized(run, arrangement, rd, rn, rm)
            } else {
                ops::op(run, ops::keep(arrangement), rd, rn, rm)
            };
            Op {
                imm: index.into(),
                ..op
            }
        }
        Insn::VecUnary {
            op,
            arrangement,
            rd,
            rn,
        } => unary(op, arrangement, rd, rn)?,
        Insn::VecShift {
            op,
            arrangement,
            rd,
            rn,
            amount,
        } => {
            let run = shift_imm::run_of(op, arrangement.size())?;
            let op = if op.changes_size() {
                ops::resized(run, arrangement, rd, rn, rn)
            } else {
                ops::op(run, ops::keep(arrangement), rd, rn, rn)
            };
            Op {
                imm: amount.into(),
                ..op
            }
        }
        Insn::VecImm { op, full, rd, bits } => Op {
            imm: bits,
            ..whole(modified_imm::run_of(op, full), full, rd, rd, rd)
        },
        Insn::VecExtract {
            full,
            rd,
            rn,
            rm,
            position,
        } => Op {
            imm: 8 * u64::from(position),
            ..whole(permute::extract(full), full, rd, rn, rm)
        },
        Insn::VecTable {
            keep,
            full,
            registers,
            rd,
            rn,
            rm,
        } => whole(permute::table(registers, keep), full, rd, rn, rm),
        _ => return copy::bind(insn),
    })
}

fn unary(op: VecUnary, arrangement: Arrangement, rd: VReg, rn: VReg) -> Option<Op> {
    let run = two_reg::run_of(op, arrangement).or_else(|| crypto::unary(op))?;
    Some(match op {
        VecUnary::Xtn | VecUnary::Sqxtun | VecUnary::Sqxtn | VecUnary::Uqxtn => {
            ops::resized(run, arrangement, rd, rn, rn)
        }
        // Shifts by the bits of a lane.
        VecUnary::Shll => Op {
            imm: 8 << arrangement.size(),
            ..ops::resized(run, arrangement, rd, rn, rn)
        },
        _ => ops::op(run, ops::keep(arrangement), rd, rn, rn),
    })
}

/// An op on 64 bits or, if `full`, 128, whatever their lanes.
fn whole(run: Handler, full: bool, rd: VReg, rn: VReg, rm: VReg) -> Op {
    let keep = if full { forms::Keep::Q } else { forms::Keep::D };
    ops::op(run, keep, rd, rn, rm)
}
