//! Operations of one and two registers without flags: counts, shifts, products and
//! quotients.

use super::asm::host::{RAX, RCX, RDX};
use super::asm::{Cc, NO_TRAP, emit, sized};
use super::state::State;
use crate::insn::{Insn, OneSource, Reg, TwoSource, Width};

impl State {
    pub(super) fn one_source(&mut self, op: OneSource, width: Width, rd: Reg, rn: Reg) -> bool {
        let wide = width.is_x();
        match op {
            OneSource::Rev | OneSource::Rev32 => {
                let n = self.read(rn);
                self.asm.copy(RAX, n);
                sized!(self.asm, wide, bswapq_o, bswapl_o, RAX);
                if op == OneSource::Rev32 && wide {
                    emit!(self.asm, rorq_mi, RAX, 32);
                }
            }
            OneSource::Clz => {
                let n = self.read(rn);
                let size = width.bits();
                // The highest bit's number, and for none what becomes `size`.
                emit!(self.asm, movl_oi, RAX, 2 * size - 1);
                sized!(self.asm, wide, bsrq_rm, bsrl_rm, RCX, n);
                self.asm.select(Cc::E, RCX, RAX);
                emit!(self.asm, movl_rm, RAX, RCX);
                emit!(self.asm, xorl_mi, RAX, size - 1);
            }
            OneSource::Rbit => self.reverse_bits(wide, rn),
            OneSource::Rev16 => {
                let n = self.read(rn);
                self.copy(wide, RAX, n);
                self.exchange(wide, 8, 0x00ff_00ff_00ff_00ff);
            }
            OneSource::Cls => return false,
        }
        self.set(rd, RAX);
        true
    }

    /// RAX = the bits of `rn` from the last to the first. Uses RCX and RDX.
    fn reverse_bits(&mut self, wide: bool, rn: Reg) {
        let n = self.read(rn);
        self.copy(wide, RAX, n);
        sized!(self.asm, wide, bswapq_o, bswapl_o, RAX);
        // Halves of bytes change places, then halves of those, then bits.
        for (by, low) in [
            (4, 0x0f0f_0f0f_0f0f_0f0f),
            (2, 0x3333_3333_3333_3333),
            (1, 0x5555_5555_5555_5555),
        ] {
            self.exchange(wide, by, low);
        }
    }

    /// The bits of RAX that `low` has change places with those `by` above. Uses RCX and
    /// RDX.
    fn exchange(&mut self, wide: bool, by: u8, low: u64) {
        let low = if wide { low } else { low & 0xffff_ffff };
        self.asm.constant(RDX, low);
        self.asm.copy(RCX, RAX);
        emit!(self.asm, andq_rm, RCX, RDX);
        emit!(self.asm, shrq_mi, RAX, by);
        emit!(self.asm, andq_rm, RAX, RDX);
        emit!(self.asm, shlq_mi, RCX, by);
        emit!(self.asm, orq_rm, RAX, RCX);
    }

    pub(super) fn two_source(&mut self, op: TwoSource, wide: bool, rd: Reg, rn: Reg, rm: Reg) {
        let (n, m) = (self.read(rn), self.read(rm));
        // Results are made in RAX.
        let by_cl = matches!(
            op,
            TwoSource::Lslv | TwoSource::Lsrv | TwoSource::Asrv | TwoSource::Rorv
        );
        self.copy(wide, RCX, m);
        self.copy(wide, RAX, n);
        if by_cl {
            match op {
                TwoSource::Lslv => sized!(self.asm, wide, shlq_mc, shll_mc, RAX, RCX),
                TwoSource::Lsrv => sized!(self.asm, wide, shrq_mc, shrl_mc, RAX, RCX),
                TwoSource::Asrv => sized!(self.asm, wide, sarq_mc, sarl_mc, RAX, RCX),
                _ => sized!(self.asm, wide, rorq_mc, rorl_mc, RAX, RCX),
            }
        } else {
            self.divide(op == TwoSource::Sdiv, wide);
        }
        self.set(rd, RAX);
    }

    /// RAX = RAX by RCX, as the guest has it. Uses RDX.
    fn divide(&mut self, signed: bool, wide: bool) {
        sized!(self.asm, wide, testq_mr, testl_mr, RCX, RCX);
        let some = self.asm.jump_if(Cc::Ne);
        self.asm.constant(RAX, 0);
        let zero = self.asm.jump();
        self.asm.land(some);
        if signed {
            // The one quotient that the host does not have is of -1.
            sized!(self.asm, wide, cmpq_mi_sxb, cmpl_mi_sxb, RCX, -1);
            let usual = self.asm.jump_if(Cc::Ne);
            sized!(self.asm, wide, negq_m, negl_m, RAX);
            let negated = self.asm.jump();
            self.asm.land(usual);
            if wide {
                emit!(self.asm, cqto_zo, RDX, RAX);
            } else {
                emit!(self.asm, cltd_zo, RDX, RAX);
            }
            sized!(self.asm, wide, idivq_m, idivl_m, RAX, RDX, RCX, NO_TRAP);
            self.asm.land(negated);
        } else {
            self.asm.constant(RDX, 0);
            sized!(self.asm, wide, divq_m, divl_m, RAX, RDX, RCX, NO_TRAP);
        }
        self.asm.land(zero);
    }

    pub(super) fn multiply(&mut self, insn: &Insn) -> bool {
        match *insn {
            Insn::MultiplyAdd {
                subtract,
                width,
                rd,
                rn,
                rm,
                ra,
            } => {
                let (n, m) = (self.read(rn), self.read(rm));
                self.asm.copy(RAX, n);
                let wide = width.is_x();
                sized!(self.asm, wide, imulq_rm, imull_rm, RAX, m);
                self.accumulate(subtract, wide, rd, ra);
            }
            Insn::MultiplyAddLong {
                signed,
                subtract,
                rd,
                rn,
                rm,
                ra,
            } => {
                let (n, m) = (self.read(rn), self.read(rm));
                if signed {
                    emit!(self.asm, movslq_rm, RAX, n);
                    emit!(self.asm, movslq_rm, RCX, m);
                } else {
                    emit!(self.asm, movl_rm, RAX, n);
                    emit!(self.asm, movl_rm, RCX, m);
                }
                emit!(self.asm, imulq_rm, RAX, RCX);
                self.accumulate(subtract, true, rd, ra);
            }
            Insn::MultiplyHigh { signed, rd, rn, rm } => {
                let (n, m) = (self.read(rn), self.read(rm));
                self.asm.copy(RAX, n);
                if signed {
                    emit!(self.asm, imulq_m, RAX, RDX, m);
                } else {
                    emit!(self.asm, mulq_m, RAX, RDX, m);
                }
                self.set(rd, RDX);
            }
            _ => return false,
        }
        true
    }

    /// Rd = Ra plus or minus RAX.
    fn accumulate(&mut self, subtract: bool, wide: bool, rd: Reg, ra: Reg) {
        if subtract {
            let a = self.read(ra);
            self.copy(wide, RDX, a);
            sized!(self.asm, wide, subq_rm, subl_rm, RDX, RAX);
            return self.set(rd, RDX);
        }
        if !ra.is_zr() {
            let a = self.read(ra);
            sized!(self.asm, wide, addq_rm, addl_rm, RAX, a);
        }
        self.set(rd, RAX);
    }
}
