//! The state of a block while it is compiled: which host register has which
//! guest register, and where the flags are.
//!
//! Every result is stored to the vCPU at once, so that its memory is right at
//! every instruction: a compiled block can be left anywhere, for the interpreter
//! to go on. Host registers only save loads.

use super::asm::host::{R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI};
use super::asm::{Asm, Cc, Features, Jump, at, emit, with_imm};
use crate::cpu::Cpu;
use crate::cpu::op::{Op, SINK};
use crate::insn::{Cond, Reg};
use std::mem::offset_of;

/// Host registers that keep guest registers. RDI has the vCPU; RAX, RCX, RDX and
/// RSI are for one instruction.
const POOL: [u8; 10] = [RBX, RBP, R8, R9, R10, R11, R12, R13, R14, R15];
/// In place of a register.
const NONE: u8 = 0xff;

/// The offset of a field of the register file from the vCPU.
macro_rules! regs_field {
    ($field:ident) => {
        (::std::mem::offset_of!($crate::cpu::Cpu, regs)
            + ::std::mem::offset_of!($crate::regs::Regs, $field)) as i32
    };
}
pub(super) use regs_field;

/// The offset of register slot `slot`.
pub const fn slot_offset(slot: u8) -> i32 {
    regs_field!(x) + 8 * slot as i32
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

/// What is emitted behind the block, because it is rare.
pub enum Cold {
    /// The interpreter goes on at an op.
    Leave(Jump, *const Op),
    /// A direct branch is taken, as its op does it.
    Take(Jump, *const Op, u8),
    /// The interpreter executes one op, and the block goes on behind it.
    Away([Option<Jump>; 2], Op, Resume),
}

/// Where a block goes on, and which guest register each host register has there.
#[derive(Clone, Copy, Debug)]
pub struct Resume {
    at: Option<usize>,
    held: [u8; 16],
}

/// What is known at one place of a block.
pub struct State {
    /// What was emitted.
    pub asm: Asm,
    /// What remains to be emitted.
    pub cold: Vec<Cold>,
    /// What the host's flags are, if they are the guest's.
    pub flags: Option<Flags>,
    map: [u8; 34],
    held: [u8; 16],
    turn: usize,
    /// Host registers that the current instruction uses.
    locked: u16,
    /// FPCR is known to have the default controls.
    pub fp_controls_known: bool,
    /// What this host can do.
    pub host: Features,
    /// The current instruction, alone, as the interpreter has it.
    pub alone: Option<Op>,
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
            map: [NONE; 34],
            held: [NONE; 16],
            turn: 0,
            locked: 0,
            fp_controls_known: false,
            host: Features::here(),
            alone: None,
        }
    }

    /// Nothing is known any more: control comes from elsewhere.
    pub fn forget(&mut self) {
        self.map = [NONE; 34];
        self.held = [NONE; 16];
        self.flags = None;
        self.fp_controls_known = false;
    }

    /// Leaves the current instruction, alone, to the interpreter where `jump` is
    /// taken. The host's flags are not known behind it.
    pub fn away_and_back(&mut self, jump: Jump) {
        if let Some(Cold::Away([_, second @ None], _, Resume { at: None, .. })) =
            self.cold.last_mut()
        {
            *second = Some(jump);
            return;
        }
        let resume = Resume {
            at: None,
            held: self.held,
        };
        if let Some(op) = self.alone.clone() {
            self.cold.push(Cold::Away([Some(jump), None], op, resume));
        }
    }

    /// Ends the current instruction: what was away comes back here.
    pub fn come_back(&mut self) {
        for cold in &mut self.cold {
            if let Cold::Away(_, _, resume) = cold
                && resume.at.is_none()
            {
                *resume = Resume {
                    at: Some(self.asm.code.len()),
                    held: self.held,
                };
            }
        }
    }

    /// Emits the way back of [`State::away_and_back`].
    pub fn resume(&mut self, resume: Resume) {
        for (host, slot) in (0u8..).zip(resume.held) {
            if slot != NONE {
                emit!(self.asm, movq_rm, host, at(RDI, slot_offset(slot)));
            }
        }
        let jump = self.asm.jump();
        self.asm.aim(jump, resume.at.unwrap_or_default() as i32);
    }

    /// Begins the next instruction.
    pub fn next(&mut self) {
        self.locked = 0;
    }

    fn pick(&mut self, slot: u8) -> u8 {
        loop {
            let host = POOL[self.turn];
            self.turn = (self.turn + 1) % POOL.len();
            if self.locked & 1 << host != 0 {
                continue;
            }
            let before = std::mem::replace(&mut self.held[usize::from(host)], slot);
            if before != NONE {
                self.map[usize::from(before)] = NONE;
            }
            self.map[usize::from(slot)] = host;
            self.locked |= 1 << host;
            return host;
        }
    }

    /// The host register that has register slot `slot`, for this instruction.
    pub fn read_slot(&mut self, slot: u8) -> u8 {
        let host = self.map[usize::from(slot)];
        if host != NONE {
            self.locked |= 1 << host;
            return host;
        }
        let host = self.pick(slot);
        emit!(self.asm, movq_rm, host, at(RDI, slot_offset(slot)));
        host
    }

    /// The host register that has `reg`, for this instruction.
    pub fn read(&mut self, reg: Reg) -> u8 {
        self.read_slot(reg.number())
    }

    /// The host register that is to get `rd`, none of those in `not`.
    /// [`State::done`] stores it.
    pub fn destination(&mut self, rd: Reg, not: &[u8]) -> u8 {
        if rd.is_zr() {
            return RAX;
        }
        let slot = rd.number();
        let host = self.map[usize::from(slot)];
        if host != NONE && !not.contains(&host) {
            self.locked |= 1 << host;
            return host;
        }
        if host != NONE {
            self.held[usize::from(host)] = NONE;
        }
        self.pick(slot)
    }

    /// Stores what `host`, which [`State::destination`] gave, has for `rd`.
    pub fn done(&mut self, rd: Reg, host: u8) {
        if !rd.is_zr() {
            emit!(self.asm, movq_mr, at(RDI, slot_offset(rd.number())), host);
        }
    }

    /// Sets `rd` to what a register for one instruction has.
    pub fn set(&mut self, rd: Reg, from: u8) {
        if rd.is_zr() {
            return;
        }
        let host = self.destination(rd, &[]);
        self.asm.copy(host, from);
        self.done(rd, host);
    }

    /// Sets the guest's flags to the host's after an instruction with the result
    /// in `result`; the host's stay. Uses RAX, and `result` may be that.
    pub fn set_flags(&mut self, kind: Flags, wide: bool, result: u8) {
        let sign = if wide {
            result
        } else {
            emit!(self.asm, movslq_rm, RAX, result);
            RAX
        };
        emit!(self.asm, movq_mr, at(RDI, regs_field!(nf)), sign);
        emit!(self.asm, movq_mr, at(RDI, regs_field!(zf)), sign);
        let (carry, overflow) = (at(RDI, regs_field!(cf)), at(RDI, regs_field!(vf)));
        match kind {
            Flags::Logic | Flags::Float => {
                emit!(self.asm, movq_mi_sxl, carry, 0);
                emit!(self.asm, movq_mi_sxl, overflow, 0);
            }
            Flags::Sub | Flags::Add => {
                // The other seven bytes are always zero.
                if kind == Flags::Sub {
                    emit!(self.asm, setae_m, carry);
                } else {
                    emit!(self.asm, setb_m, carry);
                }
                emit!(self.asm, movl_oi, RAX, 0u32);
                let one = at(RDI, offset_of!(Cpu, overflow) as i32);
                emit!(self.asm, cmovoq_rm, RAX, one);
                emit!(self.asm, movq_mr, overflow, RAX);
            }
        }
        self.flags = Some(kind);
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
fn direct(cond: Cond, flags: Flags) -> Option<Cc> {
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
