//! AES, SHA-1, SHA-256 and 64-bit polynomial multiplication. Arm ARM C4.1.96,
//! "Cryptographic AES", "three-register SHA", "two-register SHA".
//!
//! This file has the portable semantics; where the host has instructions for
//! the same, binding chooses the handlers of [`host_crypto`] instead.

use super::forms::{d, m, n, put};
use super::{Pure, host_crypto, run};
use crate::cpu::op::{Handler, Op};
use crate::insn::simd::{VecBinary, VecUnary};
use crate::regs::{Regs, V};

/// AES, SHA1H, SHA1SU1, SHA256SU0.
pub fn unary(op: VecUnary) -> Option<Handler> {
    Some(match op {
        VecUnary::Aese => host_crypto::AESE.choose(run::<Aese>()),
        VecUnary::Aesd => host_crypto::AESD.choose(run::<Aesd>()),
        VecUnary::Aesmc => host_crypto::AESMC.choose(run::<Aesmc>()),
        VecUnary::Aesimc => host_crypto::AESIMC.choose(run::<Aesimc>()),
        VecUnary::Sha1h => run::<Sha1h>(),
        VecUnary::Sha1su1 => run::<Sha1su1>(),
        VecUnary::Sha256su0 => host_crypto::SHA256SU0.choose(run::<Sha256su0>()),
        _ => return None,
    })
}

/// SHA1C, SHA1P, SHA1M, SHA1SU0, SHA256H, SHA256H2, SHA256SU1.
pub fn binary(op: VecBinary) -> Option<Handler> {
    Some(match op {
        VecBinary::Sha1c => run::<Sha1c>(),
        VecBinary::Sha1p => run::<Sha1p>(),
        VecBinary::Sha1m => run::<Sha1m>(),
        VecBinary::Sha1su0 => run::<Sha1su0>(),
        VecBinary::Sha256h => host_crypto::SHA256H.choose(run::<Sha256h>()),
        VecBinary::Sha256h2 => host_crypto::SHA256H2.choose(run::<Sha256h2>()),
        VecBinary::Sha256su1 => host_crypto::SHA256SU1.choose(run::<Sha256su1>()),
        _ => return None,
    })
}

/// PMULL, PMULL2 of doublewords.
pub fn multiply_64() -> Handler {
    host_crypto::PMULL.choose(run::<Pmull64>())
}

macro_rules! crypto_ops {
    ($($(#[$doc:meta])* $name:ident($d:ident, $n:ident, $m:ident) = $body:expr;)*) => {$(
        $(#[$doc])*
        struct $name;
        impl Pure for $name {
            // Not inlined: some have their state on the stack, which a tail
            // call gives up, and a call is little beside these loops.
            #[inline(never)]
            fn exec(regs: &mut Regs, op: &Op) {
                let ($d, $n, $m) = (d(regs, op), n(regs, op), m(regs, op));
                put(regs, op, $body);
            }
        }
    )*};
}

crypto_ops! {
    Aese(d, n, _m) = aese(d, n);
    Aesd(d, n, _m) = aesd(d, n);
    Aesmc(_d, n, _m) = mix_columns(n, [2, 3, 1, 1]);
    Aesimc(_d, n, _m) = mix_columns(n, [14, 11, 13, 9]);
    Sha1c(d, n, m) = sha1_rounds(d, n, m, |b, c, d| d ^ (b & (c ^ d)));
    Sha1p(d, n, m) = sha1_rounds(d, n, m, |b, c, d| b ^ c ^ d);
    Sha1m(d, n, m) = sha1_rounds(d, n, m, |b, c, d| (b & c) | (d & (b | c)));
    Sha1su0(d, n, m) = V([d.0[0] ^ d.0[1] ^ m.0[0], d.0[1] ^ n.0[0] ^ m.0[1]]);
    Sha1h(_d, n, _m) = V::scalar(n.lane::<u32>(0).rotate_left(30));
    Sha1su1(d, n, _m) = sha1_schedule(d, n);
    Sha256h(d, n, m) = sha256_rounds(d, n, m).0;
    Sha256h2(d, n, m) = sha256_rounds(n, d, m).1;
    Sha256su0(d, n, _m) = sha256_schedule_0(d, n);
    Sha256su1(d, n, m) = sha256_schedule_1(d, n, m);
}

struct Pmull64;

impl Pure for Pmull64 {
    #[inline(never)]
    fn exec(regs: &mut Regs, op: &Op) {
        let half = usize::from(op.ra & 1);
        put(regs, op, multiply(n(regs, op).0[half], m(regs, op).0[half]));
    }
}

/// Product of polynomials over GF(2).
pub fn multiply(a: u64, b: u64) -> V {
    let product = (0..64).fold(0, |sum, bit| {
        let term = (u128::from(a) << bit) * u128::from(b >> bit & 1);
        sum ^ term
    });
    V::scalar::<u128>(product)
}

/// Product in the AES field: polynomials modulo x^8 + x^4 + x^3 + x + 1, FIPS
/// 197 section 4.2.
const fn field_product(mut a: u8, b: u8) -> u8 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 8 {
        if b >> bit & 1 == 1 {
            product ^= a;
        }
        a = (a << 1) ^ ((a >> 7) * 0x1b);
        bit += 1;
    }
    product
}

/// The S-box of FIPS 197 section 5.1.1: the inverse in the field, which is the
/// 254th power, under an affine map.
const SUBSTITUTE: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut inverse = 1;
        let mut power = 0;
        while power < 254 {
            inverse = field_product(inverse, i as u8);
            power += 1;
        }
        table[i] = inverse
            ^ inverse.rotate_left(1)
            ^ inverse.rotate_left(2)
            ^ inverse.rotate_left(3)
            ^ inverse.rotate_left(4)
            ^ 0x63;
        i += 1;
    }
    table
};

