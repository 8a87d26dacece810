//! Streams of instructions of every group.

use super::classes::{CLASSES, COMMON, Kind, TESTS};
use super::known::excluded;
use super::{Random, STREAM_BYTES, Stream, inputs};
use supermachine_softhv::cpu::op::Handler;
use supermachine_softhv::decode::instruction;
use supermachine_softhv::exec::bind::{Context, bind};
use supermachine_softhv::exec::system::undefined;
use supermachine_softhv::mode::Mode;

/// Registers that streams must not lose: an index and three bases.
const KEPT: std::ops::RangeInclusive<u32> = 25..=28;

/// The engine decodes the word as an instruction.
pub fn is_defined(word: u32) -> bool {
    let mode = Mode {
        user: true,
        fp_traps: false,
        sp_off: false,
    };
    let bound = bind(&instruction(word), Context { mode, offset: 0 });
    !std::ptr::fn_addr_eq(bound.op.run, undefined as Handler)
}

fn field(word: u32, low: u32, value: u64) -> u32 {
    word & !(31 << low) | (value as u32) << low
}

/// A register that may be overwritten.
fn spare(random: &mut Random) -> u64 {
    match random.below(27) {
        25 => 30,
        26 => 31,
        n => n.min(24),
    }
}

/// A base: any alignment, or mostly aligned.
fn base(random: &mut Random, aligned: bool, moves: bool) -> u64 {
    if random.one_in(256) {
        return random.below(32);
    }
    if moves && !random.one_in(16) {
        return random.choose(&[28, 31]);
    }
    let any: &[u64] = &[26, 27, 28, 31];
    let from = if aligned && !random.one_in(24) {
        &[26, 26, 27]
    } else {
        any
    };
    random.choose(from)
}

fn steer(random: &mut Random, kind: Kind, mut word: u32) -> u32 {
    let lost = |word: u32, low: u32| KEPT.contains(&(word >> low & 31));
    match kind {
        Kind::Vector => return word,
        Kind::Data => {
            // SP is a base too; as a destination of the flag-setting forms and
            // of the rest it is XZR.
            let is_sp = word & 31 == 31 && !random.one_in(8);
            if is_sp || lost(word, 0) && !random.one_in(32) {
                word = field(word, 0, spare(random) % 31);
            }
            return word;
        }
        _ => {}
    }
    if lost(word, 0) && word >> 26 & 1 == 0 {
        word = field(word, 0, spare(random));
    }
    let aligned = matches!(kind, Kind::Atomic) || word & 0x3f00_0000 == 0x0800_0000;
    // Forms with writeback, whose bases lose their alignment.
    let moves = match kind {
        Kind::Memory => word >> 10 & 1 == 1,
        Kind::Pair | Kind::Structure => word >> 23 & 1 == 1,
        _ => false,
    };
    word = field(word, 5, base(random, aligned, moves));
    match kind {
        Kind::Pair if lost(word, 10) && word >> 26 & 1 == 0 => field(word, 10, spare(random)),
        Kind::Scaled if !random.one_in(32) => {
            let scale = if word >> 26 & 1 == 1 && word >> 23 & 1 == 1 {
                4
            } else {
                word >> 30
            };
            let offset = random.below(1024 >> scale) as u32;
            word & !(0xfff << 10) | offset << 10
        }
        Kind::Indexed if !random.one_in(32) => field(word, 16, 25),
        Kind::Structure if word >> 23 & 1 == 1 => field(word, 16, random.choose(&[25, 31])),
        Kind::Atomic if word & 0xbfa0_7c00 == 0x0820_7c00 => {
            // casp: even, and away from the bases.
            let pair = random.below(12) * 2;
            field(word & !1, 16, pair)
        }
        Kind::Atomic if lost(word, 16) => field(word, 16, spare(random)),
        _ => word,
    }
}

/// A random word of a class.
fn of_class(random: &mut Random) -> u32 {
    let total: u32 = CLASSES.iter().map(|c| c.3).sum();
    let mut pick = random.below(u64::from(total)) as u32;
    let class = CLASSES.iter().find(|c| {
        let found = pick < c.3;
        pick = pick.wrapping_sub(if found { 0 } else { c.3 });
        found
    });
    let &(mask, value, kind, _) = class.expect("weights add up");
    let word = random.next() as u32 & !mask | value;
    let word = alias(random, word);
    steer(random, kind, word & !mask | value)
}

/// Sometimes makes register fields equal, which random ones rarely are.
fn alias(random: &mut Random, word: u32) -> u32 {
    match random.below(12) {
        0 => field(word, 0, u64::from(word >> 5 & 31)),
        1 => field(word, 16, u64::from(word >> 5 & 31)),
        2 => field(word, 16, u64::from(word & 31)),
        _ => word,
    }
}

