//! Scalar floating point on the host's, where that gives the guest's result: under
//! the guest's default controls, a result that is plainly a number (see
//! [`crate::fp::native`]). All else goes to the op's handler, and comes back.

use super::asm::host::{RAX, RCX, RDI, RDX};
use super::asm::{Cc, at, emit, indexed_by, sized};
use super::memory::{XMM0, XMM1, XMM2};
use super::state::{Flags, State, regs_field};
use crate::cpu::Cpu;
use crate::cpu::op::Op;
use crate::fp::format::IXC;
use crate::fp::native::CONTROL;
use crate::insn::{Cond, FpBinary, FpFormat, FpMove, FpUnary, Insn, Reg, Rounding, VReg, Width};
use std::mem::offset_of;

/// Which exponents are of results that raise nothing new.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// All but those of infinities and NaNs: a tiny sum is exact.
    Finite,
    /// Nor those of tiny numbers and zero.
    Normal,
}

impl State {
    /// Emits `insn`, whose op is `op`; false if it is none of these. `flags` is what
    /// the host's are before it.
    pub fn float(&mut self, insn: &Insn, op: &Op, flags: Option<Flags>) -> bool {
        match *insn {
            Insn::FpBinary {
                op: what,
                format,
                rd,
                rn,
                rm,
            } if format != FpFormat::H => self.fp_binary(what, format, [rd, rn, rm], op),
            Insn::FpUnary {
                op: what,
                format,
                rd,
                rn,
            } if format != FpFormat::H => {
                self.fp_unary(what, format == FpFormat::D, rd, rn, op);
                true
            }
            Insn::FpMultiplyAdd {
                negate_addend,
                negate_product,
                format,
                rd,
                rn,
                rm,
                ra,
            } if format != FpFormat::H && self.host.fma => {
                let double = format == FpFormat::D;
                self.fp_inexact(op);
                self.fp_load(double, XMM0, ra);
                let [n, m] = [rn, rm].map(|reg| self.v_read(reg));
                let a = XMM0;
                let asm = &mut self.asm;
                match (negate_addend, negate_product) {
                    (false, false) => {
                        sized!(*asm, double, vfmadd231sd_a, vfmadd231ss_a, a, n, m);
                    }
                    (false, true) => {
                        sized!(*asm, double, vfnmadd231sd_a, vfnmadd231ss_a, a, n, m);
                    }
                    (true, true) => {
                        sized!(*asm, double, vfnmsub231sd_a, vfnmsub231ss_a, a, n, m);
                    }
                    (true, false) => {
                        sized!(*asm, double, vfmsub231sd_a, vfmsub231ss_a, a, n, m);
                    }
                }
                self.fp_result(double, rd, Plain::Normal);
                true
            }
            Insn::FpCompare { format, rn, rm, .. } if format != FpFormat::H => {
                self.fp_compare(format == FpFormat::D, rn, rm, op);
                true
            }
            Insn::FpImm { rd, bits, .. } => {
                self.asm.constant(RAX, bits);
                self.put_scalar(rd, RAX);
                self.flags = None;
                true
            }
            Insn::FpSelect {
                format,
                rd,
                rn,
                rm,
                cond,
            } if format != FpFormat::H => {
                self.fp_select(format == FpFormat::D, rd, [rn, rm], cond, flags);
                true
            }
            _ => self.fp_moves(insn, op),
        }
    }

