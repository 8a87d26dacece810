//! What depends on a condition, but branches.

use super::asm::host::{RAX, RCX, RDI, RDX};
use super::asm::{at, emit, sized};
use super::integer::sum_flags;
use super::state::{Flags, State, regs_field};
use crate::insn::{AddSub, Cond, Reg, RegOrImm, Select};
use crate::regs::Regs;

impl State {
    pub(super) fn cond_select(
        &mut self,
        op: Select,
        wide: bool,
        rd: Reg,
        [rn, rm]: [Reg; 2],
        cond: Cond,
        flags: Option<Flags>,
    ) {
        let (n, m) = (self.read(rn), self.read(rm));
        let cc = (!cond.is_always()).then(|| self.condition(cond, flags));
        // Nothing below changes the host's flags, but the last of them.
        match op {
            Select::Plain => self.copy(wide, RDX, m),
            Select::Increment => sized!(self.asm, wide, leaq_rm, leal_rm, RDX, at(m, 1)),
            Select::Invert | Select::Negate => {
                self.asm.copy(RDX, m);
                emit!(self.asm, notq_m, RDX);
                let by = i32::from(op == Select::Negate);
                sized!(self.asm, wide, leaq_rm, leal_rm, RDX, at(RDX, by));
            }
        }
        self.copy(wide, RAX, n);
        match cc {
            Some(cc) => self.asm.select(cc, RDX, RAX),
            None => self.asm.copy(RDX, RAX),
        }
        self.set(rd, RDX);
    }

    #[allow(clippy::too_many_arguments, reason = "the instruction has them")]
    pub(super) fn cond_compare(
        &mut self,
        op: AddSub,
        wide: bool,
        rn: Reg,
        with: RegOrImm,
        nzcv: u8,
        cond: Cond,
        flags: Option<Flags>,
    ) {
        let n = self.read(rn);
        let m = match with {
            RegOrImm::Reg(rm) => Some(self.read(rm)),
            RegOrImm::Imm(_) => None,
        };
        let otherwise = if cond.is_always() {
            None
        } else {
            let cc = self.condition(cond, flags);
            Some(self.asm.jump_if(cc.not()))
        };
        let m = m.unwrap_or(RCX);
        if let RegOrImm::Imm(imm) = with {
            self.asm.constant(RCX, u64::from(imm));
        }
        self.copy(wide, RDX, n);
        if op.is_sub() {
            sized!(self.asm, wide, subq_rm, subl_rm, RDX, m);
        } else {
            sized!(self.asm, wide, addq_rm, addl_rm, RDX, m);
        }
        self.set_flags(sum_flags(op), wide, RDX);
        self.settle();
        if let Some(otherwise) = otherwise {
            let end = self.asm.jump();
            self.asm.land(otherwise);
            let mut regs = Regs::default();
            regs.set_nzcv(u64::from(nzcv) << 28);
            let fields = [
                (regs_field!(nf), regs.nf),
                (regs_field!(zf), regs.zf),
                (regs_field!(cf), regs.cf),
                (regs_field!(vf), regs.vf),
            ];
            for (field, value) in fields {
                self.asm.constant(RAX, value);
                emit!(self.asm, movq_mr, at(RDI, field), RAX);
            }
            self.asm.land(end);
            self.flags = None;
        }
    }
}