/// An instruction that both sides have.
fn defined(random: &mut Random) -> u32 {
    loop {
        let word = of_class(random);
        if is_defined(word) && excluded(word).is_none() {
            return word;
        }
    }
}

/// A branch, to be aimed by [`aim`].
fn branch(random: &mut Random) -> Vec<u32> {
    let register = random.below(31) as u32;
    let (any, condition) = (random.next() as u32, random.below(16) as u32);
    match random.below(8) {
        0 => vec![0x1400_0000 | (any & 1) << 31],
        1..=3 => vec![0x5400_0000 | condition],
        4 => vec![0x3400_0000 | any & 0x8100_0000 | register],
        5 => vec![0x3600_0000 | any & 0x81f8_0000 | register],
        _ => {
            // adr; br, blr or ret. Bits 1:0 of the target are rarely not zero.
            let register = spare(random) as u32 % 25;
            let low = if random.one_in(64) { any & 3 } else { 0 };
            let how = random.choose(&[0xd61f_0000, 0xd63f_0000, 0xd65f_0000]);
            vec![0x1000_0000 | low << 29 | register, how | register << 5]
        }
    }
}

/// Sets the target of a branch made by [`branch`] to `ahead` words from its
/// first word.
fn aim(words: &mut [u32], ahead: u32) {
    let narrow = words[0] & 0x7c00_0000 == 0x1400_0000;
    words[0] |= if narrow { ahead } else { ahead << 5 };
}

/// Load-exclusive, something on the value, store-exclusive.
fn exclusive(random: &mut Random, words: &mut Vec<u32>) {
    let (base, any) = (random.choose(&[26u32, 27]), random.next() as u32);
    let (value, second, status) = (
        random.below(8) as u32,
        8 + random.below(8) as u32,
        16 + random.below(8) as u32,
    );
    let order = any & 0x8000;
    let size = any & 0xc000_0000;
    if random.one_in(4) {
        words.push(0x887f_0000 | order | any & 0x4000_0000 | second << 10 | base << 5 | value);
        words.push(defined_data(random));
        words.push(
            0x8820_0000
                | order
                | any & 0x4000_0000
                | status << 16
                | second << 10
                | base << 5
                | value,
        );
    } else {
        words.push(0x085f_7c00 | order | size | base << 5 | value);
        words.push(defined_data(random));
        // Of the same size: QEMU compares values only, the engine sizes too,
        // and the architecture lets the others fail or succeed.
        words.push(0x0800_7c00 | order | size | status << 16 | base << 5 | value);
    }
}

fn defined_data(random: &mut Random) -> u32 {
    loop {
        let word = defined(random);
        if word >> 25 & 7 == 5 {
            return word;
        }
    }
}

/// System registers, hints, barriers, cache instructions.
fn system(random: &mut Random, words: &mut Vec<u32>) {
    let register = spare(random) as u32 % 25;
    let any = random.next();
    match random.below(10) {
        // movz, movk, msr fpcr or fpsr
        0 | 1 => {
            let (bits, msr) = if any & 1 == 0 {
                (inputs::FPCR_BITS, 0xd51b_4400)
            } else {
                (inputs::FPSR_BITS, 0xd51b_4420)
            };
            let value = (any >> 8) as u32 & bits;
            words.push(0xd280_0000 | (value & 0xffff) << 5 | register);
            words.push(0xf2a0_0000 | value >> 16 << 5 | register);
            words.push(msr | register);
        }
        2 => words.push(0xd53b_4400 | register),
        3 => words.push(0xd53b_4420 | register),
        4 => words.push(0xd53b_4200 | register),
        5 => words.push(0xd51b_4200 | register),
        6 => words.extend([
            0xd51b_d040 | register,
            0xd53b_d040 | random.below(25) as u32,
        ]),
        7 => {
            // Hints without WFI; barriers; clrex.
            let hint = random.choose(&[0u32, 1, 2, 4, 5, 7, 16, 17, 20, 25, 29, 32, 36, 40]);
            let option = (any & 15) as u32;
            let barrier = random.choose(&[0xd503_305f, 0xd503_309f, 0xd503_30bf, 0xd503_30df]);
            words.push(if any & 16 == 0 {
                0xd503_201f | hint << 5
            } else {
                barrier | option << 8
            });
        }
        // dc zva, anywhere in the window.
        8 => words.push(0xd50b_7420 | random.choose(&[26, 26, 27, 28])),
        _ => {
            // dc cvac, civac, cvau; ic ivau. QEMU's user mode has no cvap.
            let how = random.choose(&[0xd50b_7a20, 0xd50b_7e20, 0xd50b_7b20, 0xd50b_7520]);
            words.push(how | 26);
        }
    }
}