    fn fp_moves(&mut self, insn: &Insn, op: &Op) -> bool {
        match *insn {
            Insn::FpToGeneral { part, rd, rn } => {
                match part {
                    FpMove::S => self.v_low(false, RAX, rn),
                    FpMove::D => self.v_low(true, RAX, rn),
                    FpMove::Top => {
                        let from = self.v_memory(rn, 8);
                        emit!(self.asm, movq_rm, RAX, from);
                    }
                }
                self.set(rd, RAX);
            }
            Insn::FpFromGeneral { part, rd, rn } => {
                let n = self.read(rn);
                match part {
                    FpMove::S => {
                        emit!(self.asm, movl_rm, RAX, n);
                        self.put_scalar(rd, RAX);
                    }
                    FpMove::D => self.put_scalar(rd, n),
                    FpMove::Top => {
                        let to = self.v_memory(rd, 8);
                        emit!(self.asm, movq_mr, to, n);
                        self.v_changed(rd);
                    }
                }
            }
            Insn::FpConvert { from, to, rd, rn } => match (from, to) {
                (FpFormat::S, FpFormat::D) => {
                    self.fp_controls(op);
                    self.fp_load(false, XMM0, rn);
                    emit!(self.asm, ucomiss_a, XMM0, XMM0);
                    let nan = self.asm.jump_if(Cc::P);
                    self.away_and_back(nan);
                    emit!(self.asm, cvtss2sd_a, XMM0, XMM0);
                    self.put_low(rd, XMM0);
                }
                (FpFormat::D, FpFormat::S) => {
                    self.fp_inexact(op);
                    let n = self.v_read(rn);
                    emit!(self.asm, xorps_a, XMM0, XMM0);
                    emit!(self.asm, cvtsd2ss_a, XMM0, n);
                    self.fp_result(false, rd, Plain::Normal);
                }
                _ => return false,
            },
            Insn::FpFromInt {
                format,
                width,
                signed,
                fraction: 0,
                rd,
                rn,
            } if format != FpFormat::H => {
                self.fp_from_int(format == FpFormat::D, width, signed, rd, rn, op);
            }
            Insn::FpToInt {
                format,
                width,
                signed,
                rounding: Rounding::Zero,
                fraction: 0,
                rd,
                rn,
            } if format != FpFormat::H => {
                self.fp_truncate(format == FpFormat::D, width, signed, rd, rn, op);
            }
            _ => return false,
        }
        true
    }

    /// Goes to `op`, for the rest of the block, unless FPCR has its default controls.
    pub fn fp_controls(&mut self, op: &Op) {
        if self.fp_controls_known {
            return;
        }
        const { assert!(CONTROL <= u32::MAX as u64) };
        let controls = at(RDI, regs_field!(fpcr));
        emit!(self.asm, testl_mi, controls, CONTROL as u32);
        let other = self.asm.jump_if(Cc::Ne);
        self.leave_at(other, op);
        self.fp_controls_known = true;
    }

    /// The same, and makes sure that IXC is set, so that an inexact result changes
    /// nothing: it stays set in a block. Where it is not, `op` is done by its handler, or
    /// all from there on if that is not to be expected.
    pub fn fp_inexact(&mut self, op: &Op) {
        self.fp_controls(op);
        if self.fp_inexact_known {
            return;
        }
        emit!(self.asm, testl_mi, at(RDI, regs_field!(fpsr)), IXC as u32);
        let clear = self.asm.jump_if(Cc::E);
        if self.fp_expects_inexact {
            self.leave_at(clear, op);
            self.fp_inexact_known = true;
        } else {
            self.away_and_back(clear);
        }
    }

    /// Host register `to` = the number in `from`; the rest of it becomes zero.
    fn fp_load(&mut self, double: bool, to: u8, from: VReg) {
        let from = self.v_read(from);
        if double {
            return self.asm.low_half(to, from);
        }
        emit!(self.asm, xorps_a, to, to);
        emit!(self.asm, movss_a_r, to, from);
    }

    /// `rd` = what general host register `from` has; the rest of it becomes zero.
    fn put_scalar(&mut self, rd: VReg, from: u8) {
        let to = self.v_set(rd);
        emit!(self.asm, movq_a, to, from);
    }

    /// `rd` = what vector host register `from` has.
    fn put_low(&mut self, rd: VReg, from: u8) {
        let to = self.v_set(rd);
        emit!(self.asm, movaps_a, to, from);
    }

