//! Random instruction streams, executed by `qemu-aarch64` and by the engine
//! through its C ABI, every register and all memory compared.
#![allow(dead_code, clippy::cast_possible_truncation)]

pub mod assembler;
pub mod campaign;
pub mod classes;
pub mod engine;
pub mod generate;
pub mod inputs;
pub mod known;
pub mod qemu;
pub mod report;

/// Where streams are.
///
/// No power of two, which a wild branch would find too easily.
pub const STREAMS: u64 = 0x0160_0000;
/// Bytes reserved for streams, on both sides.
pub const STREAM_BYTES: u64 = 0x20_0000;
/// Six pages that streams load and store in: two writable, one read-only, one
/// writable, a hole, one writable.
pub const WINDOW: u64 = 0x2000_0000;
/// Pages of the window with the offsets of their initial content in the image.
pub const WRITABLE: [(u64, usize); 4] = [(0, 0), (1, 0x1000), (3, 0x2000), (5, 0x3000)];
/// The page of the window that may only be read.
pub const READ_ONLY: u64 = 2;
/// Bytes of the initial content of the writable pages.
pub const IMAGE_BYTES: usize = 0x4000;
/// Ends a stream: BRK #0x7777.
pub const END: u32 = 0xd42e_eee0;
/// NOP.
pub const NOP: u32 = 0xd503_201f;

/// SplitMix64: seeded, so that a seed names a case.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

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

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Every register that EL0 can see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    pub x: [u64; 31],
    pub sp: u64,
    pub nzcv: u64,
    pub fpcr: u32,
    pub fpsr: u32,
    pub v: [u128; 32],
    pub tpidr: u64,
}

/// What ended a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// BRK, as at the end of each stream.
    Break,
    /// Undefined instruction.
    Undefined,
    /// No translation.
    Unmapped(u64),
    /// Not allowed.
    Denied(u64),
    /// Access not aligned.
    Unaligned(u64),
    /// Anything else, which is never expected: signal or exception class.
    Other(u64),
}

impl Stop {
    /// The same with the address of `other`, if that is in the same 64 bytes:
    /// user mode sees where DC ZVA begins to store, the architecture reports
    /// the address given.
    pub fn in_block_of(self, other: Self) -> Self {
        let (Self::Denied(near) | Self::Unmapped(near)) = other else {
            return self;
        };
        match self {
            Self::Denied(at) if at / 64 == near / 64 => Self::Denied(near),
            Self::Unmapped(at) if at / 64 == near / 64 => Self::Unmapped(near),
            _ => self,
        }
    }
}

/// Sums of the writable pages' 64-bit words, by position modulo 64 bytes, and
/// the sums of those sums: any change shows, and any move of bytes does.
pub type Sums = [u64; 16];

/// What a stream left behind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub stop: Stop,
    pub pc: u64,
    pub state: State,
    pub sums: Sums,
}

/// Adds `bytes`, a multiple of 64, to the sums.
pub fn sum(sums: &mut Sums, bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<64>();
    assert!(rest.is_empty());
    for block in words {
        for (i, word) in block.as_chunks::<8>().0.iter().enumerate() {
            sums[i] = sums[i].wrapping_add(u64::from_le_bytes(*word));
            sums[8 + i] = sums[8 + i].wrapping_add(sums[i]);
        }
    }
}

/// A stream of instructions, without its final [`END`].
#[derive(Clone, Debug)]
pub struct Stream {
    pub words: Vec<u32>,
}

/// Streams, states and the runs that combine them.
pub struct Batch {
    pub streams: Vec<Stream>,
    pub states: Vec<State>,
    /// Stream and state of each run.
    pub runs: Vec<(usize, usize)>,
    /// Initial content of the writable pages.
    pub image: Vec<u8>,
    /// Bytes from [`STREAMS`] to the first stream.
    pub origin: u64,
}

impl Batch {
    /// Addresses of the streams, laid out one after the other.
    pub fn addresses(&self) -> Vec<u64> {
        let mut at = STREAMS + self.origin;
        let mut next = |stream: &Stream| {
            let here = at;
            at += 4 * (stream.words.len() as u64 + 1);
            here
        };
        self.streams.iter().map(&mut next).collect()
    }

    /// What the memory reserved for streams holds: the words of all streams
    /// with their ends, and zeros around them.
    pub fn code(&self) -> Vec<u8> {
        let mut code = vec![0; self.origin as usize];
        for stream in &self.streams {
            let words = stream.words.iter().chain([&END]);
            code.extend(words.flat_map(|word| word.to_le_bytes()));
        }
        assert!(code.len() as u64 <= STREAM_BYTES);
        code.resize(STREAM_BYTES as usize, 0);
        code
    }
}
