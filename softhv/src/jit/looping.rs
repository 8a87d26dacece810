//! Blocks that lead back to where they begin: loops.
//!
//! Such a loop stays in its code as long as the run loop is not wanted: nothing in it
//! can have changed code or translations but what asks for attention, since only
//! blocks without an instruction of the interpreter's are compiled so. Guest registers
//! have the same host registers from turn to turn.

use super::asm::host::{RCX, RDI, RSP};
use super::asm::{Cc, at, emit};
use super::bank::Bank;
use super::flags;
use super::state::{Cold, Head, Pending, State, direct};
use crate::cpu::Cpu;
use crate::cpu::op::Op;
use crate::decode;
use crate::insn::Insn;
use std::mem::offset_of;

/// Host registers that stay for what is not pinned: an instruction uses four at most.
const SPARE: usize = 5;

/// What a loop uses.
pub struct Survey {
    /// General registers,
    pub general: Bank,
    /// and vector registers.
    pub vectors: Bank,
    /// Whether it needs the default controls of floating point.
    pub uses_float: bool,
    /// Whether it takes for granted that an inexact result is recorded.
    pub is_inexact: bool,
}

/// Where a branch leads, in bytes from itself, unless it also keeps its own address.
fn target(insn: &Insn) -> Option<i32> {
    match *insn {
        Insn::Branch {
            link: false,
            offset,
        }
        | Insn::BranchCond { offset, .. }
        | Insn::CompareBranch { offset, .. }
        | Insn::TestBranch { offset, .. } => Some(offset),
        _ => None,
    }
}

/// How many of `words` there are to the end of the last branch to the first of them.
pub fn length(words: &[u32]) -> usize {
    let leads_back = |(index, word): &(usize, &u32)| {
        let by = target(&decode::instruction(**word));
        by == i32::try_from(4 * index).ok().map(|back| -back)
    };
    let mut all = words.iter().enumerate();
    all.rfind(leads_back).map_or(0, |(index, _)| index + 1)
}

impl State {
    /// Begins the loop of `words`, whose first op is `first` and which uses what
    /// `survey` says.
    pub fn begin_loop(&mut self, words: &[u32], first: &Op, survey: &Survey) {
        if survey.uses_float {
            self.fp_controls(first);
        }
        if survey.is_inexact {
            self.fp_inexact(first);
        }
        self.general.pin(&survey.general, SPARE);
        self.vectors.pin(&survey.vectors, SPARE);
        self.load_all(self.held());
        self.head = Some(Head {
            offset: first.pc_offset,
            at: self.asm.code.len(),
            sets_flags: flags::are_overwritten(words),
        });
    }

    fn is_loop_branch(&self, insn: &Insn, offset: u16) -> Option<Head> {
        let head = self.head?;
        let to = target(insn)?.checked_add(i32::from(offset))?;
        (to == i32::from(head.offset)).then_some(head)
    }

    /// Whether `insn` is a branch that can do without the flags in memory: the host's
    /// say where it leads, and at the loop's head nobody looks.
    pub fn leaves_flags(&self, insn: &Insn, offset: u16) -> bool {
        let (Some(pending), Insn::BranchCond { cond, .. }) = (self.pending, *insn) else {
            return false;
        };
        let is_dead = |head: Head| head.sets_flags && !self.goes_away();
        !cond.is_always()
            && direct(cond, pending.kind).is_some()
            && self.is_loop_branch(insn, offset).is_some_and(is_dead)
    }

    /// Whether an instruction of the loop may be executed by its handler.
    fn goes_away(&self) -> bool {
        self.cold.iter().any(|cold| matches!(cold, Cold::Away(..)))
    }

    /// Goes back to the loop's head, if that is where `insn` leads, on `cc` or always.
    pub fn loop_back(&mut self, insn: &Insn, op: *const Op, offset: u16, cc: Option<Cc>) -> bool {
        let Some(head) = self.is_loop_branch(insn, offset) else {
            return false;
        };
        let over = cc.map(|cc| self.asm.jump_if(cc.not()));
        let unpinned = self.spill_unpinned();
        self.store_all(unpinned);
        let attention = at(RDI, offset_of!(Cpu, attention) as i32);
        emit!(self.asm, movq_rm, RCX, attention);
        let pending: Option<Pending> = self.pending;
        let wanted = if pending.is_some() {
            // Keeps the flags, for whoever is next where it is wanted.
            emit!(self.asm, movl_rm, RCX, at(RCX, 0));
            self.asm.skip_if_rcx_is_zero()
        } else {
            emit!(self.asm, cmpl_mi_sxb, at(RCX, 0), 0);
            self.asm.jump_if(Cc::Ne)
        };
        let spill = self.spill();
        self.cold.push(Cold::Stop(wanted, op, spill, pending));
        // A handler that calls the next would be all that takes the stack down.
        if self.goes_away() {
            let lowest = at(RDI, offset_of!(Cpu, stack_limit) as i32);
            emit!(self.asm, cmpq_rm, RSP, lowest);
            let deep = self.asm.jump_if(Cc::B);
            self.cold.push(Cold::Stop(deep, op, spill, None));
        }
        let back = self.asm.jump();
        self.asm.aim(back, head.at as i32);
        if let Some(over) = over {
            self.asm.land(over);
        }
        self.settle();
        true
    }
}