const SUBSTITUTE_BACK: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        table[SUBSTITUTE[i] as usize] = i as u8;
        i += 1;
    }
    table
};

fn xor(a: V, b: V) -> [u8; 16] {
    V([a.0[0] ^ b.0[0], a.0[1] ^ b.0[1]]).lanes::<u8>()
}

/// AddRoundKey, ShiftRows, SubBytes. Row r of column c is byte r + 4c, and
/// comes from column c + r.
pub fn aese(d: V, key: V) -> V {
    let state = xor(d, key);
    V::build::<u8>(|i| SUBSTITUTE[usize::from(state[i * 5 % 16])])
}

/// AddRoundKey, InvShiftRows, InvSubBytes.
pub fn aesd(d: V, key: V) -> V {
    let state = xor(d, key);
    V::build::<u8>(|i| SUBSTITUTE_BACK[usize::from(state[i * 13 % 16])])
}

/// MixColumns with the first row of the (circulant) matrix.
pub fn mix_columns(v: V, row: [u8; 4]) -> V {
    let state = v.lanes::<u8>();
    V::build::<u8>(|i| {
        let column = i & !3;
        (0..4).fold(0, |sum, k| {
            sum ^ field_product(state[column + ((i + k) & 3)], row[k])
        })
    })
}

/// Four rounds with the words of `schedule`, round constant included; `hash`
/// holds a, b, c, d and the lowest lane of `e` the fifth word.
fn sha1_rounds(hash: V, e: V, schedule: V, choose: impl Fn(u32, u32, u32) -> u32) -> V {
    let [mut a, mut b, mut c, mut d] = hash.lanes::<u32>();
    let mut e = e.lane::<u32>(0);
    for word in schedule.lanes::<u32>() {
        let next = e
            .wrapping_add(a.rotate_left(5))
            .wrapping_add(choose(b, c, d))
            .wrapping_add(word);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    V::from_lanes::<u32>([a, b, c, d])
}

fn sha1_schedule(d: V, n: V) -> V {
    let [n1, n2, n3] = [1, 2, 3].map(|i| n.lane::<u32>(i));
    let d = d.lanes::<u32>();
    let first = (d[0] ^ n1).rotate_left(1);
    let last = d[3].rotate_left(1) ^ first.rotate_left(1);
    V::from_lanes::<u32>([
        first,
        (d[1] ^ n2).rotate_left(1),
        (d[2] ^ n3).rotate_left(1),
        last,
    ])
}

/// Four rounds with the words of `schedule`, round constants included, on
/// a..d and e..h.
pub fn sha256_rounds(abcd: V, efgh: V, schedule: V) -> (V, V) {
    let [mut a, mut b, mut c, mut d] = abcd.lanes::<u32>();
    let [mut e, mut f, mut g, mut h] = efgh.lanes::<u32>();
    for word in schedule.lanes::<u32>() {
        let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t1 = h
            .wrapping_add(sum1)
            .wrapping_add(g ^ (e & (f ^ g)))
            .wrapping_add(word);
        let t2 = sum0.wrapping_add((a & b) | (c & (a | b)));
        (h, g, f, e) = (g, f, e, d.wrapping_add(t1));
        (d, c, b, a) = (c, b, a, t1.wrapping_add(t2));
    }
    (
        V::from_lanes::<u32>([a, b, c, d]),
        V::from_lanes::<u32>([e, f, g, h]),
    )
}

pub fn sha256_schedule_0(d: V, n: V) -> V {
    let words = d.lanes::<u32>();
    let next = [words[1], words[2], words[3], n.lane(0)];
    V::build::<u32>(|i| {
        let x = next[i];
        words[i].wrapping_add(x.rotate_right(7) ^ x.rotate_right(18) ^ (x >> 3))
    })
}

pub fn sha256_schedule_1(d: V, n: V, m: V) -> V {
    let sigma = |x: u32| x.rotate_right(17) ^ x.rotate_right(19) ^ (x >> 10);
    let (d, n, m) = (d.lanes::<u32>(), n.lanes::<u32>(), m.lanes::<u32>());
    let before = [m[2], m[3]].map(sigma);
    let middle = [n[1], n[2], n[3], m[0]];
    let sum = |i: usize, x: u32| d[i].wrapping_add(middle[i]).wrapping_add(x);
    let (first, second) = (sum(0, before[0]), sum(1, before[1]));
    V::from_lanes::<u32>([first, second, sum(2, sigma(first)), sum(3, sigma(second))])
}
