//! Batches of streams through both machines.

use super::engine::{Machine, machine};
use super::{Batch, Outcome, Random, Stop, Stream, generate, inputs, known, qemu, report};
use supermachine_softhv::Tier;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Names all cases together with the batch number.
    pub seed: u64,
    /// First batch.
    pub first: u64,
    /// Stop after this many compared instructions,
    pub instructions: u64,
    /// or after this many batches.
    pub batches: u64,
    /// What the engine compiles.
    pub tier: Tier,
}

/// What was compared.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    /// Instructions executed on both sides for certain.
    pub instructions: u64,
    pub streams: u64,
    pub runs: u64,
    pub faults: u64,
    pub undefined: u64,
    pub torn: u64,
    pub batches: u64,
}

/// Initial states that each stream runs from.
const STATES_PER_STREAM: usize = 4;
const STREAMS: usize = 3072;
const RAW: usize = 2048;

/// Batch `number` of `seed`.
pub fn batch(seed: u64, number: u64) -> Batch {
    let mut random = Random::new(seed ^ Random::new(number).next());
    let mut streams: Vec<Stream> = (0..STREAMS)
        .map(|_| generate::stream(&mut random))
        .collect();
    streams.extend((0..RAW).map(|_| generate::raw(&mut random)));
    let states: Vec<_> = (0..1024).map(|_| inputs::state(&mut random)).collect();
    let mut runs = Vec::new();
    for stream in 0..streams.len() {
        let times = if stream < STREAMS {
            STATES_PER_STREAM
        } else {
            1
        };
        runs.extend((0..times).map(|_| (stream, random.below(1024) as usize)));
    }
    Batch {
        streams,
        states,
        runs,
        image: inputs::image(&mut random),
        origin: 0,
    }
}

/// Instructions of the stream up to word `end` that no branch can have jumped
/// over.
fn executed(stream: &Stream, end: usize) -> u64 {
    let words = &stream.words;
    let mut skipped_to = 0;
    let mut count = 0;
    for (at, &word) in words.iter().enumerate().take(end) {
        count += u64::from(at >= skipped_to);
        let ahead = match word {
            w if w & 0x7c00_0000 == 0x1400_0000 => w & 0x3ff_ffff,
            w if w & 0xff00_0010 == 0x5400_0000 || w & 0x7e00_0000 == 0x3400_0000 => {
                w >> 5 & 0x7_ffff
            }
            w if w & 0x7e00_0000 == 0x3600_0000 => w >> 5 & 0x3fff,
            // The address instruction before it names the target.
            w if w & 0xfe00_0000 == 0xd600_0000 => (words[at - 1] >> 5 & 0x7_ffff) - 1,
            _ => 0,
        };
        // Backward branches, of loops, skip nothing.
        if ahead > 1 && ahead < 256 {
            skipped_to = skipped_to.max(at + ahead as usize);
        }
    }
    count
}

/// Whether the outcomes agree, as far as they must.
pub fn agree(stream: &Stream, address: u64, ours: &Outcome, theirs: &Outcome) -> bool {
    if ours == theirs {
        return true;
    }
    if matches!(ours.stop, Stop::Unmapped(at) if known::is_private_to_qemu(at)) {
        return true;
    }
    let word = word_at(stream, address, ours.pc);
    let (mut theirs, mut torn) = (theirs.clone(), false);
    if let (Some(word), false) = (word, matches!(ours.stop, Stop::Break | Stop::Undefined)) {
        if known::is_cache_maintenance(word)
            || known::is_store_exclusive(word) && theirs.pc != ours.pc
        {
            return true;
        }
        if known::is_zero_block(word) {
            theirs.pc = ours.pc;
            theirs.stop = theirs.stop.in_block_of(ours.stop);
        }
        if known::is_load_acquire_pc(word) && matches!(ours.stop, Stop::Unaligned(_)) {
            return true;
        }
        torn = known::may_tear(word);
        for n in known::may_be_loaded(word) {
            theirs.state.v[n] = ours.state.v[n];
        }
    }
    // QEMU fetches before it looks at the alignment of the program counter.
    let fetch = ours.pc & 3 != 0 && matches!(theirs.stop, Stop::Unmapped(_) | Stop::Denied(_));
    (fetch || same_stop(ours.stop, theirs.stop))
        && ours.pc == theirs.pc
        && ours.state == theirs.state
        && (torn || ours.sums == theirs.sums)
}