    /// `rd` = XMM0, whose rest is zero, if it is `plain`; else `op` does it.
    fn fp_result(&mut self, double: bool, rd: VReg, plain: Plain) {
        // Twice the upper 32 bits, which have no sign then but all of the exponent.
        let (fraction, exponents) = if double { (21, 0x7ff) } else { (24, 0xff) };
        if double {
            emit!(self.asm, movq_b, RAX, XMM0);
            emit!(self.asm, shrq_mi, RAX, 32);
        } else {
            emit!(self.asm, movd_b, RAX, XMM0);
        }
        let floor = match plain {
            Plain::Normal => 2_u32 << fraction,
            Plain::Finite => 0,
        };
        let twice = indexed_by(RAX, RAX, -(floor as i32));
        emit!(self.asm, leal_rm, RAX, twice);
        emit!(self.asm, cmpl_mi, RAX, (exponents << fraction) - floor);
        let special = self.asm.jump_if(Cc::Ae);
        self.away_and_back(special);
        self.put_low(rd, XMM0);
    }

    fn fp_binary(&mut self, what: FpBinary, format: FpFormat, regs: [VReg; 3], op: &Op) -> bool {
        let [rd, rn, rm] = regs;
        let double = format == FpFormat::D;
        let plain = match what {
            FpBinary::Add | FpBinary::Sub => Plain::Finite,
            FpBinary::Mul | FpBinary::Div => Plain::Normal,
            FpBinary::Max | FpBinary::MaxNum => return self.fp_extreme(true, double, regs, op),
            FpBinary::Min | FpBinary::MinNum => return self.fp_extreme(false, double, regs, op),
            _ => return false,
        };
        self.fp_inexact(op);
        self.fp_load(double, XMM0, rn);
        let m = self.v_read(rm);
        match what {
            FpBinary::Add => sized!(self.asm, double, addsd_a, addss_a, XMM0, m),
            FpBinary::Sub => sized!(self.asm, double, subsd_a, subss_a, XMM0, m),
            FpBinary::Mul => sized!(self.asm, double, mulsd_a, mulss_a, XMM0, m),
            _ => sized!(self.asm, double, divsd_a, divss_a, XMM0, m),
        }
        self.fp_result(double, rd, plain);
        true
    }

    /// The larger of two numbers, or the smaller; true.
    fn fp_extreme(&mut self, larger: bool, double: bool, regs: [VReg; 3], op: &Op) -> bool {
        let [rd, rn, rm] = regs;
        self.fp_controls(op);
        let [n, m] = [rn, rm].map(|reg| self.v_read(reg));
        sized!(self.asm, double, ucomisd_a, ucomiss_a, n, m);
        let nan = self.asm.jump_if(Cc::P);
        self.away_and_back(nan);
        self.pick_lanes(double, larger, n, m);
        // Alone: what else the two have is not the result's.
        if double {
            self.asm.low_half(XMM0, XMM0);
        } else {
            emit!(self.asm, xorps_a, XMM1, XMM1);
            emit!(self.asm, movss_a_r, XMM1, XMM0);
            emit!(self.asm, movaps_a, XMM0, XMM1);
        }
        self.put_low(rd, XMM0);
        true
    }

    fn fp_unary(&mut self, what: FpUnary, double: bool, rd: VReg, rn: VReg, op: &Op) {
        if what == FpUnary::Sqrt {
            self.fp_inexact(op);
            let n = self.v_read(rn);
            emit!(self.asm, xorps_a, XMM0, XMM0);
            sized!(self.asm, double, sqrtsd_a, sqrtss_a, XMM0, n);
            return self.fp_result(double, rd, Plain::Finite);
        }
        self.fp_load(double, XMM0, rn);
        let sign: u64 = if double { 1 << 63 } else { 1 << 31 };
        match what {
            FpUnary::Abs => {
                self.asm.constant(RAX, sign - 1);
                emit!(self.asm, movq_a, XMM1, RAX);
                emit!(self.asm, andps_a, XMM0, XMM1);
            }
            FpUnary::Neg => {
                self.asm.constant(RAX, sign);
                emit!(self.asm, movq_a, XMM1, RAX);
                emit!(self.asm, xorps_a, XMM0, XMM1);
            }
            _ => {}
        }
        self.put_low(rd, XMM0);
    }

