//! The state of a block while it is compiled: which host register has which
//! guest register, and where the flags are.
//!
//! A compiled block can be left at every instruction, for the interpreter to go on:
//! what is newer in host registers than in the vCPU's memory is stored then (see
//! [`super::registers`]).

use super::asm::host::{R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI};
use super::asm::{Asm, Cc, Features, Jump, at, emit, with_imm};
use super::bank::{Bank, Spill};
use super::tally::Tally;
use crate::cpu::Cpu;
use crate::cpu::op::{Op, SINK};
use crate::insn::{Cond, VReg};
use cranelift_assembler_x64::Amode;
use std::mem::offset_of;

/// Host registers that keep guest registers. RDI has the vCPU; RAX, RCX, RDX and
/// RSI are for one instruction.
const POOL: [u8; 10] = [RBX, RBP, R8, R9, R10, R11, R12, R13, R14, R15];
/// Host vector registers that keep guest registers; XMM0 to XMM2 are for one
/// instruction.
const VECTOR_POOL: [u8; 13] = [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// The offset of a field of the register file from the vCPU.
macro_rules! regs_field {
    ($field:ident) => {
        (::std::mem::offset_of!($crate::cpu::Cpu, regs)
            + ::std::mem::offset_of!($crate::regs::Regs, $field)) as i32
    };
}
pub(super) use regs_field;

/// One of the vectors in [`crate::constants`], `place` bytes into them.
pub fn constant(place: usize) -> Amode<u8> {
    at(RDI, (offset_of!(Cpu, constants) + place) as i32)
}

/// The offset of register slot `slot`.
pub const fn slot_offset(slot: u8) -> i32 {
    regs_field!(x) + 8 * slot as i32
}

/// The offset of vector register `reg`.
pub fn vector_offset(reg: VReg) -> i32 {
    regs_field!(v) + 16 * i32::from(reg.number())
}

/// What the host's flags say of the guest's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flags {
    /// The host subtracted: its carry is the opposite.
    Sub,
    /// The host added.
    Add,
    /// Carry and overflow are clear.
    Logic,
    /// The host compared two numbers of floating point.
    Float,
}

/// Flags that the host has and the vCPU's memory has not.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// How the host came by them,
    pub kind: Flags,
    /// at which width,
    pub wide: bool,
    /// and where the result is.
    pub result: u8,
}

/// Where a loop begins.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// In the guest's page.
    pub offset: u16,
    /// In the code.
    pub at: usize,
    /// Whether the flags are set there before anybody can see them.
    pub sets_flags: bool,
}

/// What is emitted behind the block, because it is rare.
pub enum Cold {
    /// The interpreter goes on at an op.
    Leave(Jump, *const Op, Spill),
    /// The second entry of a TLB's pair is looked at for a right, by the place of its
    /// tag, and the code goes on where it has been found, or the interpreter at an op.
    Second(Jump, usize, usize, *const Op, Spill),
    /// A direct branch is taken, as its op does it.
    Take(Jump, *const Op, u8, Spill),
    /// The run loop is wanted at a branch back.
    Stop(Jump, *const Op, Spill, Option<Pending>),
    /// The interpreter executes one op, and the block goes on behind it.
    Away([Option<Jump>; 2], Op, Resume, Spill),
}

/// Where a block goes on, and which guest register each host register has there.
#[derive(Clone, Copy, Debug)]
pub struct Resume {
    at: Option<usize>,
    held: Spill,
}

