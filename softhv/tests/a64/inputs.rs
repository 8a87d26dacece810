//! Initial states, rich in the values at which instructions change behaviour.

use super::{IMAGE_BYTES, Random, State, WINDOW};

/// Exponent and fraction widths of half, single and double.
const FORMATS: [(u32, u32); 3] = [(5, 10), (8, 23), (11, 52)];

/// Bits 26:22 of FPCR (AHP, DN, FZ, RMode), the ones both sides have.
pub const FPCR_BITS: u32 = 0x07c0_0000;
/// QC, IDC and the other cumulative flags.
pub const FPSR_BITS: u32 = 0x0800_009f;

/// A number of a floating-point format: a corner, or near one.
fn number(random: &mut Random, (exp_bits, frac_bits): (u32, u32)) -> u64 {
    let frac_mask = (1u64 << frac_bits) - 1;
    let exp_max = (1u64 << exp_bits) - 1;
    let bias = exp_max >> 1;
    let sign = (random.next() & 1) << (exp_bits + frac_bits);
    let frac = match random.below(5) {
        0 => 0,
        1 => frac_mask,
        2 => 1 << random.below(u64::from(frac_bits)),
        _ => random.next() & frac_mask,
    };
    let exp = match random.below(12) {
        0 => return sign,
        1 => 0,
        2 => exp_max,
        3 => 1 + random.below(2),
        4 => exp_max - 1 - random.below(2),
        5 => bias + random.below(3) - 1,
        6 => bias + random.below(u64::from(frac_bits) + 2),
        7 => bias + 29 + random.below(5),
        8 => bias + 61 + random.below(5),
        9 => bias.saturating_sub(random.choose(&[13, 15, 24, 25, 126, 127, 149, 150])),
        10 => bias + random.choose(&[15, 16, 126, 127, 128]),
        _ => random.below(exp_max + 1),
    };
    sign | exp.min(exp_max) << frac_bits | frac
}

/// 64 bits of lanes of one width, integers or floating-point numbers.
fn lanes(random: &mut Random) -> u64 {
    let fill = |bits: u32, lane: &mut dyn FnMut() -> u64| {
        let mask = u64::MAX >> (64 - bits);
        (0..64 / bits).fold(0, |all, i| all | (lane() & mask) << (i * bits))
    };
    if random.one_in(2) {
        let format = random.choose(&FORMATS);
        return fill(1 + format.0 + format.1, &mut || number(random, format));
    }
    let bits = 8u32 << random.below(4);
    let min = 1u64 << (bits - 1);
    fill(bits, &mut || match random.below(12) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => min,
        4 => min - 1,
        5 => min + 1,
        6 => u64::from(bits) - random.below(2),
        7 => random.below(u64::from(bits)).wrapping_neg(),
        _ => random.next(),
    })
}

fn general(random: &mut Random) -> u64 {
    let base = match random.below(6) {
        0 => random.next() >> random.below(64),
        1 => u64::MAX << random.below(64),
        2 => 1 << random.below(64),
        3 => lanes(random),
        4 => random.choose(&[0, 0xffff_ffff, 0x7fff_ffff, 0x8000_0000, u64::MAX >> 1]),
        _ => random.next(),
    };
    base.wrapping_add(random.below(3)).wrapping_sub(1)
}

/// An address in the window, a multiple of `align`: mostly where both
/// neighbours are writable, sometimes near the other kinds of page edge.
fn address(random: &mut Random, align: u64) -> u64 {
    let edge = match random.below(32) {
        0 => random.choose(&[0, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000]),
        1 => 0x2000,
        _ => 0x1000,
    };
    let spread = random.choose(&[16, 64, 2048]);
    let at = WINDOW + edge + random.below(2 * spread) - spread;
    // A tag in the top byte is ignored.
    let tag = if random.one_in(8) {
        random.below(256) << 56
    } else {
        0
    };
    tag | at & !(align - 1)
}

/// An index for register offsets: mostly small however it is extended.
fn index(random: &mut Random) -> u64 {
    match random.below(16) {
        0 => random.below(64).wrapping_neg(),
        1 => random.next() << 32 | random.below(64),
        2 => random.next() << 32 | (random.below(64).wrapping_neg() & 0xffff_ffff),
        _ => random.below(64),
    }
}

/// A state: X25 an index, X26 to X28 and SP bases, the rest anything.
pub fn state(random: &mut Random) -> State {
    let mut x = [0; 31];
    x.fill_with(|| general(random));
    x[25] = index(random);
    x[26] = address(random, 64);
    x[27] = address(random, 16);
    x[28] = address(random, 1);
    let mut v = [0; 32];
    v.fill_with(|| u128::from(lanes(random)) | u128::from(lanes(random)) << 64);
    State {
        x,
        sp: address(random, 16),
        nzcv: random.below(16) << 28,
        fpcr: if random.one_in(3) {
            0
        } else {
            random.next() as u32 & FPCR_BITS
        },
        fpsr: if random.one_in(3) {
            0
        } else {
            random.next() as u32 & FPSR_BITS
        },
        v,
        tpidr: random.next(),
    }
}

/// Initial content of the writable pages.
pub fn image(random: &mut Random) -> Vec<u8> {
    (0..IMAGE_BYTES / 8)
        .flat_map(|_| lanes(random).to_le_bytes())
        .collect()
}

/// Content of the read-only page, always the same.
pub fn read_only_page() -> Vec<u8> {
    let mut random = Random::new(0x0072_6561_646f_6e6c);
    (0..4096 / 8)
        .flat_map(|_| lanes(&mut random).to_le_bytes())
        .collect()
}
