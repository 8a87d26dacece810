//! The cryptographic instructions against the examples of their standards.
//! Instruction words are as the GNU assembler makes them.
#![allow(clippy::cast_possible_truncation)]

mod simd_harness;

use simd_harness::{bytes, registers, result, run};
use supermachine_softhv::regs::V;

#[test]
fn aes_steps_match_the_example_of_fips_197() {
    // appendix B, round 1
    let start = 0x193d_e3be_a0f4_e22b_9ac6_8d2a_e9f8_4808u128.to_be_bytes();
    let shifted = 0xd4bf_5d30_e0b4_52ae_b841_11f1_1e27_98e5u128.to_be_bytes();
    let mixed = 0x0466_81e5_e0cb_199a_48f8_d37a_2806_264cu128.to_be_bytes();
    let key = 0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3cu128.to_be_bytes();
    let masked: [u8; 16] = std::array::from_fn(|i| start[i] ^ key[i]);
    let step = |word, old, source| {
        let mut regs = registers(&[bytes(source)]);
        regs.v[0] = bytes(old);
        run(word, &mut regs);
        regs.v[0]
    };
    assert_eq!(step(0x4e28_4820, masked, key), bytes(shifted), "aese");
    assert_eq!(step(0x4e28_6820, [0; 16], shifted), bytes(mixed), "aesmc");
    assert_eq!(step(0x4e28_7820, [0; 16], mixed), bytes(shifted), "aesimc");
    assert_eq!(step(0x4e28_5820, shifted, [0; 16]), bytes(start), "aesd");
}

/// Bits 32..64 of the fraction of the `degree`-th root of each prime.
fn root_fractions(count: usize, degree: u32) -> Vec<u32> {
    let is_prime = |n: &u128| (2..*n).all(|d| !n.is_multiple_of(d));
    let fraction = |prime: u128| {
        let target = prime << (32 * degree);
        let mut root = 0u128;
        for bit in (0..37).rev() {
            let next = root | 1 << bit;
            if next.pow(degree) <= target {
                root = next;
            }
        }
        (root & 0xffff_ffff) as u32
    };
    (2..).filter(is_prime).take(count).map(fraction).collect()
}

/// The padded block of "abc" as big-endian words.
fn abc_block() -> [u32; 16] {
    let mut block = [0; 16];
    block[0] = 0x6162_6380;
    block[15] = 24;
    block
}

fn quad(words: &[u32]) -> V {
    V::from_lanes::<u32>(words.try_into().expect("four words"))
}

#[test]
fn sha256_instructions_hash_abc() {
    let initial = root_fractions(8, 2);
    let constants = root_fractions(64, 3);
    let mut schedule: Vec<V> = abc_block().chunks_exact(4).map(quad).collect();
    for i in 4..16 {
        // sha256su0 v0.4s, v1.4s; sha256su1 v0.4s, v1.4s, v2.4s
        let mut regs = registers(&[schedule[i - 3]]);
        regs.v[0] = schedule[i - 4];
        run(0x5e28_2820, &mut regs);
        regs.v[1] = schedule[i - 2];
        regs.v[2] = schedule[i - 1];
        run(0x5e02_6020, &mut regs);
        schedule.push(regs.v[0]);
    }
    let (mut abcd, mut efgh) = (quad(&initial[..4]), quad(&initial[4..]));
    for (words, constants) in schedule.iter().zip(constants.chunks_exact(4)) {
        let words = words.zip::<u32>(quad(constants), u32::wrapping_add);
        // sha256h q0, q1, v2.4s; sha256h2 q0, q1, v2.4s
        let step = |word, first, second| {
            let mut regs = registers(&[second, words]);
            regs.v[0] = first;
            run(word, &mut regs);
            regs.v[0]
        };
        (abcd, efgh) = (step(0x5e02_4020, abcd, efgh), step(0x5e02_5020, efgh, abcd));
    }
    let add = |v: V, words: &[u32]| v.zip::<u32>(quad(words), u32::wrapping_add);
    assert_eq!(
        add(abcd, &initial[..4]),
        quad(&[0xba78_16bf, 0x8f01_cfea, 0x4141_40de, 0x5dae_2223])
    );
    assert_eq!(
        add(efgh, &initial[4..]),
        quad(&[0xb003_61a3, 0x9617_7a9c, 0xb410_ff61, 0xf200_15ad])
    );
}

#[test]
fn sha1_instructions_hash_abc() {
    let initial = [
        0x6745_2301,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0u32,
    ];
    let constants = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6u32];
    let mut schedule: Vec<V> = abc_block().chunks_exact(4).map(quad).collect();
    for i in 4..20 {
        // sha1su0 v0.4s, v1.4s, v2.4s; sha1su1 v0.4s, v1.4s
        let mut regs = registers(&[schedule[i - 3], schedule[i - 2]]);
        regs.v[0] = schedule[i - 4];
        run(0x5e02_3020, &mut regs);
        regs.v[1] = schedule[i - 1];
        run(0x5e28_1820, &mut regs);
        schedule.push(regs.v[0]);
    }
    let (mut abcd, mut e) = (quad(&initial[..4]), V::scalar(initial[4]));
    for (i, words) in schedule.iter().enumerate() {
        let words = words.map::<u32>(|word| word.wrapping_add(constants[i / 5]));
        // sha1h s0, s1
        let next_e = result(0x5e28_0820, &[abcd]).0;
        // sha1c, sha1p, sha1m, sha1p q0, s1, v2.4s
        let round = [0x5e02_0020, 0x5e02_1020, 0x5e02_2020, 0x5e02_1020][i / 5];
        let mut regs = registers(&[e, words]);
        regs.v[0] = abcd;
        run(round, &mut regs);
        (abcd, e) = (regs.v[0], next_e);
    }
    let digest = abcd.zip::<u32>(quad(&initial[..4]), u32::wrapping_add);
    assert_eq!(
        digest,
        quad(&[0xa999_3e36, 0x4706_816a, 0xba3e_2571, 0x7850_c26c])
    );
    assert_eq!(e.lane::<u32>(0).wrapping_add(initial[4]), 0x9cd0_d89d);
}
