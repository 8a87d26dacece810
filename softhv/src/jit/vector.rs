//! AdvSIMD data processing, where the host has the operation at its baseline.

use super::asm::host::{RAX, RCX};
use super::asm::{by_size, emit};
use super::memory::{XMM0, XMM1};
use super::state::State;
use crate::cpu::op::Op;
use crate::insn::{Arrangement, Insn, Reg, VReg, VecBinary, VecImm, VecShift, VecUnary, Width};
use cranelift_assembler_x64::Amode;

impl State {
    /// Emits `insn`, AdvSIMD whose op is `op`; false if there is no template for it.
    pub fn vectors(&mut self, insn: &Insn, op: &Op) -> bool {
        self.vector(insn) || self.moves(insn) || self.vector_float(insn, op) || self.crypto(insn)
    }

    /// Emits `insn`; false if it is none of these.
    fn vector(&mut self, insn: &Insn) -> bool {
        match *insn {
            Insn::VecBinary {
                op,
                arrangement,
                rd,
                rn,
                rm,
            } if !arrangement.is_scalar() => {
                if !self.vec_binary(op, arrangement, [rd, rn, rm]) {
                    return false;
                }
                self.put_vector(rd, arrangement.is_full());
            }
            Insn::VecUnary {
                op,
                arrangement,
                rd,
                rn,
            } if !arrangement.is_scalar() => {
                if !self.vec_unary(op, arrangement.size(), rn) {
                    return false;
                }
                self.put_vector(rd, arrangement.is_full());
            }
            Insn::VecShift {
                op,
                arrangement,
                rd,
                rn,
                amount,
            } if !arrangement.is_scalar() => {
                return self.vec_shift(op, arrangement, rd, rn, amount);
            }
            Insn::VecImm { op, full, rd, bits } => self.vec_imm(op, full, rd, bits),
            _ => return self.elements(insn),
        }
        true
    }

    /// Moves of elements, which are memory of the vCPU.
    fn elements(&mut self, insn: &Insn) -> bool {
        match *insn {
            Insn::VecToGeneral {
                element: kind,
                signed,
                width,
                rd,
                rn,
                index,
            } => {
                let from = self.element(rn, kind.size(), index);
                match (signed, width, kind.size()) {
                    (false, _, 0) => emit!(self.asm, movzbl_rm, RAX, from),
                    (false, _, 1) => emit!(self.asm, movzwl_rm, RAX, from),
                    (false, _, 2) => emit!(self.asm, movl_rm, RAX, from),
                    (true, Width::W, 0) => emit!(self.asm, movsbl_rm, RAX, from),
                    (true, Width::W, 1) => emit!(self.asm, movswl_rm, RAX, from),
                    (true, Width::X, 0) => emit!(self.asm, movsbq_rm, RAX, from),
                    (true, Width::X, 1) => emit!(self.asm, movswq_rm, RAX, from),
                    (true, Width::X, 2) => emit!(self.asm, movslq_rm, RAX, from),
                    (_, _, 3) => emit!(self.asm, movq_rm, RAX, from),
                    _ => return false,
                }
                self.set(rd, RAX);
            }
            Insn::VecInsertGeneral {
                element: kind,
                rd,
                index,
                rn,
            } => {
                let n = self.read(rn);
                let to = self.element(rd, kind.size(), index);
                by_size!(
                    self.asm,
                    kind.size(),
                    [movb_mr, movw_mr, movl_mr, movq_mr],
                    to,
                    n
                );
                self.v_changed(rd);
            }
            Insn::VecInsert {
                element: kind,
                rd,
                index,
                rn,
                from,
            } => {
                let size = kind.size();
                let (from, to) = (self.element(rn, size, from), self.element(rd, size, index));
                by_size!(
                    self.asm,
                    size,
                    [movzbl_rm, movzwl_rm, movl_rm, movq_rm],
                    RAX,
                    from
                );
                by_size!(
                    self.asm,
                    size,
                    [movb_mr, movw_mr, movl_mr, movq_mr],
                    to,
                    RAX
                );
                self.v_changed(rd);
            }
            Insn::VecDup {
                arrangement,
                rd,
                rn,
                index,
            } => {
                let size = arrangement.size();
                let from = self.element(rn, size, index);
                by_size!(
                    self.asm,
                    size,
                    [movzbl_rm, movzwl_rm, movl_rm, movq_rm],
                    RAX,
                    from
                );
                self.spread(arrangement, rd);
            }
            Insn::VecDupGeneral {
                arrangement,
                rd,
                rn,
            } => self.duplicate(arrangement, rd, rn),
            _ => return false,
        }
        true
    }

