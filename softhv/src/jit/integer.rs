//! Integer data processing.

use super::asm::host::{RAX, RCX, RDI, RDX};
use super::asm::{at, emit, indexed, sized, with_imm};
use super::state::{Flags, State, regs_field};
use crate::insn::{AddSub, Bitfield, Extend, Insn, Logic, Reg, Shift, Width};

impl State {
    /// Emits `insn`, at byte `offset` of its page; false if it is none of these.
    /// `flags` is what the host's are before it.
    pub fn integer(&mut self, insn: &Insn, offset: u16, flags: Option<Flags>) -> bool {
        match *insn {
            Insn::Adr { rd, offset: by } => self.adr(rd, i32::from(offset).wrapping_add(by)),
            Insn::Adrp { rd, offset: by } => match i32::try_from(by) {
                Ok(by) => self.adr(rd, by),
                Err(_) => return false,
            },
            Insn::MoveImm { rd, value, .. } => self.constant(rd, value, flags),
            Insn::AddSubImm {
                op,
                width,
                rd,
                rn,
                imm,
            } => self.add_sub_imm(op, width.is_x(), rd, rn, imm as i32, flags),
            Insn::AddSubShifted {
                op,
                width,
                rd,
                rn,
                rm,
                shift,
                amount,
            } => {
                let m = self.shifted(width.is_x(), rm, shift, amount);
                self.add_sub(op, width.is_x(), rd, rn, m);
            }
            Insn::AddSubExtended {
                op,
                width,
                rd,
                rn,
                rm,
                extend,
                amount,
            } => {
                self.extended(rm, extend, amount);
                self.add_sub(op, width.is_x(), rd, rn, RAX);
            }
            Insn::AddSubCarry {
                op,
                width,
                rd,
                rn,
                rm,
            } => self.with_carry(op, width.is_x(), rd, rn, rm),
            Insn::LogicImm {
                op,
                width,
                rd,
                rn,
                imm,
            } => self.logic_imm(op, width.is_x(), rd, rn, imm, flags),
            Insn::LogicShifted {
                op,
                invert,
                width,
                rd,
                rn,
                rm,
                shift,
                amount,
            } => {
                if op == Logic::Orr && rn.is_zr() && amount == 0 && !invert {
                    self.move_register(width.is_x(), rd, rm, flags);
                    return true;
                }
                let mut m = self.shifted(width.is_x(), rm, shift, amount);
                if invert {
                    self.asm.copy(RAX, m);
                    emit!(self.asm, notq_m, RAX);
                    m = RAX;
                }
                self.logic(op, width.is_x(), rd, rn, m);
            }
            _ => return self.less_common(insn, flags),
        }
        true
    }

    fn less_common(&mut self, insn: &Insn, flags: Option<Flags>) -> bool {
        match *insn {
            Insn::MoveKeep {
                rd, imm, position, ..
            } => self.move_keep(rd, imm, position, insn),
            Insn::Bitfield {
                op,
                width,
                rd,
                rn,
                immr,
                imms,
            } => self.bitfield(op, width, rd, rn, [u32::from(immr), u32::from(imms)]),
            Insn::Extract {
                width,
                rd,
                rn,
                rm,
                lsb,
            } => self.extract(width, rd, rn, rm, lsb),
            Insn::CondSelect {
                op,
                width,
                rd,
                rn,
                rm,
                cond,
            } => self.cond_select(op, width.is_x(), rd, [rn, rm], cond, flags),
            Insn::CondCompare {
                op,
                width,
                rn,
                with,
                nzcv,
                cond,
            } => self.cond_compare(op, width.is_x(), rn, with, nzcv, cond, flags),
            Insn::OneSource { op, width, rd, rn } => return self.one_source(op, width, rd, rn),
            Insn::TwoSource {
                op,
                width,
                rd,
                rn,
                rm,
            } => self.two_source(op, width.is_x(), rd, rn, rm),
            _ => return self.multiply(insn),
        }
        true
    }

