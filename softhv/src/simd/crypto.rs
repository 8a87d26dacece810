//! AES, SHA-1, SHA-256 and 64-bit polynomial multiplication.

use super::forms::{m, n, put};
use super::{Pure, run};
use crate::op::{Handler, Op};
use crate::regs::{Regs, V};

/// PMULL, PMULL2 of doublewords.
pub fn multiply_64() -> Handler {
    run::<Pmull64>()
}

struct Pmull64;

impl Pure for Pmull64 {
    #[inline(always)]
    fn exec(regs: &mut Regs, op: &Op) {
        let half = usize::from(op.ra & 1);
        let (a, b) = (n(regs, op).0[half], m(regs, op).0[half]);
        put(regs, op, V::scalar(carryless(a, b)));
    }
}

/// Product of polynomials over GF(2).
fn carryless(a: u64, b: u64) -> u128 {
    (0..64).fold(0, |sum, bit| {
        let term = (u128::from(a) << bit) * u128::from(b >> bit & 1);
        sum ^ term
    })
}
