//! Branches: taken as their ops take them, through the op's link or the jump
//! cache, so that changed code and forgotten blocks are left as in the
//! interpreter.

use super::asm::host::{RAX, RCX, RDI, RDX, RSI, RSP};
use super::asm::{Asm, Cc, Jump, at, emit, indexed, sized};
use super::state::{Cold, Flags, State, regs_field, slot_offset};
use crate::cpu::Cpu;
use crate::cpu::op::{Handler, Op};
use crate::dispatch::StackLimit;
use crate::exec::branch::{self, BACK, FAR, NEAR};
use crate::insn::{BranchReg, Insn, Width};
use crate::jump::{JUMP_ENTRIES, JumpEntry};
use crate::page::PAGE_MASK;
use crate::tier::Place;
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
    /// Address of the first byte that is emitted.
    pub base: usize,
    /// Bytes before the block's first instruction, which trap.
    pub gap: u8,
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
                if self.loop_back(insn, op, offset, None) {
                    return Branch::End;
                }
                self.flush();
                if link {
                    self.link(offset);
                }
                self.take(op, kind(offset, by), way);
                Branch::End
            }
            Insn::BranchCond { cond, offset: by } => {
                let kind = kind(offset, by);
                if cond.is_always() {
                    if !self.loop_back(insn, op, offset, None) {
                        self.flush();
                        self.take(op, kind, way);
                    }
                    return Branch::End;
                }
                let cc = self.condition(cond, flags);
                self.take_if(cc, insn, op, offset, kind);
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
                let cc = if nonzero { Cc::Ne } else { Cc::E };
                self.take_if(cc, insn, op, offset, kind(offset, by));
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
                let cc = if set { Cc::B } else { Cc::Ae };
                self.take_if(cc, insn, op, offset, kind(offset, by));
                Branch::Conditional
            }
            Insn::BranchReg { how, rn } => {
                let n = self.read(rn);
                self.flush();
                self.asm.copy(RAX, n);
                let slow = self.jump((how == BranchReg::Call).then_some(offset));
                for jump in slow {
                    self.asm.land(jump);
                }
                self.count_declined(op, false);
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

    fn take_if(&mut self, cc: Cc, insn: &Insn, op: *const Op, offset: u16, kind: u8) {
        if self.loop_back(insn, op, offset, Some(cc)) {
            return;
        }
        let taken = self.asm.jump_if(cc);
        let spill = self.spill();
        self.cold.push(Cold::Take(taken, op, kind, spill));
    }

    /// The interpreter goes on at `op`, with nothing dirty.
    pub fn leave(&mut self, op: *const Op) {
        self.asm.constant(RSI, op.addr() as u64);
        emit!(self.asm, jmpq_m, at(RSI, offset_of!(Op, run) as i32));
    }

    /// Takes the direct branch of `op`, with nothing behind it and nothing dirty.
    pub fn take(&mut self, op: *const Op, kind: u8, way: Way) {
        let exit = way.exits.0[usize::from(kind)];
        let exit = exit.wrapping_sub(way.base) as i32;
        if kind == FAR {
            // SAFETY: the op is of the block that is compiled.
            let op_here = unsafe { &*op };
            let by = u64::from(op_here.pc_offset).wrapping_add(op_here.imm);
            emit!(self.asm, movq_rm, RAX, at(RDI, regs_field!(page)));
            if let Ok(by) = i32::try_from(by as i64) {
                self.add_constant(true, RAX, by);
                for jump in self.jump(None) {
                    self.asm.land(jump);
                }
            }
            self.count_declined(op, false);
            self.asm.constant(RSI, op.addr() as u64);
            let jump = self.asm.jump();
            return self.asm.aim(jump, exit);
        }
        self.asm.constant(RSI, op.addr() as u64);
        if kind == BACK {
            for wanted in self.is_wanted(RAX) {
                self.asm.aim(wanted, exit);
            }
        }
        emit!(self.asm, movq_rm, RAX, at(RSI, offset_of!(Op, link) as i32));
        emit!(self.asm, testq_mr, RAX, RAX);
        let unknown = self.asm.jump_if(Cc::E);
        self.asm.aim(unknown, exit);
        self.asm.copy(RSI, RAX);
        emit!(self.asm, jmpq_m, at(RAX, offset_of!(Op, run) as i32));
    }

    /// Jumps if the run loop is wanted, or the host stack is deep: as
    /// `branch::wanted`. Uses `scratch`.
    fn is_wanted(&mut self, scratch: u8) -> [Jump; 2] {
        let attention = at(RDI, offset_of!(Cpu, attention) as i32);
        emit!(self.asm, movq_rm, scratch, attention);
        emit!(self.asm, cmpl_mi_sxb, at(scratch, 0), 0);
        let wanted = self.asm.jump_if(Cc::Ne);
        const { assert!(size_of::<StackLimit>() == 8) };
        let lowest = at(RDI, offset_of!(Cpu, stack_limit) as i32);
        emit!(self.asm, cmpq_rm, RSP, lowest);
        [wanted, self.asm.jump_if(Cc::B)]
    }

    /// Goes on at the guest address in RAX, if the jump cache knows it, as
    /// `branch::jump`; and for a call from `link`, an offset in the page, sets X30.
    /// Otherwise the jumps lead away, and nothing has changed. Nothing follows, so
    /// all host registers are free.
    fn jump(&mut self, link: Option<u16>) -> [Jump; 4] {
        const { assert!(size_of::<JumpEntry>() == 24) };
        let field = |field: usize| at(RDX, field as i32);
        emit!(self.asm, movq_rm, RCX, RAX);
        emit!(self.asm, shrq_mi, RCX, 63);
        emit!(self.asm, leaq_rm, RDX, indexed(RDI, RCX, 3));
        emit!(
            self.asm,
            movq_rm,
            RCX,
            at(RDX, offset_of!(Cpu, context) as i32)
        );
        // As `jump_index`.
        emit!(self.asm, movq_rm, RDX, RAX);
        emit!(self.asm, shrq_mi, RDX, 2);
        emit!(self.asm, xorl_rm, RDX, RCX);
        emit!(self.asm, andl_mi, RDX, (JUMP_ENTRIES - 1) as u32);
        emit!(self.asm, leaq_rm, RDX, indexed(RDX, RDX, 1));
        emit!(
            self.asm,
            movq_rm,
            RSI,
            at(RDI, offset_of!(Cpu, jump) as i32)
        );
        emit!(self.asm, leaq_rm, RDX, indexed(RSI, RDX, 3));
        let first = self.is_entry(0);
        let hit = self.asm.code.len();
        let [wanted, deep] = self.is_wanted(RCX);
        emit!(self.asm, movq_rm, RSI, field(offset_of!(JumpEntry, op)));
        if let Some(offset) = link {
            // By the page that this is in yet.
            emit!(self.asm, movq_rm, RCX, at(RDI, regs_field!(page)));
            self.add_constant(true, RCX, i32::from(offset) + 4);
            emit!(self.asm, movq_mr, at(RDI, slot_offset(LINK)), RCX);
        }
        emit!(self.asm, andq_mi_sxl, RAX, PAGE_MASK as i32);
        emit!(self.asm, movq_mr, at(RDI, regs_field!(page)), RAX);
        emit!(self.asm, jmpq_m, at(RSI, offset_of!(Op, run) as i32));
        for miss in first {
            self.asm.land(miss);
        }
        let second = (JUMP_ENTRIES * size_of::<JumpEntry>()) as i32;
        let [elsewhere, otherwise] = self.is_entry(second);
        self.add_constant(true, RDX, second);
        let back = self.asm.jump();
        self.asm.aim(back, hit as i32);
        [elsewhere, otherwise, wanted, deep]
    }

    /// Jumps unless the entry of the jump cache `by` bytes from RDX is for the address
    /// in RAX and the context in RCX.
    fn is_entry(&mut self, by: i32) -> [Jump; 2] {
        let field = |field: usize| at(RDX, by + field as i32);
        emit!(self.asm, cmpq_rm, RAX, field(offset_of!(JumpEntry, pc)));
        let elsewhere = self.asm.jump_if(Cc::Ne);
        let context = field(offset_of!(JumpEntry, context));
        emit!(self.asm, cmpq_rm, RCX, context);
        [elsewhere, self.asm.jump_if(Cc::Ne)]
    }

    /// Emits what was put off; `None` if there is no room for ops.
    pub fn finish(&mut self, way: Way, place: &mut Place<'_>) -> Option<()> {
        for cold in std::mem::take(&mut self.cold) {
            match cold {
                Cold::Away(jumps, op, resume, spill) => {
                    for jump in jumps.into_iter().flatten() {
                        self.asm.land(jump);
                    }
                    self.store_all(spill);
                    self.count_declined(&raw const op, false);
                    let operand = self.away();
                    let back = super::handler_at(way.base + self.asm.code.len());
                    let copies = place(&mut vec![op, Op::new(back)])?;
                    self.asm.set_operand(operand, copies.addr() as u64);
                    self.resume(resume);
                }
                Cold::Leave(jump, op, spill) => {
                    self.asm.land(jump);
                    self.store_all(spill);
                    self.count_declined(op, true);
                    self.leave(op);
                }
                Cold::Second(jump, tag, found, op, spill) => {
                    self.asm.land(jump);
                    let miss = self.probe_second(tag, found);
                    self.asm.land(miss);
                    self.store_all(spill);
                    self.count_declined(op, true);
                    self.leave(op);
                }
                Cold::Take(jump, op, kind, spill) => {
                    self.asm.land(jump);
                    self.store_all(spill);
                    self.take(op, kind, way);
                }
                Cold::Stop(jump, op, spill, pending) => {
                    self.asm.land(jump);
                    if let Some(pending) = pending {
                        self.store_flags(pending);
                    }
                    self.store_all(spill);
                    self.asm.constant(RSI, op.addr() as u64);
                    let exit = way.exits.0[usize::from(BACK)].wrapping_sub(way.base) as i32;
                    let jump = self.asm.jump();
                    self.asm.aim(jump, exit);
                }
            }
        }
        Some(())
    }

    /// Goes to ops whose address is to be known later, with
    /// [`super::asm::Asm::set_operand`].
    pub fn away(&mut self) -> usize {
        emit!(self.asm, movabsq_oi, RSI, 0u64);
        let operand = self.asm.code.len() - 8;
        emit!(self.asm, jmpq_m, at(RSI, offset_of!(Op, run) as i32));
        operand
    }
}
