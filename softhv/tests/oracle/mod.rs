//! An interpreter of A64 at EL0 that is slow, obvious, and shares nothing with
//! the engine: every step fetches a word and takes its fields apart here, in
//! the terms of the Arm ARM's pseudocode (chapter C6 and J1), with plain
//! integer arithmetic on registers of this crate's own. The engine's decoder,
//! its tables and its handlers are never called.
//!
//! Covered: all integer data processing, branches, loads and stores of general
//! and of vector registers in every addressing mode, exclusives, ordered
//! accesses, the LSE atomics, CRC32, the system registers that programs use,
//! hints, barriers, DC ZVA; of the Advanced SIMD group, what [`vector`] names.
//!
//! Not covered, and so not in its streams: floating-point and the rest of
//! Advanced SIMD data processing, and system instructions other than those.
//! They are compared with QEMU only.
#![allow(clippy::cast_possible_truncation)]

mod arithmetic;
mod atomics;
mod branches;
mod immediates;
mod memory;
mod registers;
mod structures;
mod system;
mod transfers;
mod vector;
mod vector_moves;
mod vector_reduce;
mod vector_shifts;

use super::a64::inputs::read_only_page;
use super::a64::{Batch, Outcome, State, Stop, WRITABLE, sum};
use arithmetic::{bit, bits};
use memory::Memory;

/// What an instruction comes to: done, or the exception it took.
type Step = Result<(), Stop>;

/// Not an allocated encoding, or not one of EL0's.
const UNDEFINED: Step = Err(Stop::Undefined);

/// What a load-exclusive marked (Arm ARM B2.17). The engine and QEMU compare
/// values, which the architecture allows for what one processor can see.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Marked {
    address: u64,
    bytes: u64,
    value: u128,
}

/// One processor and its memory.
struct Oracle<'a> {
    x: [u64; 31],
    sp: u64,
    /// N, Z, C, V in bits 3 to 0.
    flags: u8,
    fpcr: u32,
    fpsr: u32,
    v: [u128; 32],
    tpidr: u64,
    pc: u64,
    /// Where the next instruction is.
    next: u64,
    marked: Option<Marked>,
    memory: Memory<'a>,
}

impl Oracle<'_> {
    /// General register `n`, where 31 reads as zero.
    fn x(&self, n: u32) -> u64 {
        self.x.get(n as usize).copied().unwrap_or(0)
    }

    /// General register `n`, where 31 is the stack pointer.
    fn x_or_sp(&self, n: u32) -> u64 {
        self.x.get(n as usize).copied().unwrap_or(self.sp)
    }

    /// Writes general register `n`, where 31 is nowhere.
    fn set_x(&mut self, n: u32, value: u64) {
        if let Some(slot) = self.x.get_mut(n as usize) {
            *slot = value;
        }
    }

    /// Writes general register `n`, where 31 is the stack pointer.
    fn set_x_or_sp(&mut self, n: u32, value: u64) {
        *self.x.get_mut(n as usize).unwrap_or(&mut self.sp) = value;
    }

    fn step(&mut self) -> Step {
        let word = self.memory.fetch(self.pc)?;
        self.next = self.pc.wrapping_add(4);
        self.execute(word)?;
        self.pc = self.next;
        Ok(())
    }

    /// The main table of encodings, by bits 28:25 (Arm ARM C4.1).
    fn execute(&mut self, word: u32) -> Step {
        match bits(word, 28, 25) {
            0b1000 | 0b1001 => self.data_immediate(word),
            0b1010 | 0b1011 => self.branch_or_system(word),
            0b0100 | 0b0110 | 0b1100 | 0b1110 => self.load_or_store(word),
            0b0101 | 0b1101 => self.data_register(word),
            0b0111 | 0b1111 => self.vector_data(word),
            _ => UNDEFINED,
        }
    }
}

/// Whether the oracle knows what `word` is, an instruction or undefined.
pub fn covers(word: u32) -> bool {
    match bits(word, 28, 25) {
        0b0111 | 0b1111 => vector::covers(word),
        _ if word >> 22 == 0xd500_0000 >> 22 => system::covers(word),
        // LDAPR whose unused register is not 31: constrained unpredictable.
        0b1100 if word & 0x3fe0_fc00 == 0x38a0_c000 => bits(word, 20, 16) == 31,
        // The registers of a pair or of a status that overlap: constrained
        // unpredictable.
        0b0100 if bits(word, 29, 24) == 0b00_1000 && !bit(word, 23) => {
            let [t, n, t2, s] = [0, 5, 10, 16].map(|low| word >> low & 31);
            let status = !bit(word, 22) && (s == t || s == n && n != 31 || s == t2);
            let pair = bit(word, 21) && bit(word, 22) && t == t2;
            !(status || pair)
        }
        _ => true,
    }
}

/// Executes runs of a batch.
pub struct Runner {
    code: Vec<u8>,
    fixed: Vec<u8>,
}

/// More than any stream executes: a wild loop ends with [`Stop::Other`].
const MOST_STEPS: u64 = 100_000;

impl Runner {
    /// With the streams of `batch` in memory.
    pub fn new(batch: &Batch) -> Self {
        Self {
            code: batch.code(),
            fixed: read_only_page(),
        }
    }

    /// Executes from `pc`; also tells how many instructions completed.
    pub fn run_one(&self, pc: u64, state: &State, image: &[u8]) -> (Outcome, u64) {
        let mut oracle = Oracle {
            x: state.x,
            sp: state.sp,
            flags: (state.nzcv >> 28) as u8,
            fpcr: state.fpcr,
            fpsr: state.fpsr,
            v: state.v,
            tpidr: state.tpidr,
            pc,
            next: pc,
            marked: None,
            memory: Memory::new(&self.code, &self.fixed, image),
        };
        let mut steps = 0;
        let stop = loop {
            match oracle.step() {
                Err(stop) => break stop,
                Ok(()) if steps == MOST_STEPS => break Stop::Other(steps),
                Ok(()) => steps += 1,
            }
        };
        let mut sums = [0; 16];
        for (_, at) in WRITABLE {
            sum(&mut sums, &oracle.memory.writable()[at..at + 4096]);
        }
        let state = State {
            x: oracle.x,
            sp: oracle.sp,
            nzcv: u64::from(oracle.flags) << 28,
            fpcr: oracle.fpcr,
            fpsr: oracle.fpsr,
            v: oracle.v,
            tpidr: 0,
        };
        let pc = oracle.pc;
        (
            Outcome {
                stop,
                pc,
                state,
                sums,
            },
            steps,
        )
    }

    /// Executes all runs of `batch`.
    pub fn run(batch: &Batch) -> (Vec<Outcome>, u64) {
        let (runner, addresses) = (Self::new(batch), batch.addresses());
        let mut steps = 0;
        let outcomes = batch.runs.iter().map(|&(stream, state)| {
            let state = &batch.states[state];
            let (outcome, taken) = runner.run_one(addresses[stream], state, &batch.image);
            steps += taken;
            outcome
        });
        (outcomes.collect(), steps)
    }
}
