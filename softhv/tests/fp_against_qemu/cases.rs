//! Operands and machine state: seeded, rich in corners.

/// State before an instruction: V0 to V3, X1, control and flags.
#[derive(Clone, Debug)]
pub struct Case {
    pub fpcr: u64,
    pub fpsr: u64,
    pub nzcv: u64,
    pub x1: u64,
    pub v: [[u64; 2]; 4],
}

impl Case {
    /// The guest's input record.
    pub fn record(&self) -> Vec<u8> {
        let head = [self.fpcr, self.fpsr, self.nzcv, self.x1];
        let words = head.into_iter().chain(self.v.into_iter().flatten());
        words.flat_map(u64::to_le_bytes).collect()
    }
}

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// One of `from`.
    pub fn choose<T: Copy, const N: usize>(&mut self, from: [T; N]) -> T {
        let at = usize::try_from(self.next() % N as u64).expect("an index");
        from[at]
    }
}

/// Exponent and fraction widths of half, single and double.
const FORMATS: [(u32, u32); 3] = [(5, 10), (8, 23), (11, 52)];

/// One operand of a format: a corner, or random near one.
fn number(random: &mut Random, exp_bits: u32, frac_bits: u32) -> u64 {
    let bits = 1 + exp_bits + frac_bits;
    let frac_mask = (1u64 << frac_bits) - 1;
    let exp_max = (1u64 << exp_bits) - 1;
    let bias = exp_max >> 1;
    let sign = (random.next() & 1) << (bits - 1);
    let near = random.below(3).wrapping_sub(1);
    let fraction = match random.below(6) {
        0 => 0,
        1 => frac_mask,
        2 => 1 << random.below(u64::from(frac_bits)),
        3 => frac_mask << random.below(u64::from(frac_bits)) & frac_mask,
        _ => random.next() & frac_mask,
    };
    let frac = fraction.wrapping_add(near) & frac_mask;
    let exp = match random.below(16) {
        0 => return sign,
        1 => 0,
        2 => exp_max,
        3 => 1 + random.below(2),
        4 => exp_max - 1 - random.below(2),
        5 | 6 => bias + random.below(3) - 1,
        7 => bias + random.below(u64::from(frac_bits) + 2),
        8 => (bias + 29 + random.below(5)).min(exp_max),
        9 => (bias + 61 + random.below(5)).min(exp_max),
        // Around the limits of the narrower formats and of the estimates.
        10 => bias.saturating_sub(random.choose([13, 15, 24, 25, 126, 127, 149, 150])),
        11 => (bias + random.choose([15, 16, 126, 127, 128])).min(exp_max - 1),
        12 => bias.saturating_sub(random.below(60)),
        13 => random.below(u64::from(frac_bits)) + 1,
        14 => bias + frac_bits as u64 - random.below(4),
        _ => random.below(exp_max + 1),
    };
    sign | exp.min(exp_max) << frac_bits | frac
}

/// A vector register full of numbers of one format.
fn lanes(random: &mut Random, format: usize) -> [u64; 2] {
    let (exp, frac) = FORMATS[format];
    let bits = 1 + exp + frac;
    let mut half = || {
        (0..64 / bits).fold(0, |all, lane| {
            all | number(random, exp, frac) << (lane * bits)
        })
    };
    [half(), half()]
}

fn integer(random: &mut Random) -> u64 {
    let base = match random.below(4) {
        0 => random.next() >> random.below(64),
        1 => u64::MAX << random.below(64),
        2 => 1 << random.below(64),
        _ => random.choose([0, 0xffff_ffff, 0x7fff_ffff, 0x8000_0000, u64::MAX >> 1]),
    };
    base.wrapping_add(random.below(3)).wrapping_sub(1)
}

fn control(random: &mut Random) -> (u64, u64) {
    // RMode 23:22, FZ 24, DN 25, AHP 26; a third of the cases are default.
    let fpcr = match random.below(3) {
        0 => 0,
        _ => random.below(32) << 22,
    };
    let fpsr = match random.below(3) {
        0 => 0,
        1 => 1 << 4,
        _ => random.next() & 0x9f,
    };
    (fpcr, fpsr)
}

/// `count` cases from `seed`.
pub fn generate(seed: u64, count: usize) -> Vec<Case> {
    let mut random = Random(seed);
    let random = &mut random;
    (0..count)
        .map(|_| {
            let (fpcr, fpsr) = control(random);
            let format = random.choose([0, 1, 1, 1, 2, 2, 2]);
            let mut v = [(); 4].map(|()| lanes(random, format));
            match random.below(8) {
                // Equal, opposite and neighbouring operands.
                0 => v[2] = v[1],
                1 => v[2] = v[1].map(|half| half ^ [0, 1 << 31 | 1 << 63, 1 << 63][format]),
                2 => v[2] = v[1].map(|half| half.wrapping_add(1)),
                3 => v[1] = [integer(random), integer(random)],
                _ => {}
            }
            Case {
                fpcr,
                fpsr,
                nzcv: random.below(16) << 28,
                x1: integer(random),
                v,
            }
        })
        .collect()
}
