//! Differential test of the AdvSIMD integer and crypto instructions and of the
//! structure loads and stores against `qemu-aarch64`.
#![allow(clippy::cast_possible_truncation)]

mod simd_harness;

use simd_harness::elf::{self, Base, Case, GENERAL, INPUTS, Outcome, State};
use simd_harness::{CLASSES, Random, disassemble, execute, structure};
use std::collections::HashSet;
use std::process::Command;
use supermachine_softhv::cpu::op::ZERO;
use supermachine_softhv::cpu::op::source;
use supermachine_softhv::insn::structure::{MAX_BYTES, StructAccess, Writeback};
use supermachine_softhv::regs::Regs;
use supermachine_softhv::simd::ldst::{load_from, store_to};
use supermachine_softhv::simd::{self, FPSR_QC};

const BASE: u32 = 26;

/// Mnemonics, "2" forms included, that the cases must reach: all that there are.
const ALL_MNEMONICS: usize = 208;

fn inputs(random: &mut Random) -> Vec<State> {
    (0..400)
        .map(|_| State {
            v: std::array::from_fn(|_| random.register()),
            x: std::array::from_fn(|_| random.lanes()),
            fpsr: 0,
        })
        .collect()
}

/// Runs the cases in QEMU.
fn reference(cases: &[Case], inputs: &[State], name: &str) -> Vec<Outcome> {
    let path = std::env::temp_dir().join(format!("softhv-{name}-{}", std::process::id()));
    std::fs::write(&path, elf::build(cases, inputs)).expect("write the program");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("make it executable");
    }
    let output = Command::new("qemu-aarch64")
        .args(["-cpu", "max"])
        .arg(&path)
        .output()
        .expect("run qemu-aarch64");
    std::fs::remove_file(&path).expect("remove the program");
    assert!(
        output.status.success(),
        "{}: {:?}",
        output.status,
        output.stderr
    );
    let outcomes = elf::outcomes(&output.stdout);
    assert_eq!(outcomes.len(), cases.len());
    outcomes
}

fn registers(state: &State) -> Regs {
    let mut regs = Regs {
        v: state.v,
        ..Regs::default()
    };
    regs.x[..GENERAL].copy_from_slice(&state.x);
    regs
}

fn state(regs: &Regs) -> State {
    State {
        v: regs.v,
        x: std::array::from_fn(|i| regs.x[i]),
        fpsr: regs.fpsr & FPSR_QC,
    }
}

/// The registers that differ, ours first.
fn difference(ours: &State, theirs: &State) -> String {
    let vectors = ours.v.iter().zip(&theirs.v).enumerate();
    let mut lines: Vec<_> = vectors
        .filter(|(_, (a, b))| a != b)
        .map(|(i, (a, b))| format!("v{i} {:016x?} {:016x?}", a.0, b.0))
        .collect();
    let general = ours.x.iter().zip(&theirs.x).enumerate();
    lines.extend(
        general
            .filter(|(_, (a, b))| a != b)
            .map(|(i, (a, b))| format!("x{i} {a:016x} {b:016x}")),
    );
    if ours.fpsr != theirs.fpsr {
        lines.push(format!("fpsr {:x} {:x}", ours.fpsr, theirs.fpsr));
    }
    lines.join("\n    ")
}

/// Sometimes makes register fields equal, which random ones rarely are.
fn alias(random: &mut Random, word: u32) -> u32 {
    let (rd, rn) = (word & 31, word >> 5 & 31);
    match random.below(12) {
        0 => word & !0x1f | rn,
        1 => word & !0x001f_0000 | rn << 16,
        2 => word & !0x001f_0000 | rd << 16,
        _ => word,
    }
}

/// Whether the instruction touches a general register that the program needs.
fn uses_reserved_general(word: u32) -> bool {
    // DUP and INS from a general register read Rn, SMOV and UMOV write Rd
    let reserved = |r: u32| (GENERAL as u32..31).contains(&(r & 31));
    let copy = word & 0x9fe0_8400 == 0x0e00_0400;
    copy && (reserved(word) || reserved(word >> 5))
}

