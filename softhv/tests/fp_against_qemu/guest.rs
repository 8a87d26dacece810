//! The guest program: machine code, ELF file, and running it.

use crate::cases::Case;
use std::io::Read;
use std::process::{Command, Stdio};

/// Bytes of one input record.
pub const RECORD_IN: usize = 96;
/// Bytes of one output record.
pub const RECORD_OUT: usize = 48;
const RECORD_OUT_BYTES: u32 = 48;

const CODE: u32 = 0x40_0000;
const INPUT: u32 = 0x1000_0000;
const OUTPUT: u32 = 0x2000_0000;

/// What an instruction may change.
#[derive(PartialEq, Eq, Debug)]
pub struct Output {
    pub v0: [u64; 2],
    pub x0: u64,
    pub fpsr: u64,
    pub nzcv: u64,
}

impl Output {
    pub fn parse(record: &[u8]) -> Self {
        let word = |i: usize| {
            let bytes = record[i * 8..i * 8 + 8].try_into().expect("eight bytes");
            u64::from_le_bytes(bytes)
        };
        Self {
            v0: [word(0), word(1)],
            x0: word(2),
            fpsr: word(3),
            nzcv: word(4),
        }
    }
}

/// Loads the 32-bit constant `value` into Xr: MOVZ, MOVK.
fn load(code: &mut Vec<u32>, r: u32, value: u32) {
    code.push(0xd280_0000 | (value & 0xffff) << 5 | r);
    code.push(0xf2a0_0000 | value >> 16 << 5 | r);
}

/// The loop that runs `word` over all records, then writes the results out.
fn routine(code: &mut Vec<u32>, word: u32, count: u32) {
    load(code, 20, INPUT);
    load(code, 21, OUTPUT);
    load(code, 22, count);
    code.extend([
        0xa940_1a85, // ldp x5, x6, [x20]
        0xa941_0687, // ldp x7, x1, [x20, #16]
        0xad41_0680, // ldp q0, q1, [x20, #32]
        0xad42_0e82, // ldp q2, q3, [x20, #64]
        0x9280_0000, // mov x0, #-1
        0xd51b_4405, // msr fpcr, x5
        0xd51b_4426, // msr fpsr, x6
        0xd51b_4207, // msr nzcv, x7
        word,
        0xd53b_4426, // mrs x6, fpsr
        0xd53b_4207, // mrs x7, nzcv
        0x3d80_02a0, // str q0, [x21]
        0xa901_1aa0, // stp x0, x6, [x21, #16]
        0xf900_12a7, // str x7, [x21, #32]
        0x9101_8294, // add x20, x20, #96
        0x9100_c2b5, // add x21, x21, #48
        0xf100_06d6, // subs x22, x22, #1
        0x54ff_fde1, // b.ne to the first ldp
    ]);
    load(code, 1, OUTPUT);
    load(code, 2, count * RECORD_OUT_BYTES);
    code.extend([
        0xd280_0020, // mov x0, #1: standard output
        0xd280_0808, // mov x8, #64: write
        0xd400_0001, // svc #0
        0x8b00_0021, // add x1, x1, x0
        0xeb00_0042, // subs x2, x2, x0
        0x54ff_ff61, // b.ne to the first mov
    ]);
}

/// A static AArch64 ELF file that runs every word over every case.
pub fn program(words: &[u32], cases: &[Case]) -> Vec<u8> {
    let count = u32::try_from(cases.len()).expect("few cases");
    let mut code = Vec::new();
    for &word in words {
        routine(&mut code, word, count);
    }
    // mov x0, #0; mov x8, #93: exit; svc #0
    code.extend([0xd280_0000, 0xd280_0ba8, 0xd400_0001]);
    let code: Vec<u8> = code.iter().flat_map(|w| w.to_le_bytes()).collect();
    let input: Vec<u8> = cases.iter().flat_map(Case::record).collect();
    assert_eq!(input.len(), cases.len() * RECORD_IN);

    let page = |n: usize| n.next_multiple_of(4096);
    let input_at = 4096 + page(code.len());
    let mut elf = vec![0; input_at];
    let out_len = cases.len() as u64 * RECORD_OUT as u64;
    header(&mut elf[..64]);
    // Flags: 5 read and execute, 6 read and write.
    let (code_len, in_len) = (code.len() as u64, input.len() as u64);
    segment(&mut elf[64..120], 5, 4096, CODE, code_len, code_len);
    segment(
        &mut elf[120..176],
        6,
        input_at as u64,
        INPUT,
        in_len,
        in_len,
    );
    segment(&mut elf[176..232], 6, 0, OUTPUT, 0, out_len);
    elf[4096..4096 + code.len()].copy_from_slice(&code);
    elf.extend(input);
    elf
}

/// ELF64, little endian, executable, machine 183 (AArch64), three segments.
fn header(at: &mut [u8]) {
    at[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    for (offset, half) in [(16, 2u16), (18, 183), (20, 1), (52, 64), (54, 56), (56, 3)] {
        at[offset..offset + 2].copy_from_slice(&half.to_le_bytes());
    }
    for (offset, word) in [(24, u64::from(CODE)), (32, 64)] {
        at[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
    }
}

fn segment(at: &mut [u8], flags: u32, offset: u64, address: u32, in_file: u64, in_memory: u64) {
    at[..4].copy_from_slice(&1u32.to_le_bytes());
    at[4..8].copy_from_slice(&flags.to_le_bytes());
    let address = u64::from(address);
    let words = [offset, address, address, in_file, in_memory, 4096];
    for (slot, word) in at[8..].chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
}

/// Runs the program and hands over the dump of each instruction in turn.
pub fn run(
    name: &str,
    elf: &[u8],
    parts: usize,
    part_bytes: usize,
    mut each: impl FnMut(usize, &[u8]),
) {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("{name}-{}.elf", std::process::id()));
    std::fs::write(&path, elf).expect("write the guest program");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut child = Command::new("qemu-aarch64")
        .args(["-cpu", "max"])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("qemu-aarch64 runs (package qemu-user)");
    let mut dump = vec![0; part_bytes];
    let mut stdout = child.stdout.take().expect("piped");
    let mut done = 0;
    while done < parts && stdout.read_exact(&mut dump).is_ok() {
        each(done, &dump);
        done += 1;
    }
    let status = child.wait().expect("wait for qemu");
    let _ = std::fs::remove_file(&path);
    assert!(
        status.success() && done == parts,
        "qemu ended with {status} after {done} of {parts} instructions"
    );
}
