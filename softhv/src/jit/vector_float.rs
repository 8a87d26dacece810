//! Floating point on vectors, on the host's where each lane's result shows that it is
//! the guest's: as [`super::float`] has it for one.

use super::asm::host::RAX;
use super::asm::{Cc, emit, sized};
use super::float::Plain;
use super::memory::{XMM0, XMM1, XMM2};
use super::state::{State, constant};
use crate::constants::Constants;
use crate::cpu::op::Op;
use crate::insn::{Arrangement, Insn, VReg, VecFpBinary, VecFpUnary};

/// The comparison of the host that holds where one is no number.
const UNORDERED: u8 = 3;

impl State {
    /// Emits `insn`, whose op is `op`; false if it is none of these.
    pub fn vector_float(&mut self, insn: &Insn, op: &Op) -> bool {
        match *insn {
            Insn::VecFpBinary {
                op:
                    what @ (VecFpBinary::Max
                    | VecFpBinary::MaxNum
                    | VecFpBinary::Min
                    | VecFpBinary::MinNum),
                arrangement,
                rd,
                rn,
                rm,
            } if is_vector(arrangement) => {
                let larger = matches!(what, VecFpBinary::Max | VecFpBinary::MaxNum);
                self.fp_controls(op);
                self.extremes(larger, arrangement, rd, [rn, rm]);
            }
            Insn::VecFpBinary {
                op: what,
                arrangement,
                rd,
                rn,
                rm,
            } if is_vector(arrangement) && self.has(what) => {
                self.fp_inexact(op);
                let m = self.v_read(rm);
                self.lanes(what, arrangement, [rd, rn], m);
            }
            Insn::VecFpElement {
                op: what,
                arrangement,
                rd,
                rn,
                rm,
                index,
            } if arrangement.size() >= 2 && self.has(what) => {
                self.fp_inexact(op);
                let m = self.v_read(rm);
                let lane = if arrangement.size() == 3 {
                    [0b01_00_01_00, 0b11_10_11_10][usize::from(index & 1)]
                } else {
                    0b01_01_01_01 * (index & 3)
                };
                emit!(self.asm, pshufd_a, XMM1, m, lane);
                self.lanes(what, arrangement, [rd, rn], XMM1);
            }
            Insn::VecFpUnary {
                op: what,
                arrangement,
                rd,
                rn,
            } if is_vector(arrangement) => return self.each(what, arrangement, rd, rn, op),
            _ => return false,
        }
        true
    }

    /// Whether there is a template for `what` here.
    fn has(&self, what: VecFpBinary) -> bool {
        match what {
            VecFpBinary::Add | VecFpBinary::Sub | VecFpBinary::Mul | VecFpBinary::Div => true,
            VecFpBinary::Mla | VecFpBinary::Mls => self.host.fma,
            _ => false,
        }
    }

    /// `rd` = what of `rn` and host register `m`, in each lane.
    fn lanes(&mut self, what: VecFpBinary, kind: Arrangement, [rd, rn]: [VReg; 2], m: u8) {
        let double = kind.size() == 3;
        let n = self.v_read(rn);
        let first = match what {
            VecFpBinary::Mla | VecFpBinary::Mls => self.v_read(rd),
            _ => n,
        };
        emit!(self.asm, movaps_a, XMM0, first);
        let asm = &mut self.asm;
        match what {
            VecFpBinary::Add => sized!(*asm, double, addpd_a, addps_a, XMM0, m),
            VecFpBinary::Sub => sized!(*asm, double, subpd_a, subps_a, XMM0, m),
            VecFpBinary::Mul => sized!(*asm, double, mulpd_a, mulps_a, XMM0, m),
            VecFpBinary::Div => sized!(*asm, double, divpd_a, divps_a, XMM0, m),
            VecFpBinary::Mla => sized!(*asm, double, vfmadd231pd_a, vfmadd231ps_a, XMM0, n, m),
            _ => sized!(*asm, double, vfnmadd231pd_a, vfnmadd231ps_a, XMM0, n, m),
        }
        let plain = match what {
            VecFpBinary::Add | VecFpBinary::Sub => Plain::Finite,
            _ => Plain::Normal,
        };
        self.lanes_result(kind, rd, plain);
    }

