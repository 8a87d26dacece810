//! MOVI, MVNI, FMOV (vector, immediate), ORR and BIC (vector, immediate). Arm
//! ARM C4.1.96, "Advanced SIMD modified immediate".

use super::forms::{d, keep, put};
use super::{Pure, run};
use crate::cpu::op::{Handler, Op};
use crate::insn::simd::VecImm;
use crate::regs::{Regs, V};

/// The handler of `op` on 64 bits or, if `full`, 128.
pub fn run_of(op: VecImm, full: bool) -> Handler {
    match (op, full) {
        (VecImm::Move, false) => run::<Move64>(),
        (VecImm::Move, true) => run::<Move128>(),
        (VecImm::Or, _) => run::<Or>(),
        (VecImm::And, _) => run::<And>(),
    }
}

struct Move64;
struct Move128;
struct Or;
struct And;

impl Pure for Move64 {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        put(regs, op, V([op.imm, 0]));
    }
}

impl Pure for Move128 {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        put(regs, op, V([op.imm, op.imm]));
    }
}

impl Pure for Or {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let old = d(regs, op);
        put(
            regs,
            op,
            keep(op, V([old.0[0] | op.imm, old.0[1] | op.imm])),
        );
    }
}

impl Pure for And {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let old = d(regs, op);
        put(
            regs,
            op,
            keep(op, V([old.0[0] & op.imm, old.0[1] & op.imm])),
        );
    }
}
