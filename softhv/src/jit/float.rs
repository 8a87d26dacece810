//! Scalar floating point on the host's, where that gives the guest's result: under
//! the guest's default controls, a result that is plainly a number (see
//! [`crate::fp::native`]). All else goes to the op's handler, and comes back.

use super::asm::host::{RAX, RCX, RDI, RDX};
use super::asm::{Cc, at, emit, sized};
use super::memory::{XMM0, XMM1, vector_offset};
use super::state::{Cold, Flags, State, regs_field};
use crate::cpu::Cpu;
use crate::cpu::op::Op;
use crate::fp::format::IXC;
use crate::fp::native::CONTROL;
use crate::insn::{Cond, FpBinary, FpFormat, FpMove, FpUnary, Insn, Reg, Rounding, VReg, Width};
use std::mem::offset_of;

/// A third host vector register for one instruction.
const XMM2: u8 = 2;

/// One instruction for either format: `for_format!(asm, double, addsd_a, addss_a, …)`.
macro_rules! for_format {
    ($asm:expr, $double:expr, $d:ident, $s:ident, $($operand:expr),+) => {
        if $double {
            emit!($asm, $d, $($operand),+)
        } else {
            emit!($asm, $s, $($operand),+)
        }
    };
}

/// Which exponents are of results that raise nothing new.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plain {
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
                self.fp_load(double, XMM1, rn);
                let m = at(RDI, vector_offset(rm));
                let (a, n) = (XMM0, XMM1);
                let asm = &mut self.asm;
                match (negate_addend, negate_product) {
                    (false, false) => {
                        for_format!(*asm, double, vfmadd231sd_a, vfmadd231ss_a, a, n, m);
                    }
                    (false, true) => {
                        for_format!(*asm, double, vfnmadd231sd_a, vfnmadd231ss_a, a, n, m);
                    }
                    (true, true) => {
                        for_format!(*asm, double, vfnmsub231sd_a, vfnmsub231ss_a, a, n, m);
                    }
                    (true, false) => {
                        for_format!(*asm, double, vfmsub231sd_a, vfmsub231ss_a, a, n, m);
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
                let from = vector_offset(rn);
                match part {
                    FpMove::S => emit!(self.asm, movl_rm, RAX, at(RDI, from)),
                    FpMove::D => emit!(self.asm, movq_rm, RAX, at(RDI, from)),
                    FpMove::Top => emit!(self.asm, movq_rm, RAX, at(RDI, from + 8)),
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
                        emit!(self.asm, movq_mr, at(RDI, vector_offset(rd) + 8), n);
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
                    emit!(self.asm, movq_b, RAX, XMM0);
                    self.put_scalar(rd, RAX);
                }
                (FpFormat::D, FpFormat::S) => {
                    self.fp_inexact(op);
                    self.fp_load(true, XMM0, rn);
                    emit!(self.asm, cvtsd2ss_a, XMM0, XMM0);
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
    fn fp_controls(&mut self, op: &Op) {
        if self.fp_controls_known {
            return;
        }
        const { assert!(CONTROL <= u32::MAX as u64) };
        let controls = at(RDI, regs_field!(fpcr));
        emit!(self.asm, testl_mi, controls, CONTROL as u32);
        let other = self.asm.jump_if(Cc::Ne);
        self.cold.push(Cold::Leave(other, op));
        self.fp_controls_known = true;
    }

    /// The same, and has `op` done by its handler unless IXC is set, so that an inexact
    /// result changes nothing.
    fn fp_inexact(&mut self, op: &Op) {
        self.fp_controls(op);
        emit!(self.asm, testl_mi, at(RDI, regs_field!(fpsr)), IXC as u32);
        let clear = self.asm.jump_if(Cc::E);
        self.away_and_back(clear);
    }

    fn fp_load(&mut self, double: bool, to: u8, from: VReg) {
        let from = at(RDI, vector_offset(from));
        for_format!(self.asm, double, movq_a, movd_a, to, from);
    }

    /// `rd` = what host register `from` has; the rest of it becomes zero.
    fn put_scalar(&mut self, rd: VReg, from: u8) {
        emit!(self.asm, movq_mr, at(RDI, vector_offset(rd)), from);
        emit!(self.asm, movq_mi_sxl, at(RDI, vector_offset(rd) + 8), 0);
    }

    /// `rd` = XMM0, if it is `plain`; else `op` does it.
    fn fp_result(&mut self, double: bool, rd: VReg, plain: Plain) {
        let (fraction, exponents) = if double { (52, 0x7ff) } else { (23, 0xff) };
        if double {
            emit!(self.asm, movq_b, RAX, XMM0);
        } else {
            emit!(self.asm, movd_b, RAX, XMM0);
        }
        emit!(self.asm, movq_rm, RCX, RAX);
        emit!(self.asm, shrq_mi, RCX, fraction);
        emit!(self.asm, andl_mi, RCX, exponents);
        let floor = if plain == Plain::Normal { 2 } else { 0 };
        if floor != 0 {
            emit!(self.asm, subl_mi_sxb, RCX, floor as i8);
        }
        emit!(self.asm, cmpl_mi, RCX, exponents - floor);
        let special = self.asm.jump_if(Cc::Ae);
        self.away_and_back(special);
        self.put_scalar(rd, RAX);
    }

    fn fp_binary(&mut self, what: FpBinary, format: FpFormat, regs: [VReg; 3], op: &Op) -> bool {
        let [rd, rn, rm] = regs;
        let double = format == FpFormat::D;
        let plain = match what {
            FpBinary::Add | FpBinary::Sub => Plain::Finite,
            FpBinary::Mul | FpBinary::Div => Plain::Normal,
            _ => return false,
        };
        self.fp_inexact(op);
        self.fp_load(double, XMM0, rn);
        let m = at(RDI, vector_offset(rm));
        match what {
            FpBinary::Add => for_format!(self.asm, double, addsd_a, addss_a, XMM0, m),
            FpBinary::Sub => for_format!(self.asm, double, subsd_a, subss_a, XMM0, m),
            FpBinary::Mul => for_format!(self.asm, double, mulsd_a, mulss_a, XMM0, m),
            _ => for_format!(self.asm, double, divsd_a, divss_a, XMM0, m),
        }
        self.fp_result(double, rd, plain);
        true
    }

    fn fp_unary(&mut self, what: FpUnary, double: bool, rd: VReg, rn: VReg, op: &Op) {
        if what == FpUnary::Sqrt {
            self.fp_inexact(op);
            self.fp_load(double, XMM0, rn);
            for_format!(self.asm, double, sqrtsd_a, sqrtss_a, XMM0, XMM0);
            return self.fp_result(double, rd, Plain::Finite);
        }
        let from = at(RDI, vector_offset(rn));
        sized!(self.asm, double, movq_rm, movl_rm, RAX, from);
        let sign = if double { 1 << 63 } else { 1 << 31 };
        match what {
            FpUnary::Abs => {
                self.asm.constant(RCX, sign - 1);
                emit!(self.asm, andq_rm, RAX, RCX);
            }
            FpUnary::Neg => {
                self.asm.constant(RCX, sign);
                emit!(self.asm, xorq_rm, RAX, RCX);
            }
            _ => {}
        }
        self.put_scalar(rd, RAX);
    }

    /// Compares `rn` with `rm` or zero: numbers only.
    fn fp_compare(&mut self, double: bool, rn: VReg, rm: Option<VReg>, op: &Op) {
        self.fp_controls(op);
        self.fp_load(double, XMM0, rn);
        match rm {
            Some(rm) => self.fp_load(double, XMM1, rm),
            None => emit!(self.asm, xorps_a, XMM1, XMM1),
        }
        for_format!(self.asm, double, ucomisd_a, ucomiss_a, XMM0, XMM1);
        let nan = self.asm.jump_if(Cc::P);
        self.cold.push(Cold::Leave(nan, op));
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
        let [n, m] = [rn, rm].map(|reg| at(RDI, vector_offset(reg)));
        if cond.is_always() {
            sized!(self.asm, double, movq_rm, movl_rm, RDX, n);
            return self.put_scalar(rd, RDX);
        }
        let cc = self.condition(cond, flags);
        sized!(self.asm, double, movq_rm, movl_rm, RDX, m);
        sized!(self.asm, double, movq_rm, movl_rm, RAX, n);
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
        for_format!(self.asm, double, cvtsi2sdq_a, cvtsi2ssq_a, XMM2, RAX);
        emit!(self.asm, movq_b, RAX, XMM2);
        self.put_scalar(rd, RAX);
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
        let n = at(RDI, vector_offset(rn));
        for_format!(self.asm, double, cvttsd2si_aq, cvttss2si_aq, RAX, n);
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