    /// `rd` = the larger lanes of both, or the smaller ones; numbers only.
    fn extremes(&mut self, larger: bool, kind: Arrangement, rd: VReg, from: [VReg; 2]) {
        let double = kind.size() == 3;
        let [n, m] = from.map(|reg| self.v_read(reg));
        let asm = &mut self.asm;
        emit!(*asm, movaps_a, XMM0, n);
        sized!(*asm, double, cmppd_a, cmpps_a, XMM0, m, UNORDERED);
        self.away_where(kind, XMM0);
        self.pick_lanes(double, larger, n, m);
        self.put_vector(rd, kind.is_full());
    }

    /// XMM0 = the larger lanes of `n` and `m`, or the smaller ones, which are numbers. Of
    /// two that are equal the host takes the second: zeros of both signs are put together
    /// from both orders. Uses XMM1.
    pub(super) fn pick_lanes(&mut self, double: bool, larger: bool, n: u8, m: u8) {
        let asm = &mut self.asm;
        emit!(*asm, movaps_a, XMM0, n);
        emit!(*asm, movaps_a, XMM1, m);
        for (to, other) in [(XMM0, m), (XMM1, n)] {
            if larger {
                sized!(*asm, double, maxpd_a, maxps_a, to, other);
            } else {
                sized!(*asm, double, minpd_a, minps_a, to, other);
            }
        }
        if larger {
            emit!(*asm, andps_a, XMM0, XMM1);
        } else {
            emit!(*asm, orps_a, XMM0, XMM1);
        }
    }

    fn each(&mut self, what: VecFpUnary, kind: Arrangement, rd: VReg, rn: VReg, op: &Op) -> bool {
        let double = kind.size() == 3;
        match what {
            VecFpUnary::Abs | VecFpUnary::Neg => {
                let n = self.v_read(rn);
                let asm = &mut self.asm;
                emit!(*asm, pcmpeqd_a, XMM0, XMM0);
                if what == VecFpUnary::Abs {
                    sized!(*asm, double, psrlq_b, psrld_b, XMM0, 1u8);
                    emit!(*asm, pand_a, XMM0, n);
                } else {
                    let sign = if double { 63u8 } else { 31 };
                    sized!(*asm, double, psllq_b, pslld_b, XMM0, sign);
                    emit!(*asm, pxor_a, XMM0, n);
                }
                self.put_vector(rd, kind.is_full());
            }
            VecFpUnary::Sqrt => {
                self.fp_inexact(op);
                let n = self.v_read(rn);
                sized!(self.asm, double, sqrtpd_a, sqrtps_a, XMM0, n);
                self.lanes_result(kind, rd, Plain::Finite);
            }
            _ => return false,
        }
        true
    }

    /// `rd` = the lanes of `kind` of XMM0 if all are `plain`; else `op` does it.
    fn lanes_result(&mut self, kind: Arrangement, rd: VReg, plain: Plain) {
        let double = kind.size() == 3;
        // The exponents of the lanes, twice each of doubles.
        if double {
            emit!(self.asm, pshufd_a, XMM1, XMM0, 0b11_11_01_01u8);
        } else {
            emit!(self.asm, movaps_a, XMM1, XMM0);
        }
        emit!(self.asm, paddd_a, XMM1, XMM1);
        let fraction = if double { 21u8 } else { 24 };
        emit!(self.asm, psrld_b, XMM1, fraction);
        if plain == Plain::Normal {
            emit!(self.asm, movaps_a, XMM2, XMM1);
            emit!(self.asm, paddd_a, XMM2, constant(Constants::tiny()));
        }
        emit!(
            self.asm,
            paddd_a,
            XMM1,
            constant(Constants::largest(double))
        );
        if plain == Plain::Normal {
            emit!(self.asm, por_a, XMM1, XMM2);
        }
        self.away_where(kind, XMM1);
        if kind == Arrangement::S {
            emit!(self.asm, xorps_a, XMM1, XMM1);
            emit!(self.asm, movss_a_r, XMM1, XMM0);
            emit!(self.asm, movaps_a, XMM0, XMM1);
        }
        self.put_vector(rd, kind.is_full());
    }

    /// Leaves the instruction to its handler if a lane of `kind` of `mask` is negative.
    fn away_where(&mut self, kind: Arrangement, mask: u8) {
        emit!(self.asm, movmskps_rm, RAX, mask);
        let lanes = match kind {
            Arrangement::S => 0b0001u32,
            Arrangement::D | Arrangement::D1 | Arrangement::S2 => 0b0011,
            _ => 0b1111,
        };
        emit!(self.asm, testl_mi, RAX, lanes);
        let special = self.asm.jump_if(Cc::Ne);
        self.away_and_back(special);
    }
}

fn is_vector(kind: Arrangement) -> bool {
    kind.size() >= 2 && !kind.is_scalar()
}