/// What is known at one place of a block.
pub struct State {
    /// What was emitted.
    pub asm: Asm,
    /// What remains to be emitted.
    pub cold: Vec<Cold>,
    /// What the host's flags are, if they are the guest's.
    pub flags: Option<Flags>,
    /// Guest registers in host registers.
    pub general: Bank,
    /// The same of vector registers.
    pub vectors: Bank,
    /// Flags that are not in memory yet.
    pub pending: Option<Pending>,
    /// Nobody sees the flags that the current instruction sets.
    pub flags_are_unused: bool,
    /// Where the loop begins, if the block is one.
    pub head: Option<Head>,
    /// FPCR is known to have the default controls.
    pub fp_controls_known: bool,
    /// FPSR is known to have IXC set,
    pub fp_inexact_known: bool,
    /// and is expected to where that is not known.
    pub fp_expects_inexact: bool,
    /// What this host can do.
    pub host: Features,
    /// The current instruction, alone, as the interpreter has it.
    pub alone: Option<Op>,
    /// The block, if its code counts what it executes.
    pub tally: Option<Tally>,
}

impl State {
    /// At the start of a block, behind `gap` bytes that trap.
    pub fn new(gap: u8) -> Self {
        const INT3: u8 = 0xcc;
        let mut code = Vec::with_capacity(1024);
        code.resize(usize::from(gap), INT3);
        Self {
            asm: Asm { code },
            cold: Vec::new(),
            flags: None,
            general: Bank::new(&POOL),
            vectors: Bank::new(&VECTOR_POOL),
            pending: None,
            flags_are_unused: false,
            head: None,
            fp_controls_known: false,
            fp_inexact_known: false,
            fp_expects_inexact: false,
            host: Features::here(),
            alone: None,
            tally: None,
        }
    }

    /// Nothing is known any more: control comes from elsewhere.
    pub fn forget(&mut self) {
        self.general.forget();
        self.vectors.forget();
        self.flags = None;
        self.fp_controls_known = false;
        self.fp_inexact_known = false;
    }

    /// The interpreter goes on at `op` where `jump` is taken.
    pub fn leave_at(&mut self, jump: Jump, op: *const Op) {
        let spill = self.spill();
        self.cold.push(Cold::Leave(jump, op, spill));
    }

    /// Leaves the current instruction, alone, to the interpreter where `jump` is
    /// taken. The host's flags are not known behind it.
    pub fn away_and_back(&mut self, jump: Jump) {
        let spill = self.spill();
        if let Some(Cold::Away([_, second @ None], _, Resume { at: None, .. }, before)) =
            self.cold.last_mut()
            && *before == spill
        {
            *second = Some(jump);
            return;
        }
        let resume = Resume {
            at: None,
            held: spill,
        };
        if let Some(op) = self.alone.clone() {
            self.cold
                .push(Cold::Away([Some(jump), None], op, resume, spill));
        }
    }

    /// Ends the current instruction: what was away comes back here.
    pub fn come_back(&mut self) {
        let held = self.held();
        for cold in &mut self.cold {
            if let Cold::Away(_, _, resume, _) = cold
                && resume.at.is_none()
            {
                *resume = Resume {
                    at: Some(self.asm.code.len()),
                    held,
                };
            }
        }
    }

    /// Emits the way back of [`State::away_and_back`].
    pub fn resume(&mut self, resume: Resume) {
        self.load_all(resume.held);
        let jump = self.asm.jump();
        self.asm.aim(jump, resume.at.unwrap_or_default() as i32);
    }

    /// Begins the next instruction.
    pub fn next(&mut self) {
        self.general.unlock();
        self.vectors.unlock();
        self.flags_are_unused = false;
    }

