//! Code that counts what it executes, by [`super::tally`].

use super::asm::host::{RDI, RDX, RSI};
use super::asm::{at, emit};
use super::state::State;
use super::tally::{name_of, slot};
use crate::cpu::Cpu;
use crate::cpu::op::Op;
use crate::decode;
use crate::insn::Insn;
use cranelift_assembler_x64::Amode;
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::AtomicU64;

/// Where the vCPU counts the instructions that it begins.
fn counted() -> Amode<u8> {
    at(RDI, offset_of!(Cpu, counted) as i32)
}

impl State {
    /// Counts one instruction, at whose start this is. The host's flags stay.
    pub fn count_one(&mut self) {
        if self.tally.is_none() {
            return;
        }
        // Nothing is in registers for one instruction behind it.
        self.settle();
        emit!(self.asm, movq_rm, RDX, counted());
        emit!(self.asm, leaq_rm, RDX, at(RDX, 1));
        emit!(self.asm, movq_mr, counted(), RDX);
    }

    /// Counts `insn`, which the interpreter executes. The host's flags are of no use.
    pub fn count_aside(&mut self, insn: &Insn) {
        if self.tally.is_some() {
            self.add_to(slot(format!("no-template {}", name_of(insn))), 1);
        }
    }

    /// Counts the instruction of `op`, which the interpreter executes because of what it
    /// met, and if it does the `rest` of the block as well, that too.
    pub fn count_declined(&mut self, op: *const Op, rest: bool) {
        let Some(tally) = &self.tally else {
            return;
        };
        // SAFETY: an op of the block, or of one instruction of it.
        let offset = unsafe { (*op).pc_offset };
        let Some(behind) = tally.from(offset) else {
            return;
        };
        let name = behind.first().map(|word| decode::instruction(*word));
        let name = name.map_or_else(String::new, |insn| name_of(&insn));
        let rest = if rest {
            behind.len().saturating_sub(1)
        } else {
            0
        };
        // The rest was not counted yet as executed.
        if rest > 0 {
            emit!(self.asm, addq_mi_sxb, counted(), rest as i8);
        }
        self.add_to(slot(format!("declined {name}")), 1 + rest);
    }

    /// Adds `count` at `to`, by RSI alone, and spoils the host's flags.
    fn add_to(&mut self, to: &'static AtomicU64, count: usize) {
        let address = ptr::from_ref(to).expose_provenance();
        self.asm.constant(RSI, address as u64);
        // A block has 64 instructions at most.
        emit!(self.asm, addq_mi_sxb, at(RSI, 0), count as i8);
    }
}
