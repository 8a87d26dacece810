//! The reference side: an ELF file that executes a batch, run by QEMU.

use super::assembler::{assemble, scratch};
use super::inputs::{FPCR_BITS, FPSR_BITS};
use super::{Batch, Outcome, READ_ONLY, State, Stop, WINDOW, WRITABLE};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// Out of the reach of shifted immediates.
pub const PROGRAM: u64 = 0x3cb5_7000;
const RUNS: u64 = 0x135a_5000;
const IMAGE: u64 = 0x295a_b000;
const GLOBALS: u64 = 0x2b35_3000;
const STACK: u64 = 0x2d5b_5000;
const OUT: u64 = 0x36b5_3000;
/// The loader puts these where the executable says, and the program moves them
/// this far up, where no stream finds them by chance.
const AWAY: u64 = 0x4a_5b35_3000;
/// Bytes of an output record, as in the assembly source.
const RECORD: usize = 944;
/// Bytes of a state: X0 to X30, SP, PC (unused), flags, FPSR and FPCR, V0 to
/// V31, TPIDR_EL0.
const STATE: usize = 34 * 8 + 8 + 512 + 8;
/// As in the assembly source.
const MOST_STATE_BYTES: usize = 0x20_0000;
const PAGE: usize = 4096;

fn program() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let symbols = [
            ("AWAY", AWAY),
            ("RUNS", RUNS),
            ("IMAGE", IMAGE),
            ("GLOBALS", GLOBALS),
            ("STACK", STACK),
            ("WINDOW", WINDOW),
            ("OUT", OUT),
        ];
        assemble(include_str!("guest.s"), PROGRAM, &symbols)
    })
}

fn state_bytes(state: &State) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(STATE);
    let words = state.x.iter().chain([&state.sp, &0, &state.nzcv]);
    words.for_each(|word| bytes.extend(word.to_le_bytes()));
    bytes.extend(state.fpsr.to_le_bytes());
    bytes.extend(state.fpcr.to_le_bytes());
    state.v.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    bytes.extend(state.tpidr.to_le_bytes());
    assert_eq!(bytes.len(), STATE);
    bytes
}

/// The table of runs, followed by the states.
fn runs(batch: &Batch) -> Vec<u8> {
    let addresses = batch.addresses();
    let states = AWAY + RUNS + 16 + 16 * batch.runs.len() as u64;
    let mut bytes = Vec::new();
    let count = batch.runs.len() as u64;
    bytes.extend(count.to_le_bytes());
    bytes.extend((count * RECORD as u64).to_le_bytes());
    for &(stream, state) in &batch.runs {
        bytes.extend(addresses[stream].to_le_bytes());
        bytes.extend((states + (state * STATE) as u64).to_le_bytes());
    }
    assert!(16 + STATE * batch.states.len() <= MOST_STATE_BYTES);
    bytes.extend(batch.states.iter().flat_map(state_bytes));
    bytes
}

/// What a loadable segment holds: flags, address, content, size in memory.
struct Segment {
    flags: u32,
    address: u64,
    bytes: Vec<u8>,
    memory: usize,
}

const R: u32 = 4;
const RW: u32 = 6;
const RX: u32 = 5;

fn elf(segments: &[Segment]) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC, EM_AARCH64.
    elf.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    for word in [PROGRAM, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([0; 4]);
    for half in [64, 56, segments.len() as u16, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let mut offset = PAGE;
    for segment in segments {
        elf.extend(1u32.to_le_bytes());
        elf.extend(segment.flags.to_le_bytes());
        let words = [
            offset as u64,
            segment.address,
            segment.address,
            segment.bytes.len() as u64,
            segment.memory.max(segment.bytes.len()) as u64,
            PAGE as u64,
        ];
        words.iter().for_each(|w| elf.extend(w.to_le_bytes()));
        offset += segment.bytes.len().next_multiple_of(PAGE);
    }
    elf.resize(PAGE, 0);
    for segment in segments {
        elf.extend(&segment.bytes);
        elf.resize(elf.len().next_multiple_of(PAGE), 0);
    }
    elf
}

/// The batch as a program.
pub fn build(batch: &Batch) -> Vec<u8> {
    let segment = |flags, address, bytes: &[u8]| Segment {
        flags,
        address,
        bytes: bytes.to_vec(),
        memory: 0,
    };
    let space = |address, memory| Segment {
        flags: RW,
        address,
        bytes: Vec::new(),
        memory,
    };
    let page = |n: u64| WINDOW + n * PAGE as u64;
    let mut segments = vec![
        segment(RX, PROGRAM, program()),
        segment(RX, super::STREAMS, &batch.code()),
        Segment {
            flags: RW,
            address: RUNS,
            bytes: runs(batch),
            memory: 16 * batch.runs.len() + MOST_STATE_BYTES,
        },
    ];
    let mut pages: Vec<Segment> = WRITABLE.map(|(n, _)| space(page(n), PAGE)).into();
    let fixed = super::inputs::read_only_page();
    pages.insert(2, segment(R, page(READ_ONLY), &fixed));
    segments.extend(pages);
    segments.extend([
        segment(R, IMAGE, &batch.image),
        space(GLOBALS, PAGE),
        space(STACK - 0x1_0000, 0x1_0000),
        space(OUT, batch.runs.len() * RECORD),
    ]);
    elf(&segments)
}

/// Executes the batch in QEMU as a CPU of the given model.
pub fn run(batch: &Batch, model: &str) -> Vec<Outcome> {
    let path = scratch(".guest");
    std::fs::write(&path, build(batch)).expect("write the program");
    make_executable(&path);
    let output = Command::new("qemu-aarch64")
        .args(["-cpu", model])
        .arg(&path)
        .output()
        .expect("qemu-aarch64 runs (package qemu-user)");
    let _ = std::fs::remove_file(&path);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert_eq!(output.stdout.len(), batch.runs.len() * RECORD);
    output.stdout.chunks_exact(RECORD).map(outcome).collect()
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).expect("make the program executable");
}

fn outcome(record: &[u8]) -> Outcome {
    let word = |i: usize| {
        let bytes = record[8 * i..8 * i + 8].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes)
    };
    let fp = word(37);
    let state = State {
        x: std::array::from_fn(|i| word(3 + i)),
        sp: word(34),
        nzcv: word(36) & 0xf000_0000,
        fpcr: (fp >> 32) as u32 & FPCR_BITS,
        fpsr: fp as u32 & FPSR_BITS,
        v: std::array::from_fn(|i| {
            u128::from(word(38 + 2 * i)) | u128::from(word(39 + 2 * i)) << 64
        }),
        tpidr: 0,
    };
    // Linux signal numbers and codes.
    let at = word(2) & (u64::MAX >> 8);
    let stop = match (word(0), word(1)) {
        (5, _) => Stop::Break,
        (4, _) => Stop::Undefined,
        (11, 1) => Stop::Unmapped(at),
        (11, 2) => Stop::Denied(at),
        (7, _) => Stop::Unaligned(at),
        (signal, code) => Stop::Other(signal << 32 | code),
    };
    Outcome {
        stop,
        pc: word(35),
        state,
        sums: std::array::from_fn(|i| word(102 + i)),
    }
}
