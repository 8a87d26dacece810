//! Runs single ops, and makes random words and operands.
#![allow(dead_code, clippy::cast_possible_truncation)]

use supermachine_softhv::cpu::Cpu;
use supermachine_softhv::op::{Handler, Op};
use supermachine_softhv::regs::{Regs, V};

/// SplitMix64: seeded, so that every run sees the same cases.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A 64-bit half register of lanes of one random width, each of them
    /// likely to be one of the values at which instructions change behaviour.
    pub fn lanes(&mut self) -> u64 {
        let bits = 8u32 << self.below(4);
        let mask = u64::MAX >> (64 - bits);
        (0..64 / bits).fold(0, |all, i| {
            let min = 1u64 << (bits - 1);
            let lane = match self.below(16) {
                0 => 0,
                1 => 1,
                2 => mask,
                3 => min,
                4 => min - 1,
                5 => min + 1,
                6 => u64::from(bits),
                7 => 0u64.wrapping_sub(u64::from(bits)),
                8 => u64::from(bits) - 1,
                9 => 0x80,
                10 => self.below(u64::from(bits)),
                11 => 0u64.wrapping_sub(self.below(u64::from(bits))),
                _ => self.next(),
            };
            all | (lane & mask) << (i * bits)
        })
    }

    pub fn register(&mut self) -> V {
        V([self.lanes(), self.lanes()])
    }
}

unsafe extern "C" fn stop(_cpu: *mut Cpu, _op: *const Op) {}

/// Room for register state where a handler expects a vCPU: pure handlers reach
/// nothing but the registers, which come first in it.
#[repr(C, align(4096))]
struct Stage(Regs);

/// Executes one pure op.
pub fn execute(regs: &mut Regs, op: &Op) {
    let stop: Handler = stop;
    let ops = [op.clone(), Op::new(stop)];
    let mut stage = Stage(regs.clone());
    // SAFETY: a pure handler accesses only `regs`, the first field of the vCPU
    // and here of the stage, and continues with the next op, which returns.
    unsafe { (ops[0].run)((&raw mut stage).cast::<Cpu>(), ops.as_ptr()) };
    *regs = stage.0;
}
