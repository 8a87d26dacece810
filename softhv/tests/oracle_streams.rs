//! Differential test of the CPU in process: random instruction streams on the
//! engine and on an independent interpreter.

#![allow(clippy::cast_possible_truncation)]

mod a64;
mod oracle;

use a64::campaign::same;
use a64::engine::{Machine, machine};
use a64::report::{Reference, explain};
use a64::{Batch, Outcome, Random, Stop, Stream, generate, inputs};
use oracle::Runner;
use std::sync::atomic::Ordering;
use supermachine_softhv::Tier;
use supermachine_softhv::jit::{COUNTS, IS_BUILT};

/// Instructions compared by the test.
const INSTRUCTIONS: u64 = 10_000_000;
const STREAMS: usize = 1024;
const RAW: usize = 4096;
const STATES_PER_STREAM: usize = 8;
const STATES: u64 = 512;

/// An instruction in place of one that the oracle does not cover, without X24,
/// which counts loops, and branches, which would leave the stream.
fn replacement(random: &mut Random) -> u32 {
    loop {
        let word = generate::raw(random).words[0];
        let is_branch_or_system = word >> 26 & 7 == 5;
        let counts = [0, 5, 10, 16].iter().any(|low| word >> low & 31 == 24);
        if !is_branch_or_system && !counts && oracle::covers(word) && generate::is_defined(word) {
            return word;
        }
    }
}

fn stream(random: &mut Random) -> Stream {
    let mut stream = generate::stream(random);
    for word in &mut stream.words {
        if !oracle::covers(*word) {
            *word = replacement(random);
        }
    }
    stream
}

/// One word anywhere in what the oracle covers, allocated or not.
fn raw(random: &mut Random) -> Stream {
    loop {
        let stream = generate::raw(random);
        if oracle::covers(stream.words[0]) {
            return stream;
        }
    }
}

fn batch(random: &mut Random) -> Batch {
    let mut streams: Vec<Stream> = (0..STREAMS).map(|_| stream(random)).collect();
    streams.extend((0..RAW).map(|_| raw(random)));
    let mut runs = Vec::new();
    for number in 0..streams.len() {
        let times = if number < STREAMS {
            STATES_PER_STREAM
        } else {
            1
        };
        runs.extend((0..times).map(|_| (number, random.below(STATES) as usize)));
    }
    Batch {
        states: (0..STATES).map(|_| inputs::state(random)).collect(),
        image: inputs::image(random),
        streams,
        runs,
        origin: 0,
    }
}

/// Both sides' outcomes of the batch, and the instructions of the oracle.
fn compare(machine: &mut Machine, batch: &Batch, seed: u64) -> (Vec<Outcome>, u64) {
    let ours = machine.run(batch);
    let (theirs, steps) = Runner::run(batch);
    let differ = |i: &usize| ours[*i] != theirs[*i];
    let wrong: Vec<usize> = (0..ours.len()).filter(differ).collect();
    if !wrong.is_empty() {
        let reference = Reference {
            run: &|batch| Runner::run(batch).0,
            agree: same,
        };
        let text = explain(machine, &reference, batch, &wrong, &ours, &theirs);
        let (count, of) = (wrong.len(), ours.len());
        panic!("seed {seed}: {count} of {of} runs differ from the oracle's\n{text}");
    }
    (ours, steps)
}

/// Runs streams until `least` instructions were compared.
fn run_streams(tier: Tier, least: u64) {
    let (mut instructions, mut runs, mut faults, mut undefined) = (0, 0, 0, 0);
    machine(tier, |machine| {
        for seed in 1.. {
            let batch = batch(&mut Random::new(seed));
            let (outcomes, steps) = compare(machine, &batch, seed);
            instructions += steps;
            runs += outcomes.len();
            let count = |is: fn(&Stop) -> bool| outcomes.iter().filter(|o| is(&o.stop)).count();
            undefined += count(|stop| *stop == Stop::Undefined);
            faults += count(|stop| !matches!(stop, Stop::Undefined | Stop::Break));
            if instructions >= least {
                break;
            }
        }
    });
    println!("{instructions} instructions, {runs} runs, {faults} faults, {undefined} undefined");
    assert!(faults > runs / 50, "faults are part of it");
    assert!(undefined > runs / 50, "so are undefined instructions");
}

#[test]
fn random_streams_leave_the_state_that_the_oracle_leaves() {
    run_streams(Tier::Interpret, INSTRUCTIONS);
}

/// What was compiled since the start of the process.
fn compiled() -> [u64; 3] {
    [&COUNTS.blocks, &COUNTS.evictions, &COUNTS.refusals].map(|n| n.load(Ordering::Relaxed))
}

#[test]
fn compiled_streams_leave_the_state_that_the_oracle_leaves() {
    let before = compiled();
    run_streams(Tier::Compile, INSTRUCTIONS);
    assert_can_compile(before, compiled());
}

#[test]
fn streams_that_are_compiled_and_dropped_midway_leave_the_state_that_the_oracle_leaves() {
    let before = compiled();
    run_streams(Tier::Restless, INSTRUCTIONS);
    let after = compiled();
    assert_can_compile(before, after);
    if IS_BUILT {
        assert!(after[1] > before[1], "nothing was dropped to make room");
    }
}

#[test]
fn streams_that_are_counted_leave_the_state_that_the_oracle_leaves() {
    let before = compiled();
    run_streams(Tier::Census, INSTRUCTIONS / 4);
    assert_can_compile(before, compiled());
}

/// That something was compiled, where anything can be.
fn assert_can_compile(before: [u64; 3], after: [u64; 3]) {
    if IS_BUILT {
        assert_eq!(after[2], before[2], "the host refuses executable memory");
        assert!(after[0] > before[0] + 1000, "hardly anything was compiled");
    }
}
