//! The guest's flags, which the host's become.
//!
//! They are put into the vCPU's memory behind the instruction that sets them, unless
//! another sets them before anybody can see them.

use super::asm::host::{RAX, RDI};
use super::asm::{at, emit};
use super::state::{Flags, Pending, State, regs_field};
use crate::cpu::Cpu;
use crate::decode;
use crate::insn::{Insn, Logic, Reg};
use std::mem::offset_of;

/// What an instruction does to the flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effect {
    /// Sets all, whatever they were.
    Sets,
    /// Nothing, and nobody can see them at it.
    None,
    /// Reads them, or may be left.
    Other,
}

fn effect(insn: &Insn) -> Effect {
    let by = |sets: bool, rd: Reg| match (sets, rd) {
        (true, _) => Effect::Sets,
        // What it does to accesses may be looked at.
        (false, Reg::SP) => Effect::Other,
        (false, _) => Effect::None,
    };
    match *insn {
        Insn::AddSubImm { op, rd, .. }
        | Insn::AddSubShifted { op, rd, .. }
        | Insn::AddSubExtended { op, rd, .. } => by(op.sets_flags(), rd),
        Insn::LogicImm { op, rd, .. } | Insn::LogicShifted { op, rd, .. } => {
            by(op == Logic::Ands, rd)
        }
        Insn::Adr { .. }
        | Insn::Adrp { .. }
        | Insn::MoveImm { .. }
        | Insn::MoveKeep { .. }
        | Insn::Bitfield { .. }
        | Insn::Extract { .. }
        | Insn::OneSource { .. }
        | Insn::TwoSource { .. }
        | Insn::MultiplyAdd { .. }
        | Insn::MultiplyAddLong { .. }
        | Insn::MultiplyHigh { .. } => Effect::None,
        _ => Effect::Other,
    }
}

/// Whether `insn` sets all flags and reads none.
pub fn sets(insn: &Insn) -> bool {
    effect(insn) == Effect::Sets
}

/// Whether the flags in front of `words` are set before anybody can see them.
pub fn are_overwritten(words: &[u32]) -> bool {
    let effects = words.iter().map(|word| effect(&decode::instruction(*word)));
    effects.into_iter().find(|effect| *effect != Effect::None) == Some(Effect::Sets)
}

impl State {
    /// The guest's flags are the host's after an instruction with the result in
    /// `result`, which must stay until [`State::settle`].
    pub fn set_flags(&mut self, kind: Flags, wide: bool, result: u8) {
        if self.flags_are_unused {
            return;
        }
        self.flags = Some(kind);
        self.pending = Some(Pending { kind, wide, result });
    }

    /// Puts flags that the host has into memory; the host's stay. Uses RAX.
    pub fn settle(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.store_flags(pending);
        }
    }

    /// The same for `pending`.
    pub fn store_flags(&mut self, pending: Pending) {
        let Pending { kind, wide, result } = pending;
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBS: u32 = 0xf100_0421;
    const MADD: u32 = 0x9b01_0800;
    const LOAD: u32 = 0xf940_0041;
    const CSEL: u32 = 0x9a82_0020;
    const TO_SP: u32 = 0x9100_043f;

    #[test]
    fn flags_that_are_set_anew_before_anybody_looks_are_not_kept() {
        assert!(sets(&decode::instruction(SUBS)));
        assert!(are_overwritten(&[MADD, SUBS]));
        for seen in [
            &[][..],
            &[MADD],
            &[LOAD, SUBS],
            &[CSEL, SUBS],
            &[TO_SP, SUBS],
        ] {
            assert!(!are_overwritten(seen), "{seen:x?}");
        }
    }
}