    /// The host condition that holds when `cond` does, which is not "always".
    /// Uses RAX and RCX where `flags` is no help.
    pub fn condition(&mut self, cond: Cond, flags: Option<Flags>) -> Cc {
        if let Some(cc) = flags.and_then(|flags| direct(cond, flags)) {
            self.flags = flags;
            return cc;
        }
        match cond {
            Cond::Eq | Cond::Ne => {
                emit!(self.asm, cmpq_mi_sxb, at(RDI, regs_field!(zf)), 0);
                either(cond == Cond::Eq, Cc::E)
            }
            Cond::Cs | Cond::Cc => {
                emit!(self.asm, cmpb_mi, at(RDI, regs_field!(cf)), 0);
                either(cond == Cond::Cs, Cc::Ne)
            }
            Cond::Mi | Cond::Pl => {
                emit!(self.asm, cmpq_mi_sxb, at(RDI, regs_field!(nf)), 0);
                either(cond == Cond::Mi, Cc::S)
            }
            Cond::Vs | Cond::Vc => {
                emit!(self.asm, cmpq_mi_sxb, at(RDI, regs_field!(vf)), 0);
                either(cond == Cond::Vs, Cc::S)
            }
            Cond::Hi | Cond::Ls => {
                // C less Z, which is 1 for HI alone.
                emit!(self.asm, cmpq_mi_sxb, at(RDI, regs_field!(zf)), 1);
                emit!(self.asm, sbbq_rm, RAX, RAX);
                emit!(self.asm, movzbl_rm, RCX, at(RDI, regs_field!(cf)));
                emit!(self.asm, addq_rm, RAX, RCX);
                either(cond == Cond::Hi, Cc::G)
            }
            _ => self.signed(cond),
        }
    }

    fn signed(&mut self, cond: Cond) -> Cc {
        emit!(self.asm, movq_rm, RAX, at(RDI, regs_field!(nf)));
        emit!(self.asm, xorq_rm, RAX, at(RDI, regs_field!(vf)));
        if matches!(cond, Cond::Ge | Cond::Lt) {
            return either(cond == Cond::Lt, Cc::S);
        }
        // -1 if N is not V, or -1 if Z.
        emit!(self.asm, sarq_mi, RAX, 63);
        emit!(self.asm, cmpq_mi_sxb, at(RDI, regs_field!(zf)), 1);
        emit!(self.asm, sbbq_rm, RCX, RCX);
        emit!(self.asm, orq_rm, RAX, RCX);
        either(cond == Cond::Gt, Cc::E)
    }

    /// `to = from`, all of it or its lower half.
    pub fn copy(&mut self, wide: bool, to: u8, from: u8) {
        if wide {
            self.asm.copy(to, from);
        } else {
            emit!(self.asm, movl_rm, to, from);
        }
    }

    /// `to += value`, at either width.
    pub fn add_constant(&mut self, wide: bool, to: u8, value: i32) {
        with_imm!(
            self.asm,
            wide,
            [addq_mi_sxb, addq_mi_sxl, addl_mi_sxb, addl_mi],
            to,
            value
        );
    }
}

const _: () = assert!(SINK == 33);

fn either(holds: bool, cc: Cc) -> Cc {
    if holds { cc } else { cc.not() }
}

/// The condition on the host's flags alone, where there is one.
pub fn direct(cond: Cond, flags: Flags) -> Option<Cc> {
    if flags == Flags::Float {
        return Some(match cond {
            Cond::Eq => Cc::E,
            Cond::Ne => Cc::Ne,
            Cond::Cs | Cond::Pl | Cond::Ge => Cc::Ae,
            Cond::Cc | Cond::Mi | Cond::Lt => Cc::B,
            Cond::Hi | Cond::Gt => Cc::A,
            Cond::Ls | Cond::Le => Cc::Be,
            _ => return None,
        });
    }
    Some(match (cond, flags) {
        (Cond::Eq, _) => Cc::E,
        (Cond::Ne, _) => Cc::Ne,
        (Cond::Mi, _) => Cc::S,
        (Cond::Pl, _) => Cc::Ns,
        (Cond::Vs, _) => Cc::O,
        (Cond::Vc, _) => Cc::No,
        (Cond::Ge, _) => Cc::Ge,
        (Cond::Lt, _) => Cc::L,
        (Cond::Gt, _) => Cc::G,
        (Cond::Le, _) => Cc::Le,
        (Cond::Cs, Flags::Sub) | (Cond::Cc, Flags::Add) => Cc::Ae,
        (Cond::Cc, Flags::Sub) | (Cond::Cs, Flags::Add) => Cc::B,
        (Cond::Hi, Flags::Sub) => Cc::A,
        (Cond::Ls, Flags::Sub) => Cc::Be,
        _ => return None,
    })
}