    fn adr(&mut self, rd: Reg, by: i32) {
        let d = self.destination(rd, &[]);
        emit!(self.asm, movq_rm, d, at(RDI, regs_field!(page)));
        if by != 0 {
            self.add_constant(true, d, by);
        }
        self.done(rd, d);
    }

    fn constant(&mut self, rd: Reg, value: u64, flags: Option<Flags>) {
        let d = self.destination(rd, &[]);
        self.asm.constant(d, value);
        self.done(rd, d);
        self.flags = flags;
    }

    fn move_register(&mut self, wide: bool, rd: Reg, rm: Reg, flags: Option<Flags>) {
        if rm.is_zr() {
            return self.constant(rd, 0, flags);
        }
        let m = self.read(rm);
        let d = self.destination(rd, &[]);
        self.copy(wide, d, m);
        self.done(rd, d);
        self.flags = flags;
    }

    fn add_sub_imm(
        &mut self,
        op: AddSub,
        wide: bool,
        rd: Reg,
        rn: Reg,
        imm: i32,
        flags: Option<Flags>,
    ) {
        let n = self.read(rn);
        if !op.sets_flags() {
            let d = self.destination(rd, &[]);
            let by = if op.is_sub() { -imm } else { imm };
            sized!(self.asm, wide, leaq_rm, leal_rm, d, at(n, by));
            self.done(rd, d);
            self.flags = flags;
            return;
        }
        let d = self.destination(rd, &[]);
        self.asm.copy(d, n);
        if op.is_sub() {
            with_imm!(
                self.asm,
                wide,
                [subq_mi_sxb, subq_mi_sxl, subl_mi_sxb, subl_mi],
                d,
                imm
            );
        } else {
            self.add_constant(wide, d, imm);
        }
        self.done(rd, d);
        self.set_flags(sum_flags(op), wide, d);
    }

    /// Rm shifted: in a register of it or in RAX.
    fn shifted(&mut self, wide: bool, rm: Reg, shift: Shift, amount: u8) -> u8 {
        let m = self.read(rm);
        if amount == 0 {
            return m;
        }
        self.asm.copy(RAX, m);
        match shift {
            Shift::Lsl => sized!(self.asm, wide, shlq_mi, shll_mi, RAX, amount),
            Shift::Lsr => sized!(self.asm, wide, shrq_mi, shrl_mi, RAX, amount),
            Shift::Asr => sized!(self.asm, wide, sarq_mi, sarl_mi, RAX, amount),
            Shift::Ror => sized!(self.asm, wide, rorq_mi, rorl_mi, RAX, amount),
        }
        RAX
    }

    /// RAX = Rm extended and shifted left.
    pub fn extended(&mut self, rm: Reg, extend: Extend, amount: u8) {
        let m = self.read(rm);
        match extend {
            Extend::Uxtb => emit!(self.asm, movzbl_rm, RAX, m),
            Extend::Uxth => emit!(self.asm, movzwl_rm, RAX, m),
            Extend::Uxtw => emit!(self.asm, movl_rm, RAX, m),
            Extend::Sxtb => emit!(self.asm, movsbq_rm, RAX, m),
            Extend::Sxth => emit!(self.asm, movswq_rm, RAX, m),
            Extend::Sxtw => emit!(self.asm, movslq_rm, RAX, m),
            Extend::Uxtx | Extend::Sxtx => self.asm.copy(RAX, m),
        }
        if amount != 0 {
            emit!(self.asm, shlq_mi, RAX, amount);
        }
    }

