//! Bitwise operations on whole registers.

use super::forms;
use super::{Pure, run};
use crate::cpu::op::{Handler, Op};
use crate::insn::simd::VecBinary;
use crate::regs::{Regs, V};

/// Result bits from the destination's old ones and both sources'.
trait Bits {
    fn of(d: u64, a: u64, b: u64) -> u64;
}

macro_rules! bits {
    ($($name:ident($d:ident, $a:ident, $b:ident) = $body:expr;)*) => {$(
        struct $name;
        impl Bits for $name {
            #[inline(always)]
            fn of($d: u64, $a: u64, $b: u64) -> u64 { $body }
        }
    )*};
}

bits! {
    And(_d, a, b) = a & b;
    Bic(_d, a, b) = a & !b;
    Orr(_d, a, b) = a | b;
    Orn(_d, a, b) = a | !b;
    Eor(_d, a, b) = a ^ b;
    Bsl(d, a, b) = b ^ ((a ^ b) & d);
    Bit(d, a, b) = d ^ ((d ^ a) & b);
    Bif(d, a, b) = d ^ ((d ^ a) & !b);
}

struct Logic<F, const FULL: bool>(F);

impl<F: Bits, const FULL: bool> Pure for Logic<F, FULL> {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let (d, a, b) = (forms::d(regs, op), forms::n(regs, op), forms::m(regs, op));
        let low = F::of(d.0[0], a.0[0], b.0[0]);
        let high = if FULL {
            F::of(d.0[1], a.0[1], b.0[1])
        } else {
            0
        };
        forms::put(regs, op, V([low, high]));
    }
}

/// Vd = Vn: ORR of a register with itself.
struct Move;

impl Pure for Move {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let a = forms::n(regs, op);
        forms::put(regs, op, a);
    }
}

/// The handler of a bitwise operation. An ORR of a whole register with itself, if
/// `same`, is a move.
pub fn run_of(op: VecBinary, full: bool, same: bool) -> Option<Handler> {
    if op == VecBinary::Orr && full && same {
        return Some(run::<Move>());
    }
    let [half, whole]: [Handler; 2] = match op {
        VecBinary::And => [run::<Logic<And, false>>(), run::<Logic<And, true>>()],
        VecBinary::Bic => [run::<Logic<Bic, false>>(), run::<Logic<Bic, true>>()],
        VecBinary::Orr => [run::<Logic<Orr, false>>(), run::<Logic<Orr, true>>()],
        VecBinary::Orn => [run::<Logic<Orn, false>>(), run::<Logic<Orn, true>>()],
        VecBinary::Eor => [run::<Logic<Eor, false>>(), run::<Logic<Eor, true>>()],
        VecBinary::Bsl => [run::<Logic<Bsl, false>>(), run::<Logic<Bsl, true>>()],
        VecBinary::Bit => [run::<Logic<Bit, false>>(), run::<Logic<Bit, true>>()],
        VecBinary::Bif => [run::<Logic<Bif, false>>(), run::<Logic<Bif, true>>()],
        _ => return None,
    };
    Some(if full { whole } else { half })
}