#[test]
fn data_processing_agrees_with_qemu() {
    let mut random = Random(3);
    let inputs = inputs(&mut random);
    let mut cases = Vec::new();
    for (mask, value) in CLASSES {
        // in proportion to the encodings of the class, within limits
        let free = (!mask & !0x1f_03ff).count_ones();
        let wanted = (8usize << free).clamp(800, 10_000);
        let before = cases.len();
        while cases.len() < before + wanted {
            let word = random.next() as u32 & !mask | value;
            let word = alias(&mut random, word);
            if word & mask == value && !uses_reserved_general(word) && simd::decode(word).is_some()
            {
                let input = random.below(inputs.len() as u64) as usize;
                let base = Base::None;
                cases.push(Case { word, input, base });
            }
        }
    }
    let words: Vec<u32> = cases.iter().map(|case| case.word).collect();
    let forms = disassemble(&words, "forms").into_iter().flatten();
    let mnemonics: HashSet<String> = forms.map(|(mnemonic, _)| mnemonic).collect();
    assert!(
        mnemonics.len() >= ALL_MNEMONICS,
        "{} mnemonics",
        mnemonics.len()
    );
    let mut wrong = Vec::new();
    let mut saturated = 0;
    for (case, theirs) in cases.iter().zip(reference(&cases, &inputs, "simd")) {
        saturated += usize::from(theirs.state.fpsr != 0);
        let mut regs = registers(&inputs[case.input]);
        let op = simd::decode(case.word).expect("decoded before");
        execute(&mut regs, &op);
        assert_eq!(regs.x[usize::from(ZERO)], 0, "{:08x} wrote XZR", case.word);
        let ours = state(&regs);
        if ours != theirs.state {
            let (_, text) = (case.word, disassemble(&[case.word], "wrong"));
            let lines = difference(&ours, &theirs.state);
            wrong.push(format!("{:08x} {text:?}\n    {lines}", case.word));
            if wrong.len() == 40 {
                break;
            }
        }
    }
    assert!(saturated > 2000, "{saturated} cases set QC");
    assert!(
        wrong.is_empty(),
        "of {} cases:\n{}",
        cases.len(),
        wrong.join("\n")
    );
}

/// Performs a structure access the way an engine does.
fn access_memory(
    regs: &mut Regs,
    access: &StructAccess,
    readable: &[u8],
    scratch: &mut [u8; MAX_BYTES],
) {
    if access.load {
        load_from(regs, access, &readable[..access.total_bytes()]);
    } else {
        store_to(regs, access, scratch);
    }
    let step = match access.writeback {
        Writeback::None => 0,
        Writeback::Bytes(bytes) => bytes.into(),
        Writeback::Register(register) => regs.get(source(register)),
    };
    let base = &mut regs.x[usize::from(source(access.base))];
    *base = base.wrapping_add(step);
}

#[test]
fn structure_loads_and_stores_agree_with_qemu() {
    let mut random = Random(4);
    let inputs = inputs(&mut random);
    let readable = elf::input_bytes(&inputs);
    let mut cases = Vec::new();
    while cases.len() < 6000 {
        let mut word = random.next() as u32 & 0x41df_ffff | 0x0c00_0000;
        // a quarter without post-index, a quarter with the size as the step
        match random.below(4) {
            0 => word &= !0x009f_0000,
            1 => word |= 0x009f_0000,
            _ => word |= 0x0080_0000,
        }
        if word >> 24 & 1 == 1 && random.below(2) == 1 {
            word |= 0x0020_0000;
        }
        word = word & !0x3e0 | BASE << 5;
        let rm = word >> 16 & 31;
        let Some(access) = structure(word) else {
            continue;
        };
        if (GENERAL as u32..31).contains(&rm) {
            continue;
        }
        let base = if access.load {
            Base::Inputs
        } else {
            Base::Scratch
        };
        let input = random.below(inputs.len() as u64) as usize;
        cases.push(Case { word, input, base });
    }
    for (i, theirs) in reference(&cases, &inputs, "struct-access")
        .iter()
        .enumerate()
    {
        let case = &cases[i];
        let access = structure(case.word).expect("decoded before");
        let mut regs = registers(&inputs[case.input]);
        regs.x[BASE as usize] = if access.load {
            INPUTS
        } else {
            elf::scratch_address(&inputs, i)
        };
        let mut scratch = [0; MAX_BYTES];
        access_memory(&mut regs, &access, &readable, &mut scratch);
        let ours = state(&regs);
        assert!(
            ours == theirs.state && scratch == theirs.scratch,
            "{:08x} {access:?}\n    {}\n{scratch:02x?}\n{:02x?}",
            case.word,
            difference(&ours, &theirs.state),
            theirs.scratch,
        );
    }
}
