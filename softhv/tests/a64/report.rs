//! Reports of differences: the smallest stream that shows one, and how.

use super::assembler::scratch;
use super::engine::Machine;
use super::{Batch, NOP, Outcome, STREAMS, Stream};
use std::fmt::Write;
use std::process::Command;

/// Differences that are shown in full.
const SHOWN: usize = 12;

/// What the engine is compared with.
pub struct Reference<'a> {
    /// Executes a batch.
    pub run: &'a dyn Fn(&Batch) -> Vec<Outcome>,
    /// Whether the engine's outcome and the reference's agree, for a stream at
    /// an address.
    pub agree: fn(&Stream, u64, &Outcome, &Outcome) -> bool,
}

/// Explains the runs `wrong` of a batch.
pub fn explain(
    machine: &mut Machine,
    reference: &Reference,
    batch: &Batch,
    wrong: &[usize],
    ours: &[Outcome],
    theirs: &[Outcome],
) -> String {
    let mut text = String::new();
    let mut seen = std::collections::BTreeMap::<u32, usize>::new();
    for &run in wrong.iter().take(12) {
        let (small, index) = shrink(machine, reference, batch, run);
        let words: Vec<u32> = small.streams[0]
            .words
            .iter()
            .copied()
            .filter(|w| *w != NOP)
            .collect();
        // One example of each group of encodings.
        let last = words.iter().rfind(|word| !counts(**word));
        let group = last.copied().unwrap_or(0) & 0xffe0_fc00;
        let times = seen.entry(group).or_insert(0);
        *times += 1;
        if *times > 1 || seen.len() > SHOWN {
            continue;
        }
        let _ = writeln!(text, "--- run {run}");
        for line in disassemble(&words, &[]) {
            let _ = writeln!(text, "    {line}");
        }
        let (a, b) = (machine.run(&small), (reference.run)(&small));
        if (reference.agree)(
            &small.streams[0],
            STREAMS + small.origin,
            &a[index],
            &b[index],
        ) {
            let _ = writeln!(text, "    (differs only in its batch)");
            differences(&mut text, batch, run, &ours[run], &theirs[run]);
        } else {
            differences(&mut text, &small, index, &a[index], &b[index]);
        }
    }
    let groups: Vec<_> = seen
        .iter()
        .map(|(word, n)| format!("{word:08x} x{n}"))
        .collect();
    let _ = writeln!(text, "groups, last word & ffe0fc00: {}", groups.join(", "));
    text
}

/// Whether the word sets or steps X24, which counts loops: movz, subs, sub.
fn counts(word: u32) -> bool {
    word & 0xffe0_001f == 0xd280_0018 || word | 1 << 29 == 0xf100_0718
}

/// The same run with as many words as possible made NOP, all else in place.
fn shrink(
    machine: &mut Machine,
    reference: &Reference,
    batch: &Batch,
    run: usize,
) -> (Batch, usize) {
    let (stream, state) = batch.runs[run];
    let origin = batch.addresses()[stream] - STREAMS;
    let single = |words: &[u32]| Batch {
        runs: vec![(0, 0)],
        streams: vec![Stream {
            words: words.to_vec(),
        }],
        states: vec![batch.states[state].clone()],
        image: batch.image.clone(),
        origin,
    };
    let mut fails = |words: &[u32]| {
        let one = single(words);
        let (ours, theirs) = (machine.run(&one), (reference.run)(&one));
        !(reference.agree)(&one.streams[0], STREAMS + origin, &ours[0], &theirs[0])
    };
    let mut words = batch.streams[stream].words.clone();
    let mut piece = words.len().div_ceil(2);
    loop {
        for part in (0..words.len()).step_by(piece) {
            let mut less = words.clone();
            let end = (part + piece).min(less.len());
            // What counts loops stays, or they would not end.
            let idle = less[part..end].iter_mut().filter(|w| !counts(**w));
            idle.for_each(|word| *word = NOP);
            if less != words && fails(&less) {
                words = less;
            }
        }
        if piece == 1 {
            break;
        }
        piece = piece.div_ceil(2);
    }
    (single(&words), 0)
}

/// Disassembles `words`, one line each.
pub fn disassemble(words: &[u32], options: &[&str]) -> Vec<String> {
    let path = scratch(".words");
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    std::fs::write(&path, bytes).expect("write the words");
    let output = Command::new("aarch64-linux-gnu-objdump")
        .args(["-D", "-z", "-b", "binary", "-m", "aarch64"])
        .args(options)
        .arg(&path)
        .output()
        .expect("aarch64-linux-gnu-objdump runs (package binutils-aarch64-linux-gnu)");
    let _ = std::fs::remove_file(&path);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| line.contains(":\t"));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// What differs, ours first, with the inputs of the registers that do.
pub fn differences(text: &mut String, batch: &Batch, run: usize, ours: &Outcome, theirs: &Outcome) {
    let (stream, state) = batch.runs[run];
    let input = &batch.states[state];
    let base = batch.addresses()[stream];
    let mut line = |name: &str, was: String, a: String, b: String| {
        if a != b {
            let _ = writeln!(text, "    {name}: was {was}, ours {a}, theirs {b}");
        }
    };
    let hex = |value: u64| format!("{value:#x}");
    line(
        "stop",
        String::new(),
        format!("{:x?}", ours.stop),
        format!("{:x?}", theirs.stop),
    );
    line("pc", hex(base), hex(ours.pc), hex(theirs.pc));
    let (a, b) = (&ours.state, &theirs.state);
    for n in 0..31 {
        line(&format!("x{n}"), hex(input.x[n]), hex(a.x[n]), hex(b.x[n]));
    }
    line("sp", hex(input.sp), hex(a.sp), hex(b.sp));
    line("nzcv", hex(input.nzcv), hex(a.nzcv), hex(b.nzcv));
    line(
        "fpcr",
        hex(input.fpcr.into()),
        hex(a.fpcr.into()),
        hex(b.fpcr.into()),
    );
    line(
        "fpsr",
        hex(input.fpsr.into()),
        hex(a.fpsr.into()),
        hex(b.fpsr.into()),
    );
    let wide = |value: u128| format!("{value:032x}");
    for n in 0..32 {
        line(
            &format!("v{n}"),
            wide(input.v[n]),
            wide(a.v[n]),
            wide(b.v[n]),
        );
    }
    line(
        "memory",
        String::new(),
        format!("{:x?}", ours.sums),
        format!("{:x?}", theirs.sums),
    );
    let words = &batch.streams[stream].words;
    let fields: Vec<u32> = words
        .iter()
        .rev()
        .filter(|w| **w != NOP)
        .take(3)
        .flat_map(|w| [w & 31, w >> 5 & 31, w >> 10 & 31, w >> 16 & 31])
        .collect();
    let named: Vec<String> = fields
        .iter()
        .map(|&n| n as usize)
        .map(|n| {
            format!(
                "x{n}={:x} v{n}={:032x}",
                input.x.get(n).copied().unwrap_or(input.sp),
                input.v[n]
            )
        })
        .collect();
    let _ = writeln!(
        text,
        "    inputs: fpcr={:x} {}",
        input.fpcr,
        named.join("\n            ")
    );
}
