//! The host-specific code against the portable one; everything else about
//! these instructions is tested from outside the crate.

use super::shuffle_portable as portable;
use super::{bind, permute, run, shuffle};
use crate::cpu::Cpu;
use crate::cpu::op::{Handler, Op};
use crate::decode::instruction;
use crate::regs::{Regs, V};

/// Registers with pseudo-random contents.
fn registers(seed: u64) -> Regs {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        state ^ state >> 29
    };
    Regs {
        v: std::array::from_fn(|_| V([next(), next()])),
        ..Regs::default()
    }
}

unsafe extern "C" fn stop(_cpu: *mut Cpu, _op: *const Op) {}

/// Room for registers where a handler expects a vCPU.
#[repr(C, align(4096))]
struct Stage(Regs);

fn execute(handler: Handler, op: &Op, regs: Regs) -> [V; 32] {
    let mut first = op.clone();
    first.run = handler;
    let ops = [first, Op::new(stop)];
    let mut stage = Stage(regs);
    // SAFETY: the handlers tested here access only `regs`, the first field of
    // the vCPU and here of the stage, and continue with the op that returns.
    unsafe { handler((&raw mut stage).cast::<Cpu>(), ops.as_ptr()) };
    stage.0.v
}

#[test]
fn shuffles_agree_with_the_portable_ones() {
    type Shuffle = fn(V, V) -> V;
    let pairs: [(Shuffle, Shuffle); 17] = [
        (
            shuffle::interleave_low::<u8>,
            portable::interleave_low::<u8>,
        ),
        (
            shuffle::interleave_low::<u16>,
            portable::interleave_low::<u16>,
        ),
        (
            shuffle::interleave_low::<u32>,
            portable::interleave_low::<u32>,
        ),
        (
            shuffle::interleave_low::<u64>,
            portable::interleave_low::<u64>,
        ),
        (
            shuffle::interleave_high::<u8>,
            portable::interleave_high::<u8>,
        ),
        (
            shuffle::interleave_high::<u16>,
            portable::interleave_high::<u16>,
        ),
        (
            shuffle::interleave_high::<u32>,
            portable::interleave_high::<u32>,
        ),
        (
            shuffle::interleave_high::<u64>,
            portable::interleave_high::<u64>,
        ),
        (shuffle::evens::<u8>, portable::evens::<u8>),
        (shuffle::evens::<u16>, portable::evens::<u16>),
        (shuffle::evens::<u32>, portable::evens::<u32>),
        (shuffle::evens::<u64>, portable::evens::<u64>),
        (shuffle::odds::<u8>, portable::odds::<u8>),
        (shuffle::odds::<u16>, portable::odds::<u16>),
        (shuffle::odds::<u32>, portable::odds::<u32>),
        (shuffle::odds::<u64>, portable::odds::<u64>),
        (shuffle::multiply_add_pairs, portable::multiply_add_pairs),
    ];
    for seed in 0..50 {
        let [a, b, ..] = registers(seed).v;
        for (i, (host, portable)) in pairs.iter().enumerate() {
            assert_eq!(host(a, b), portable(a, b), "shuffle {i} of {a:x?}, {b:x?}");
        }
        assert!(shuffle::differ(a, b) && !shuffle::differ(a, a));
        assert!(shuffle::differ(a, V([a.0[0], a.0[1] ^ 1 << 63])));
    }
}

#[test]
fn table_lookups_agree_with_the_portable_ones() {
    let portable: [[Handler; 4]; 2] = [
        [
            run::<permute::Lookup<1, false>>(),
            run::<permute::Lookup<2, false>>(),
            run::<permute::Lookup<3, false>>(),
            run::<permute::Lookup<4, false>>(),
        ],
        [
            run::<permute::Lookup<1, true>>(),
            run::<permute::Lookup<2, true>>(),
            run::<permute::Lookup<3, true>>(),
            run::<permute::Lookup<4, true>>(),
        ],
    ];
    for seed in 0..100 {
        for keeps_old in 0..2 {
            for more in 0..4 {
                // TBL or TBX V3, {V30...}, V5, of 128 and of 64 bits
                let word = 0x4e05_03c3 | keeps_old << 12 | more << 13;
                for word in [word, word & !0x4000_0000] {
                    let op = bind(&instruction(word)).expect("an allocated encoding");
                    let mut regs = registers(seed);
                    // indices that the table has, besides random ones
                    regs.v[5].0[0] &= 0x3f3f_3f3f_3f3f_3f3f;
                    let handler = portable[keeps_old as usize][more as usize];
                    let expected = execute(handler, &op, regs.clone());
                    assert_eq!(execute(op.run, &op, regs), expected, "{word:08x}");
                }
            }
        }
    }
}