fn same_stop(ours: Stop, theirs: Stop) -> bool {
    let near = |at: u64| at.wrapping_sub(super::WINDOW - 0x10_0000) < 0x20_6000;
    match (ours, theirs) {
        // Outside the window QEMU reserves memory, which counts as mapped, and
        // addresses that the host does not have come without one.
        (Stop::Unmapped(a), Stop::Denied(b) | Stop::Unmapped(b)) if !near(a) => {
            a == b || a >> 46 != 0
        }
        (Stop::Unmapped(a), Stop::Other(_)) => a >> 46 != 0,
        _ => ours == theirs,
    }
}

/// The word at `pc` of the stream at `address`.
fn word_at(stream: &Stream, address: u64, pc: u64) -> Option<u32> {
    let at = pc.checked_sub(address)? / 4;
    stream.words.get(at as usize).copied()
}

/// Whether the outcomes are equal.
pub fn same(_stream: &Stream, _address: u64, ours: &Outcome, theirs: &Outcome) -> bool {
    ours == theirs
}

/// Runs the plan and tells after each batch; panics with a report at the first
/// difference.
pub fn run(plan: Plan, mut progress: impl FnMut(&Tally)) -> Tally {
    let mut tally = Tally::default();
    machine(plan.tier, |machine| {
        for number in (plan.first..).take(plan.batches as usize) {
            one(machine, plan.seed, number, &mut tally);
            tally.batches += 1;
            progress(&tally);
            if tally.instructions >= plan.instructions {
                break;
            }
        }
    });
    tally
}

fn one(machine: &mut Machine, seed: u64, number: u64, tally: &mut Tally) {
    let batch = batch(seed, number);
    let (theirs, ours) = std::thread::scope(|scope| {
        let reference = scope.spawn(|| qemu::run(&batch, "cortex-a76"));
        let ours = machine.run(&batch);
        (reference.join().expect("qemu ran"), ours)
    });
    let addresses = batch.addresses();
    let mut wrong = Vec::new();
    for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let (stream, _) = batch.runs[i];
        if !agree(&batch.streams[stream], addresses[stream], ours, theirs) {
            wrong.push(i);
        }
        let words = &batch.streams[stream];
        let end = (ours.pc.wrapping_sub(addresses[stream]) / 4).min(words.words.len() as u64);
        tally.instructions += executed(words, end as usize);
        tally.runs += 1;
        tally.undefined += u64::from(ours.stop == Stop::Undefined);
        tally.faults += u64::from(!matches!(ours.stop, Stop::Break | Stop::Undefined));
        tally.torn += u64::from(ours.sums != theirs.sums);
    }
    tally.streams += batch.streams.len() as u64;
    // QEMU's own memory lies elsewhere in each process of it, and a wild access may
    // find it: what the engine did is wrong if it differs from another process, too.
    if !wrong.is_empty() {
        let again = qemu::run(&batch, "cortex-a76");
        wrong.retain(|&i| {
            let (stream, _) = batch.runs[i];
            let words = &batch.streams[stream];
            !agree(words, addresses[stream], &ours[i], &again[i])
        });
    }
    if !wrong.is_empty() {
        let title = format!(
            "seed {seed:#x} batch {number}: {} of {} runs differ",
            wrong.len(),
            batch.runs.len()
        );
        let reference = report::Reference {
            run: &|batch| qemu::run(batch, "cortex-a76"),
            agree,
        };
        panic!(
            "{title}\n{}",
            report::explain(machine, &reference, &batch, &wrong, &ours, &theirs)
        );
    }
}