    /// Where an element is in memory.
    fn element(&mut self, reg: VReg, size: u32, index: u8) -> Amode<u8> {
        self.v_memory(reg, i32::from(index) << size)
    }

    fn duplicate(&mut self, arrangement: Arrangement, rd: VReg, rn: Reg) {
        let n = self.read(rn);
        match arrangement.size() {
            0 => emit!(self.asm, movzbl_rm, RAX, n),
            1 => emit!(self.asm, movzwl_rm, RAX, n),
            2 => emit!(self.asm, movl_rm, RAX, n),
            _ => self.asm.copy(RAX, n),
        }
        self.spread(arrangement, rd);
    }

    /// `rd` = what RAX has, zero-extended, in each lane or in the one of a scalar.
    pub(super) fn spread(&mut self, arrangement: Arrangement, rd: VReg) {
        if !arrangement.is_scalar() {
            let ones = match arrangement.size() {
                0 => 0x0101_0101_0101_0101,
                1 => 0x0001_0001_0001_0001,
                2 => 0x0000_0001_0000_0001,
                _ => 1u64,
            };
            if ones != 1 {
                self.asm.constant(RCX, ones);
                emit!(self.asm, imulq_rm, RAX, RCX);
            }
        }
        self.put_general(rd, arrangement.is_full());
    }

    /// `rd` = what RAX has, twice if `full`.
    fn put_general(&mut self, rd: VReg, full: bool) {
        let to = self.v_set(rd);
        emit!(self.asm, movq_a, to, RAX);
        if full {
            emit!(self.asm, punpcklqdq_a, to, to);
        }
    }

    /// `rd` = XMM0, or its lower half if not `full`.
    pub(super) fn put_vector(&mut self, rd: VReg, full: bool) {
        let to = self.v_set(rd);
        if full {
            emit!(self.asm, movaps_a, to, XMM0);
        } else {
            self.asm.low_half(to, XMM0);
        }
    }

    fn vec_imm(&mut self, op: VecImm, full: bool, rd: VReg, bits: u64) {
        self.asm.constant(RAX, bits);
        if op == VecImm::Move {
            return self.put_general(rd, full);
        }
        let d = self.v_read(rd);
        emit!(self.asm, movq_a, XMM0, RAX);
        emit!(self.asm, punpcklqdq_a, XMM0, XMM0);
        if op == VecImm::Or {
            emit!(self.asm, por_a, XMM0, d);
        } else {
            emit!(self.asm, pand_a, XMM0, d);
        }
        self.put_vector(rd, full);
    }

