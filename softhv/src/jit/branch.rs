//! Branches: taken as their ops take them, through the op's link or the jump
//! cache, so that changed code and forgotten blocks are left as in the
//! interpreter.

use super::asm::host::{RAX, RDI, RSI, RSP};
use super::asm::{Asm, Cc, at, emit, sized};
use super::state::{Cold, Flags, State, regs_field, slot_offset};
use crate::cpu::Cpu;
use crate::cpu::op::{Handler, Op};
use crate::dispatch::StackLimit;
use crate::exec::branch::{self, BACK, FAR, NEAR};
use crate::insn::{BranchReg, Insn, Width};
use std::mem::offset_of;

/// X30.
const LINK: u8 = 30;

/// Where a region has the code that leads to the interpreter's branches, by
/// [`NEAR`], [`BACK`] and [`FAR`]: RSI is the op.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exits([usize; 3]);

impl Exits {
    /// The code of them for the start of a region at `base`.
    pub fn emit(base: usize) -> (Self, Asm) {
        let handlers: [Handler; 3] = [branch::b::<NEAR>, branch::b::<BACK>, branch::b::<FAR>];
        let mut asm = Asm::default();
        let places = handlers.map(|handler| {
            let place = base + asm.code.len();
            asm.constant(RAX, handler as usize as u64);
            emit!(asm, jmpq_m, RAX);
            place
        });
        (Self(places), asm)
    }
}

/// How a direct branch by `by` bytes from `offset` in its page reaches its target.
fn kind(offset: u16, by: i32) -> u8 {
    let target = i64::from(offset) + i64::from(by);
    match target {
        0..4096 if by > 0 => NEAR,
        0..4096 => BACK,
        _ => FAR,
    }
}

/// What a branch is for a block.
pub enum Branch {
    /// It is none.
    Not,
    /// The next instruction may follow.
    Conditional,
    /// It does not.
    End,
}

/// Where compiled code of a block goes on elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Address of the block's first byte.
    pub base: usize,
    /// Of its region.
    pub exits: Exits,
}

impl State {
    /// Emits `insn`, a branch whose op is `op`.
    pub fn branch(
        &mut self,
        insn: &Insn,
        op: *const Op,
        offset: u16,
        flags: Option<Flags>,
        way: Way,
    ) -> Branch {
        match *insn {
            Insn::Branch { link, offset: by } => {
                if link {
                    self.link(offset);
                }
                self.take(op, kind(offset, by), way);
                Branch::End
            }
            Insn::BranchCond { cond, offset: by } => {
                let kind = kind(offset, by);
                if cond.is_always() {
                    self.take(op, kind, way);
                    return Branch::End;
                }
                let cc = self.condition(cond, flags);
                self.take_if(cc, op, kind);
                Branch::Conditional
            }
            Insn::CompareBranch {
                nonzero,
                width,
                rt,
                offset: by,
            } => {
                let t = self.read(rt);
                sized!(self.asm, width == Width::X, testq_mr, testl_mr, t, t);
                self.take_if(if nonzero { Cc::Ne } else { Cc::E }, op, kind(offset, by));
                Branch::Conditional
            }
            Insn::TestBranch {
                set,
                rt,
                bit,
                offset: by,
            } => {
                let t = self.read(rt);
                emit!(self.asm, btq_mi, t, bit);
                self.take_if(if set { Cc::B } else { Cc::Ae }, op, kind(offset, by));
                Branch::Conditional
            }
            Insn::BranchReg { how, .. } => {
                let _: BranchReg = how;
                self.leave(op);
                Branch::End
            }
            _ => Branch::Not,
        }
    }

    /// X30 = the address after the instruction at `offset`.
    fn link(&mut self, offset: u16) {
        emit!(self.asm, movq_rm, RAX, at(RDI, regs_field!(page)));
        self.add_constant(true, RAX, i32::from(offset) + 4);
        emit!(self.asm, movq_mr, at(RDI, slot_offset(LINK)), RAX);
    }

    fn take_if(&mut self, cc: Cc, op: *const Op, kind: u8) {
        let taken = self.asm.jump_if(cc);
        self.cold.push(Cold::Take(taken, op, kind));
    }

    /// The interpreter goes on at `op`.
    pub fn leave(&mut self, op: *const Op) {
        self.asm.constant(RSI, op.addr() as u64);
        emit!(self.asm, jmpq_m, at(RSI, offset_of!(Op, run) as i32));
    }

    /// Takes the direct branch of `op`, with nothing behind it.
    pub fn take(&mut self, op: *const Op, kind: u8, way: Way) {
        self.asm.constant(RSI, op.addr() as u64);
        let exit = way.exits.0[usize::from(kind)];
        let exit = exit.wrapping_sub(way.base) as i32;
        if kind == FAR {
            let jump = self.asm.jump();
            return self.asm.aim(jump, exit);
        }
        if kind == BACK {
            // The run loop is wanted, or the host stack is deep: as `branch::take`.
            let attention = at(RDI, offset_of!(Cpu, attention) as i32);
            emit!(self.asm, movq_rm, RAX, attention);
            emit!(self.asm, cmpl_mi_sxb, at(RAX, 0), 0);
            let wanted = self.asm.jump_if(Cc::Ne);
            self.asm.aim(wanted, exit);
            const { assert!(size_of::<StackLimit>() == 8) };
            let lowest = at(RDI, offset_of!(Cpu, stack_limit) as i32);
            emit!(self.asm, cmpq_rm, RSP, lowest);
            let deep = self.asm.jump_if(Cc::B);
            self.asm.aim(deep, exit);
        }
        emit!(self.asm, movq_rm, RAX, at(RSI, offset_of!(Op, link) as i32));
        emit!(self.asm, testq_mr, RAX, RAX);
        let unknown = self.asm.jump_if(Cc::E);
        self.asm.aim(unknown, exit);
        self.asm.copy(RSI, RAX);
        emit!(self.asm, jmpq_m, at(RAX, offset_of!(Op, run) as i32));
    }

    /// Emits what was put off.
    pub fn finish(&mut self, way: Way) {
        for cold in std::mem::take(&mut self.cold) {
            match cold {
                Cold::Leave(jump, op) => {
                    self.asm.land(jump);
                    self.leave(op);
                }
                Cold::Take(jump, op, kind) => {
                    self.asm.land(jump);
                    self.take(op, kind, way);
                }
            }
        }
    }
}
