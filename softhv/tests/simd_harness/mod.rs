//! Runs single ops, and makes random words and operands.
#![allow(dead_code, clippy::cast_possible_truncation)]

pub mod elf;

use std::process::Command;
use supermachine_softhv::cpu::Cpu;
use supermachine_softhv::cpu::op::{Handler, Op};
use supermachine_softhv::decode::instruction;
use supermachine_softhv::insn::{Insn, StructAccess};
use supermachine_softhv::regs::{Regs, V};
use supermachine_softhv::simd::{self, FPSR_QC};

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

/// Fixed bits and their values in the encoding classes of AdvSIMD, Arm ARM
/// C4.1.96: in random words the small classes would be too rare.
pub const CLASSES: [(u32, u32); 23] = [
    (0x9f20_0400, 0x0e20_0400), // three same
    (0x9f20_8400, 0x0e00_8400), // three same extra
    (0x9f20_0c00, 0x0e20_0000), // three different
    (0x9f3e_0c00, 0x0e20_0800), // two-register miscellaneous
    (0x9f3e_0c00, 0x0e30_0800), // across lanes
    (0x9f00_0400, 0x0f00_0000), // by element
    (0x9f80_0400, 0x0f00_0400), // shift by immediate
    (0x9ff8_0400, 0x0f00_0400), // modified immediate
    (0x9fe0_8400, 0x0e00_0400), // copy
    (0xbf20_8c00, 0x0e00_0800), // permute
    (0xbf20_8400, 0x2e00_0000), // extract
    (0xbf20_8c00, 0x0e00_0000), // table lookup
    (0xff3e_0c00, 0x4e28_0800), // AES
    (0xff20_8c00, 0x5e00_0000), // three-register SHA
    (0xff3e_0c00, 0x5e28_0800), // two-register SHA
    (0xdf20_0400, 0x5e20_0400), // scalar three same
    (0xdf20_8400, 0x5e00_8400), // scalar three same extra
    (0xdf20_0c00, 0x5e20_0000), // scalar three different
    (0xdf3e_0c00, 0x5e20_0800), // scalar two-register miscellaneous
    (0xdf3e_0c00, 0x5e30_0800), // scalar pairwise
    (0xdf00_0400, 0x5f00_0000), // scalar by element
    (0xdf80_0400, 0x5f00_0400), // scalar shift by immediate
    (0xdfe0_8400, 0x5e00_0400), // scalar copy
];

/// Disassembles `words`, one mnemonic and operand string each; `None` where
/// the disassembler knows no instruction.
pub fn disassemble(words: &[u32], name: &str) -> Vec<Option<(String, String)>> {
    let path = std::env::temp_dir().join(format!("softhv-{name}-{}", std::process::id()));
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    std::fs::write(&path, bytes).expect("write the words");
    let output = Command::new("aarch64-linux-gnu-objdump")
        .args([
            "-D",
            "-z",
            "-b",
            "binary",
            "-m",
            "aarch64",
            "-M",
            "no-aliases",
        ])
        .arg(&path)
        .output()
        .expect("run aarch64-linux-gnu-objdump");
    std::fs::remove_file(&path).expect("remove the words");
    let text = String::from_utf8(output.stdout).expect("text");
    let parsed: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            fields.next()?.trim().strip_suffix(':')?;
            fields.next()?;
            let mnemonic = fields.next()?.trim();
            let operands = fields.next().unwrap_or("").to_owned();
            Some(
                (mnemonic != ".inst" && !operands.contains("undefined"))
                    .then(|| (mnemonic.to_owned(), operands)),
            )
        })
        .collect();
    assert_eq!(parsed.len(), words.len(), "one line per word");
    parsed
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

/// Registers with something in every bit of V0, the usual destination.
pub fn registers(sources: &[V]) -> Regs {
    let mut regs = Regs::default();
    regs.v[0] = V([0x1111_1111_1111_1111, 0x2222_2222_2222_2222]);
    regs.v[1..=sources.len()].copy_from_slice(sources);
    regs
}

/// The structure load or store `word`, if it is an allocated one.
pub fn structure(word: u32) -> Option<StructAccess> {
    match instruction(word) {
        Insn::Structure(access) => Some(access),
        _ => None,
    }
}

/// Executes the instruction `word`.
pub fn run(word: u32, regs: &mut Regs) {
    let op = simd::decode(word).expect("an allocated encoding");
    execute(regs, &op);
}

/// V0 after `word` with V1.. as given, and whether it saturated.
pub fn result(word: u32, sources: &[V]) -> (V, bool) {
    let mut regs = registers(sources);
    run(word, &mut regs);
    (regs.v[0], regs.fpsr & FPSR_QC != 0)
}

/// A register of bytes, lowest first.
pub fn bytes(lanes: [u8; 16]) -> V {
    V::from_lanes::<u8>(lanes)
}