    /// Rd = Rn plus or minus host register `m`, which may be RAX.
    fn add_sub(&mut self, op: AddSub, wide: bool, rd: Reg, rn: Reg, m: u8) {
        let n = self.read(rn);
        if op == AddSub::Add {
            let d = self.destination(rd, &[]);
            sized!(self.asm, wide, leaq_rm, leal_rm, d, indexed(n, m, 0));
            self.done(rd, d);
            return;
        }
        let d = self.result(rd, m);
        self.asm.copy(d, n);
        if op.is_sub() {
            sized!(self.asm, wide, subq_rm, subl_rm, d, m);
        } else {
            sized!(self.asm, wide, addq_rm, addl_rm, d, m);
        }
        self.done(rd, d);
        if op.sets_flags() {
            self.set_flags(sum_flags(op), wide, d);
        }
    }

    /// Where the result goes that is made of a first operand there and then of `m`.
    fn result(&mut self, rd: Reg, m: u8) -> u8 {
        let d = self.destination(rd, &[m]);
        // RAX is what a result for XZR is made in.
        if d == m { RDX } else { d }
    }

    fn with_carry(&mut self, op: AddSub, wide: bool, rd: Reg, rn: Reg, rm: Reg) {
        let (n, m) = (self.read(rn), self.read(rm));
        let carry = at(RDI, regs_field!(cf));
        self.copy(wide, RDX, n);
        if op.is_sub() {
            // The host's carry is a borrow.
            emit!(self.asm, cmpb_mi, carry, 1);
            sized!(self.asm, wide, sbbq_rm, sbbl_rm, RDX, m);
        } else {
            emit!(self.asm, movzbl_rm, RAX, carry);
            emit!(self.asm, negl_m, RAX);
            sized!(self.asm, wide, adcq_rm, adcl_rm, RDX, m);
        }
        self.set(rd, RDX);
        if op.sets_flags() {
            self.set_flags(sum_flags(op), wide, RDX);
        }
    }

    fn logic_imm(
        &mut self,
        op: Logic,
        wide: bool,
        rd: Reg,
        rn: Reg,
        imm: u64,
        flags: Option<Flags>,
    ) {
        if op == Logic::Orr && rn.is_zr() {
            return self.constant(rd, imm, flags);
        }
        let n = self.read(rn);
        let short = if wide {
            i32::try_from(imm as i64).ok()
        } else {
            Some(imm as u32 as i32)
        };
        let Some(short) = short else {
            self.asm.constant(RCX, imm);
            return self.logic(op, wide, rd, rn, RCX);
        };
        let d = self.destination(rd, &[]);
        self.asm.copy(d, n);
        match op {
            Logic::And | Logic::Ands => {
                with_imm!(
                    self.asm,
                    wide,
                    [andq_mi_sxb, andq_mi_sxl, andl_mi_sxb, andl_mi],
                    d,
                    short
                );
            }
            Logic::Orr => {
                with_imm!(
                    self.asm,
                    wide,
                    [orq_mi_sxb, orq_mi_sxl, orl_mi_sxb, orl_mi],
                    d,
                    short
                );
            }
            Logic::Eor => {
                with_imm!(
                    self.asm,
                    wide,
                    [xorq_mi_sxb, xorq_mi_sxl, xorl_mi_sxb, xorl_mi],
                    d,
                    short
                );
            }
        }
        self.done(rd, d);
        if op == Logic::Ands {
            self.set_flags(Flags::Logic, wide, d);
        }
    }

    /// Rd = Rn and host register `m`, which may be RAX or RCX.
    fn logic(&mut self, op: Logic, wide: bool, rd: Reg, rn: Reg, m: u8) {
        let n = self.read(rn);
        let d = self.result(rd, m);
        self.asm.copy(d, n);
        match op {
            Logic::And | Logic::Ands => sized!(self.asm, wide, andq_rm, andl_rm, d, m),
            Logic::Orr => sized!(self.asm, wide, orq_rm, orl_rm, d, m),
            Logic::Eor => sized!(self.asm, wide, xorq_rm, xorl_rm, d, m),
        }
        self.done(rd, d);
        if op == Logic::Ands {
            self.set_flags(Flags::Logic, wide, d);
        }
    }