    /// XMM0 = the result; false if there is no such operation.
    fn vec_binary(&mut self, op: VecBinary, kind: Arrangement, [rd, rn, rm]: [VReg; 3]) -> bool {
        let size = kind.size();
        match (op, size) {
            (VecBinary::And | VecBinary::Orr | VecBinary::Eor | VecBinary::Bic, _)
            | (VecBinary::Bsl | VecBinary::Bit, _)
            | (VecBinary::Add | VecBinary::Sub, _)
            | (VecBinary::Cmeq | VecBinary::Cmgt, 0..3)
            | (VecBinary::Umax | VecBinary::Umin | VecBinary::Cmhs | VecBinary::Cmhi, 0)
            | (VecBinary::Smax | VecBinary::Smin | VecBinary::Mul, 1) => {}
            _ => return false,
        }
        let [n, m] = [rn, rm].map(|reg| self.v_read(reg));
        let d = match op {
            VecBinary::Bsl | VecBinary::Bit => self.v_read(rd),
            _ => n,
        };
        // What begins with another register than Rn.
        let first = match op {
            VecBinary::Bic | VecBinary::Cmhi | VecBinary::Bsl => m,
            _ => n,
        };
        emit!(self.asm, movaps_a, XMM0, first);
        let asm = &mut self.asm;
        match op {
            VecBinary::And => emit!(*asm, pand_a, XMM0, m),
            VecBinary::Orr => emit!(*asm, por_a, XMM0, m),
            VecBinary::Eor => emit!(*asm, pxor_a, XMM0, m),
            VecBinary::Bic => emit!(*asm, pandn_a, XMM0, n),
            VecBinary::Bsl => {
                // m, turned over to n where d has ones.
                emit!(*asm, movaps_a, XMM1, n);
                emit!(*asm, pxor_a, XMM1, XMM0);
                emit!(*asm, pand_a, XMM1, d);
                emit!(*asm, pxor_a, XMM0, XMM1);
            }
            VecBinary::Bit => {
                // d, turned over to n where m has ones.
                emit!(*asm, movaps_a, XMM1, d);
                emit!(*asm, pxor_a, XMM0, XMM1);
                emit!(*asm, pand_a, XMM0, m);
                emit!(*asm, pxor_a, XMM0, XMM1);
            }
            VecBinary::Add => {
                by_size!(*asm, size, [paddb_a, paddw_a, paddd_a, paddq_a], XMM0, m);
            }
            VecBinary::Sub => {
                by_size!(*asm, size, [psubb_a, psubw_a, psubd_a, psubq_a], XMM0, m);
            }
            VecBinary::Cmeq => match size {
                0 => emit!(*asm, pcmpeqb_a, XMM0, m),
                1 => emit!(*asm, pcmpeqw_a, XMM0, m),
                _ => emit!(*asm, pcmpeqd_a, XMM0, m),
            },
            VecBinary::Cmgt => match size {
                0 => emit!(*asm, pcmpgtb_a, XMM0, m),
                1 => emit!(*asm, pcmpgtw_a, XMM0, m),
                _ => emit!(*asm, pcmpgtd_a, XMM0, m),
            },
            VecBinary::Umax => emit!(*asm, pmaxub_a, XMM0, m),
            VecBinary::Umin => emit!(*asm, pminub_a, XMM0, m),
            VecBinary::Cmhs => {
                emit!(*asm, pmaxub_a, XMM0, m);
                emit!(*asm, pcmpeqb_a, XMM0, n);
            }
            VecBinary::Cmhi => {
                // Not: m is as great.
                emit!(*asm, pmaxub_a, XMM0, n);
                emit!(*asm, pcmpeqb_a, XMM0, m);
                emit!(*asm, pcmpeqb_a, XMM1, XMM1);
                emit!(*asm, pxor_a, XMM0, XMM1);
            }
            VecBinary::Smax => emit!(*asm, pmaxsw_a, XMM0, m),
            VecBinary::Smin => emit!(*asm, pminsw_a, XMM0, m),
            _ => emit!(*asm, pmullw_a, XMM0, m),
        }
        true
    }

