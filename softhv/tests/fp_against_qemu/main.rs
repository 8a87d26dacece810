//! Every floating-point instruction form, bit by bit against `qemu-aarch64`.
//!
//! The test writes a static ELF file that runs each form over one set of
//! operands in all FPCR modes and dumps vector result, general result, FPSR and
//! NZCV; the decoder's handlers must give the same.

mod allocation;
mod cases;
mod forms;
mod guest;

use cases::Case;
use guest::{Output, RECORD_OUT};
use std::mem::MaybeUninit;
use supermachine_softhv::cpu::Cpu;
use supermachine_softhv::cpu::op::Op;
use supermachine_softhv::decode::instruction;
use supermachine_softhv::fp;
use supermachine_softhv::insn::Insn;
use supermachine_softhv::regs::{Regs, V};

/// Ends a run of handlers.
unsafe extern "C" fn stop(_: *mut Cpu, _: *const Op) {}

/// The op of the floating-point instruction `word`.
fn op_of(word: u32) -> Option<Op> {
    match instruction(word) {
        Insn::Word(word) => fp::decode_simd(word),
        insn => fp::bind(&insn),
    }
}

/// Runs one decoded instruction on the state of `case`.
fn run(op: Op, case: &Case) -> Output {
    let mut regs = Regs {
        fpcr: case.fpcr,
        fpsr: case.fpsr,
        ..Regs::default()
    };
    regs.set_nzcv(case.nzcv);
    regs.x[0] = u64::MAX;
    regs.x[1] = case.x1;
    for (v, lanes) in regs.v.iter_mut().zip(case.v) {
        *v = V(lanes);
    }
    let mut cpu = Box::<Cpu>::new_uninit();
    let ops = [op, Op::new(stop)];
    // SAFETY: floating-point handlers touch nothing of a Cpu but its registers,
    // which are initialised here; the second op ends the run.
    let regs = unsafe {
        let cpu = MaybeUninit::as_mut_ptr(&mut *cpu);
        (&raw mut (*cpu).regs).write(regs);
        (ops[0].run)(cpu, &raw const ops[0]);
        (&raw const (*cpu).regs).read()
    };
    Output {
        v0: regs.v[0].0,
        x0: regs.x[0],
        fpsr: regs.fpsr,
        nzcv: regs.nzcv(),
    }
}

/// Compares all `words` over `count` seeded cases; lists what differs.
fn compare(name: &str, words: &[u32], seed: u64, count: usize) {
    let cases = cases::generate(seed, count);
    let undecoded: Vec<_> = words.iter().filter(|&&w| op_of(w).is_none()).collect();
    assert!(undecoded.is_empty(), "not decoded: {undecoded:08x?}");
    let elf = guest::program(words, &cases);
    let mut bad = 0;
    let mut differing = Vec::new();
    guest::run(
        name,
        &elf,
        words.len(),
        count * RECORD_OUT,
        |index, dump| {
            let word = words[index];
            let mut shown = 0;
            for (case, record) in cases.iter().zip(dump.chunks_exact(RECORD_OUT)) {
                let op = op_of(word).expect("decoded above");
                let (ours, theirs) = (run(op, case), Output::parse(record));
                if ours != theirs {
                    bad += 1;
                    shown += 1;
                    if shown <= 3 {
                        eprintln!("{word:08x} {case:x?}\n   ours {ours:x?}\n   qemu {theirs:x?}");
                    }
                }
            }
            if shown > 0 {
                differing.push(word);
            }
        },
    );
    assert_eq!(bad, 0, "{bad} differences in {differing:08x?}");
}

/// The number of cases per form, raised by hand for long runs.
fn count() -> usize {
    std::env::var("FP_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(3000)
}

#[test]
fn scalar_instructions_agree_with_qemu() {
    compare("fp-scalar", &forms::scalar(), 1, count());
}

#[test]
fn vector_instructions_on_three_registers_agree_with_qemu() {
    compare("fp-three", &forms::three_same(), 2, count());
}

#[test]
fn vector_instructions_on_one_register_agree_with_qemu() {
    compare("fp-misc", &forms::two_misc(), 3, count());
}

#[test]
fn by_element_and_fixed_point_instructions_agree_with_qemu() {
    compare("fp-element", &forms::by_element_and_fixed(), 4, count());
}

#[test]
fn allocated_words_are_those_objdump_knows() {
    allocation::compare(5, 200_000);
}