    fn move_keep(&mut self, rd: Reg, imm: u16, position: u8, insn: &Insn) {
        let wide = matches!(insn, Insn::MoveKeep { width, .. } if width.is_x());
        let old = self.read(rd);
        self.copy(wide, RAX, old);
        self.asm.constant(RCX, !(0xffff << position));
        emit!(self.asm, andq_rm, RAX, RCX);
        self.asm.constant(RCX, u64::from(imm) << position);
        emit!(self.asm, orq_rm, RAX, RCX);
        self.set(rd, RAX);
    }

    fn bitfield(&mut self, op: Bitfield, width: Width, rd: Reg, rn: Reg, [r, s]: [u32; 2]) {
        let (wide, size) = (width.is_x(), width.bits());
        let n = self.read(rn);
        if op == Bitfield::Insert {
            return self.insert(wide, rd, n, [r, s]);
        }
        let d = self.destination(rd, &[]);
        let signed = op == Bitfield::Signed;
        match (signed, r, s) {
            (false, 0, 7) => emit!(self.asm, movzbl_rm, d, n),
            (false, 0, 15) => emit!(self.asm, movzwl_rm, d, n),
            (false, 0, 31) => emit!(self.asm, movl_rm, d, n),
            (true, 0, 7) => sized!(self.asm, wide, movsbq_rm, movsbl_rm, d, n),
            (true, 0, 15) => sized!(self.asm, wide, movswq_rm, movswl_rm, d, n),
            (true, 0, 31) => sized!(self.asm, wide, movslq_rm, movl_rm, d, n),
            _ => {
                // The field at the top, and then down to where it belongs.
                let up = size - 1 - s;
                let down = if s >= r { up + r } else { r - s - 1 };
                self.asm.copy(d, n);
                if up != 0 {
                    sized!(self.asm, wide, shlq_mi, shll_mi, d, up as u8);
                }
                if down != 0 && signed {
                    sized!(self.asm, wide, sarq_mi, sarl_mi, d, down as u8);
                } else if down != 0 {
                    sized!(self.asm, wide, shrq_mi, shrl_mi, d, down as u8);
                }
            }
        }
        self.done(rd, d);
    }

    /// BFM.
    fn insert(&mut self, wide: bool, rd: Reg, n: u8, [r, s]: [u32; 2]) {
        if rd.is_zr() {
            return;
        }
        let size = if wide { 64 } else { 32 };
        let ones = |count: u32| u64::MAX >> (64 - count);
        let mask = if s >= r {
            ones(s - r + 1)
        } else {
            ones(s + 1) << (size - r)
        };
        self.copy(wide, RAX, n);
        if r != 0 {
            sized!(self.asm, wide, rorq_mi, rorl_mi, RAX, r as u8);
        }
        let old = self.read(rd);
        self.copy(wide, RDX, old);
        // Differing bits under the mask are turned over.
        emit!(self.asm, xorq_rm, RAX, RDX);
        self.asm.constant(RCX, mask);
        emit!(self.asm, andq_rm, RAX, RCX);
        emit!(self.asm, xorq_rm, RAX, RDX);
        self.set(rd, RAX);
    }

    fn extract(&mut self, width: Width, rd: Reg, rn: Reg, rm: Reg, lsb: u8) {
        let wide = width.is_x();
        let (n, m) = (self.read(rn), self.read(rm));
        if lsb == 0 {
            self.copy(wide, RAX, m);
        } else {
            self.copy(wide, RAX, n);
            let by = width.bits() as u8 - lsb;
            sized!(self.asm, wide, shldq_mri, shldl_mri, RAX, m, by);
        }
        self.set(rd, RAX);
    }
}

/// What the host's flags are after an addition or a subtraction.
pub(super) fn sum_flags(op: AddSub) -> Flags {
    if op.is_sub() { Flags::Sub } else { Flags::Add }
}