/// A defined instruction of one of the classes.
fn one_of(random: &mut Random, classes: &[(u32, u32, Kind)]) -> u32 {
    loop {
        let (mask, value, kind) = random.choose(classes);
        let word = random.next() as u32 & !mask | value;
        let word = steer(random, kind, word) & !mask | value;
        if is_defined(word) && excluded(word).is_none() {
            return word;
        }
    }
}

/// A stream under construction.
#[derive(Default)]
struct Draft {
    words: Vec<u32>,
    /// Where instructions that belong together start, so that no branch leads
    /// into their middle.
    starts: Vec<usize>,
    /// Which of them branch.
    branches: Vec<usize>,
}

impl Draft {
    fn add(&mut self, words: &[u32]) {
        self.starts.push(self.words.len());
        self.words.extend(words);
    }

    fn add_branch(&mut self, words: &[u32]) {
        self.branches.push(self.starts.len());
        self.add(words);
    }

    /// Neighbours that the engine may serve together.
    fn add_common(&mut self, random: &mut Random) {
        if random.one_in(3) {
            self.add(&[one_of(random, TESTS)]);
            return self.add_branch(&[0x5400_0000 | random.below(16) as u32]);
        }
        let first = one_of(random, COMMON);
        self.add(&[first]);
        match random.below(4) {
            0 => {
                let any = random.next() as u32 & 0x8100_0000;
                self.add_branch(&[0x3400_0000 | any | first & 31]);
            }
            1 if first >> 31 == 1 && first & 31 != 31 && !KEPT.contains(&(first & 31)) => {
                // add xd, xd, #imm
                let any = random.next() as u32 & 0xfff << 10;
                self.add(&[0x9100_0000 | any | (first & 31) << 5 | first & 31]);
            }
            _ => self.add(&[one_of(random, COMMON)]),
        }
    }

    /// A loop of few rounds that X24 counts.
    fn add_loop(&mut self, random: &mut Random) {
        let mut words = vec![0xd280_0018 | (1 + random.below(5) as u32) << 5];
        let counts = |word: u32| [0, 5, 10, 16].iter().any(|low| word >> low & 31 == 24);
        for _ in 0..1 + random.below(6) {
            let word = defined(random);
            words.push(if counts(word) { super::NOP } else { word });
        }
        let back = 0u32.wrapping_sub(words.len() as u32) & 0x7_ffff;
        // subs x24, x24, #1; b.ne, or sub and cbnz: to the first of the body.
        words.extend(match random.below(2) {
            0 => [0xf100_0718, 0x5400_0001 | back << 5],
            _ => [0xd100_0718, 0xb500_0018 | back << 5],
        });
        self.add(&words);
    }
}

/// A stream of 16 to 64 instructions, and a few more.
pub fn stream(random: &mut Random) -> Stream {
    let count = 16 + random.below(49) as usize;
    let mut draft = Draft::default();
    while draft.words.len() < count {
        let mut several = Vec::new();
        match random.below(40) {
            0..=2 => {
                let words = branch(random);
                draft.add_branch(&words);
                continue;
            }
            3..=8 => {
                draft.add_common(random);
                continue;
            }
            9 => {
                draft.add_loop(random);
                continue;
            }
            10 => exclusive(random, &mut several),
            11 => system(random, &mut several),
            12 => several.push(literal(random, draft.words.len() as u32, count as u32)),
            _ => several.push(defined(random)),
        }
        draft.add(&several);
    }
    let Draft {
        mut words,
        starts,
        branches,
    } = draft;
    let end = words.len();
    for at in branches {
        let target = at + 1 + random.below(4) as usize;
        let target = starts.get(target).copied().unwrap_or(end);
        let here = starts[at];
        aim(&mut words[here..], (target - here) as u32);
    }
    Stream { words }
}

/// A load from the stream itself.
fn literal(random: &mut Random, at: u32, count: u32) -> u32 {
    let kind = random.choose(&[
        0x1800_0000,
        0x5800_0000,
        0x9800_0000,
        0xd800_0000,
        0x1c00_0000,
        0x5c00_0000,
        0x9c00_0000,
    ]);
    // Two words before the last four of it, since the next stream follows.
    let target = random.below(u64::from(count)) as u32;
    let offset = target.wrapping_sub(at) & 0x7_ffff;
    kind | offset << 5 | spare(random) as u32
}

/// One random word, allocated or not, anywhere in the encoding space or in a
/// class of it.
pub fn raw(random: &mut Random) -> Stream {
    loop {
        let word = if random.one_in(2) {
            of_class(random)
        } else {
            random.next() as u32
        };
        if excluded(word).is_none() {
            return Stream { words: vec![word] };
        }
    }
}

/// Streams fit what is reserved for them.
pub const MAX_STREAMS: usize = STREAM_BYTES as usize / 4 / 80;