    /// XMM0 = the result; false if there is no such operation.
    fn vec_unary(&mut self, op: VecUnary, size: u32, rn: VReg) -> bool {
        match (op, size) {
            (VecUnary::Not | VecUnary::Neg, _) => {}
            (VecUnary::CmeqZero | VecUnary::CmltZero, 0..3) => {}
            _ => return false,
        }
        let n = self.v_read(rn);
        let asm = &mut self.asm;
        match (op, size) {
            (VecUnary::Not, _) => {
                emit!(*asm, pcmpeqb_a, XMM0, XMM0);
                emit!(*asm, pxor_a, XMM0, n);
            }
            (VecUnary::CmeqZero, 0..3) => {
                emit!(*asm, pxor_a, XMM0, XMM0);
                match size {
                    0 => emit!(*asm, pcmpeqb_a, XMM0, n),
                    1 => emit!(*asm, pcmpeqw_a, XMM0, n),
                    _ => emit!(*asm, pcmpeqd_a, XMM0, n),
                }
            }
            (VecUnary::CmltZero, 0..3) => {
                emit!(*asm, pxor_a, XMM0, XMM0);
                match size {
                    0 => emit!(*asm, pcmpgtb_a, XMM0, n),
                    1 => emit!(*asm, pcmpgtw_a, XMM0, n),
                    _ => emit!(*asm, pcmpgtd_a, XMM0, n),
                }
            }
            _ => {
                emit!(*asm, pxor_a, XMM0, XMM0);
                by_size!(*asm, size, [psubb_a, psubw_a, psubd_a, psubq_a], XMM0, n);
            }
        }
        true
    }

    fn vec_shift(
        &mut self,
        op: VecShift,
        kind: Arrangement,
        rd: VReg,
        rn: VReg,
        amount: u8,
    ) -> bool {
        let size = kind.size();
        match (op, size) {
            (VecShift::Ushr | VecShift::Shl, 1..) | (VecShift::Sshr, 1 | 2) => {}
            (VecShift::Shrn, 0) if !kind.is_full() => {}
            (VecShift::Ushll, 0..3) => {}
            _ => return false,
        }
        let n = self.v_read(rn);
        let asm = &mut self.asm;
        emit!(*asm, movaps_a, XMM0, n);
        match (op, size) {
            (VecShift::Ushr | VecShift::Shl, 1..) | (VecShift::Sshr, 1 | 2) => {
                match (op, size) {
                    (VecShift::Ushr, 1) => emit!(*asm, psrlw_b, XMM0, amount),
                    (VecShift::Ushr, 2) => emit!(*asm, psrld_b, XMM0, amount),
                    (VecShift::Ushr, _) => emit!(*asm, psrlq_b, XMM0, amount),
                    (VecShift::Shl, 1) => emit!(*asm, psllw_b, XMM0, amount),
                    (VecShift::Shl, 2) => emit!(*asm, pslld_b, XMM0, amount),
                    (VecShift::Shl, _) => emit!(*asm, psllq_b, XMM0, amount),
                    (_, 1) => emit!(*asm, psraw_b, XMM0, amount),
                    _ => emit!(*asm, psrad_b, XMM0, amount),
                }
                self.put_vector(rd, kind.is_full());
            }
            // To the lower half only.
            (VecShift::Shrn, _) => {
                emit!(*asm, psrlw_b, XMM0, amount);
                emit!(*asm, pcmpeqb_a, XMM1, XMM1);
                emit!(*asm, psrlw_b, XMM1, 8u8);
                emit!(*asm, pand_a, XMM0, XMM1);
                emit!(*asm, packuswb_a, XMM0, XMM0);
                self.put_vector(rd, false);
            }
            _ => {
                if kind.is_full() {
                    emit!(*asm, punpckhqdq_a, XMM0, XMM0);
                }
                emit!(*asm, pxor_a, XMM1, XMM1);
                match size {
                    0 => {
                        emit!(*asm, punpcklbw_a, XMM0, XMM1);
                        emit!(*asm, psllw_b, XMM0, amount);
                    }
                    1 => {
                        emit!(*asm, punpcklwd_a, XMM0, XMM1);
                        emit!(*asm, pslld_b, XMM0, amount);
                    }
                    _ => {
                        emit!(*asm, punpckldq_a, XMM0, XMM1);
                        emit!(*asm, psllq_b, XMM0, amount);
                    }
                }
                self.put_vector(rd, true);
            }
        }
        true
    }
}