    /// Compares `rn` with `rm` or zero: numbers only.
    fn fp_compare(&mut self, double: bool, rn: VReg, rm: Option<VReg>, op: &Op) {
        self.fp_controls(op);
        let n = self.v_read(rn);
        let m = match rm {
            Some(rm) => self.v_read(rm),
            None => {
                emit!(self.asm, xorps_a, XMM1, XMM1);
                XMM1
            }
        };
        sized!(self.asm, double, ucomisd_a, ucomiss_a, n, m);
        let nan = self.asm.jump_if(Cc::P);
        self.leave_at(nan, op);
        // The host's carry is "less". None of these changes the host's flags.
        emit!(self.asm, movl_oi, RAX, 0u32);
        emit!(self.asm, movl_oi, RCX, 0u32);
        emit!(self.asm, setne_m, RAX);
        let sign = at(RDI, offset_of!(Cpu, overflow) as i32);
        emit!(self.asm, cmovbq_rm, RCX, sign);
        emit!(self.asm, movq_mr, at(RDI, regs_field!(zf)), RAX);
        emit!(self.asm, movq_mr, at(RDI, regs_field!(nf)), RCX);
        emit!(self.asm, setae_m, at(RDI, regs_field!(cf)));
        emit!(self.asm, movq_mi_sxl, at(RDI, regs_field!(vf)), 0);
        self.flags = Some(Flags::Float);
    }

    fn fp_select(
        &mut self,
        double: bool,
        rd: VReg,
        [rn, rm]: [VReg; 2],
        cond: Cond,
        flags: Option<Flags>,
    ) {
        if cond.is_always() {
            self.v_low(double, RDX, rn);
            return self.put_scalar(rd, RDX);
        }
        let cc = self.condition(cond, flags);
        // None of these changes the host's flags.
        self.v_low(double, RDX, rm);
        self.v_low(double, RAX, rn);
        self.asm.select(cc, RDX, RAX);
        self.put_scalar(rd, RDX);
    }

    fn fp_from_int(
        &mut self,
        double: bool,
        width: Width,
        signed: bool,
        rd: VReg,
        rn: Reg,
        op: &Op,
    ) {
        let wide = width.is_x();
        // 32 bits are exact in double precision.
        if wide || !double {
            self.fp_inexact(op);
        }
        let n = self.read(rn);
        match (wide, signed) {
            (false, true) => emit!(self.asm, movslq_rm, RAX, n),
            (false, false) => emit!(self.asm, movl_rm, RAX, n),
            (true, _) => self.asm.copy(RAX, n),
        }
        if wide && !signed {
            emit!(self.asm, testq_mr, RAX, RAX);
            let large = self.asm.jump_if(Cc::S);
            self.away_and_back(large);
        }
        // Without a dependence on what was in the register.
        emit!(self.asm, xorps_a, XMM2, XMM2);
        sized!(self.asm, double, cvtsi2sdq_a, cvtsi2ssq_a, XMM2, RAX);
        self.put_low(rd, XMM2);
    }

    /// Towards zero, what fits.
    fn fp_truncate(
        &mut self,
        double: bool,
        width: Width,
        signed: bool,
        rd: Reg,
        rn: VReg,
        op: &Op,
    ) {
        self.fp_inexact(op);
        let n = self.v_read(rn);
        sized!(self.asm, double, cvttsd2si_aq, cvttss2si_aq, RAX, n);
        let beyond = match (width, signed) {
            (Width::X, true) => {
                // What does not fit is the least number there is.
                emit!(self.asm, cmpq_mi_sxb, RAX, 1);
                self.asm.jump_if(Cc::O)
            }
            (Width::X, false) => {
                emit!(self.asm, testq_mr, RAX, RAX);
                self.asm.jump_if(Cc::S)
            }
            (Width::W, true) => {
                emit!(self.asm, movslq_rm, RCX, RAX);
                emit!(self.asm, cmpq_rm, RCX, RAX);
                self.asm.jump_if(Cc::Ne)
            }
            (Width::W, false) => {
                emit!(self.asm, movl_rm, RCX, RAX);
                emit!(self.asm, cmpq_rm, RCX, RAX);
                self.asm.jump_if(Cc::Ne)
            }
        };
        self.away_and_back(beyond);
        if width == Width::W {
            emit!(self.asm, movl_rm, RAX, RAX);
        }
        self.set(rd, RAX);
    }
}
