//! Suites of others for file systems, and programs that use them much, on mounts: `suites
//! PROGRAMS LAYOUT DEBS [SIDE|SUITE…]`. `cargo xtask suites` makes what it needs and runs
//! this.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use supermachine_tests::suites::programs::{self, SCRIPTS};
use supermachine_tests::suites::{Kit, Outcome, PROGRAMS, Place, SHARE, Side, pjdfstest};
use supermachine_tests::{busybox, target_dir};

/// For one suite, on a host however busy.
const LIMIT: Duration = Duration::from_secs(1800);
/// Operations of fsx, and the seeds it begins with.
const OPERATIONS: u32 = 10_000;
const SEEDS: [u32; 3] = [1, 20, 300];

/// Which sides and suites are wanted.
struct Wanted(Vec<String>);

impl Wanted {
    fn side(&self, side: Side) -> bool {
        let is_side = |word: &String| Side::ALL.iter().any(|side| word == side.name());
        !self.0.iter().any(is_side) || self.0.iter().any(|word| word == side.name())
    }

    fn suite(&self, name: &str) -> bool {
        let is_suite = |word: &String| suites().any(|suite| word == suite);
        !self.0.iter().any(is_suite) || self.0.iter().any(|word| word == name)
    }

    fn unknown(&self) -> Option<&String> {
        let names: Vec<&str> = suites().chain(Side::ALL.map(Side::name)).collect();
        self.0.iter().find(|word| !names.contains(&word.as_str()))
    }
}

fn suites() -> impl Iterator<Item = &'static str> {
    let scripts = SCRIPTS.iter().map(|script| script.name);
    ["pjdfstest", "fsx"].into_iter().chain(scripts)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [programs, layout, debs, wanted @ ..] = words.as_slice() else {
        eprintln!("usage: suites PROGRAMS LAYOUT DEBS [SIDE|SUITE…]");
        return ExitCode::from(2);
    };
    let wanted = Wanted(wanted.to_vec());
    if let Some(word) = wanted.unknown() {
        let sides = Side::ALL.map(Side::name).join(", ");
        let suites: Vec<&str> = suites().collect();
        let suites = suites.join(", ");
        eprintln!("suites: {word} is no side, of which there are {sides}, and no suite: {suites}");
        return ExitCode::from(2);
    }
    let kit = match kit(Path::new(programs), PathBuf::from(layout)) {
        Ok(kit) => kit,
        Err(error) => {
            eprintln!("suites: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut outcomes = Vec::new();
    let mut problems = Vec::new();
    for side in Side::ALL.into_iter().filter(|side| wanted.side(*side)) {
        match run(side, &kit, Path::new(debs), &wanted) {
            Ok(failed) => outcomes.push((side, failed)),
            Err(error) => problems.push(format!("{}: {error}", side.name())),
        }
    }
    judge(&outcomes, &mut problems);
    for problem in &problems {
        eprintln!("suites: {problem}");
    }
    match problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// What the guests have.
fn kit(directory: &Path, layout: PathBuf) -> Result<Kit, String> {
    let mut programs = vec![("busybox".to_owned(), busybox())];
    for name in ["pjdfstest", "fsx"] {
        let bytes = std::fs::read(directory.join(name)).map_err(|error| error.to_string())?;
        programs.push((name.to_owned(), bytes));
    }
    let config = ("pjdfstest.toml", pjdfstest::CONFIG);
    for (name, text) in programs::files().chain([config]) {
        programs.push((name.to_owned(), text.as_bytes().to_vec()));
    }
    Kit::of(layout, programs)
}

/// Runs the suites at one place; the names of what failed of them.
fn run(side: Side, kit: &Kit, debs: &Path, wanted: &Wanted) -> Result<BTreeSet<String>, String> {
    let shared = tempfile::tempdir_in(target_dir()).map_err(|error| error.to_string())?;
    copy(debs, &shared.path().join("debs")).map_err(|error| error.to_string())?;
    let mut place = Place::start(side, shared.path(), kit)?;
    let mut failed = BTreeSet::new();
    if wanted.suite("pjdfstest") {
        let begun = Instant::now();
        let outcome = pjdfstest::read(&place.run(&pjdfstest::command(), LIMIT)?)?;
        tell(side, "pjdfstest", &outcome, begun);
        failed.extend(outcome.failed.into_keys());
    }
    if wanted.suite("fsx") {
        fsx(side, &mut place)?;
    }
    for script in SCRIPTS.iter().filter(|script| wanted.suite(script.name)) {
        let begun = Instant::now();
        let said = place.run(&script.command(), programs::LIMIT)?;
        for figure in said.lines().filter(|line| line.starts_with('#')) {
            println!("{}: {}: {figure}", side.name(), script.name);
        }
        // One that does not end is a failure of its own, and the others can be run.
        let outcome = script.read(&said).unwrap_or_else(|error| {
            let mut outcome = Outcome::default();
            outcome
                .failed
                .insert(format!("{}::end", script.name), error);
            outcome
        });
        tell(side, script.name, &outcome, begun);
        if side != Side::Virtiofsd {
            for name in &outcome.skipped {
                println!("{}:   {name}", side.name());
            }
        }
        failed.extend(outcome.failed.into_keys());
    }
    Ok(failed)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn tell(side: Side, suite: &str, outcome: &Outcome, begun: Instant) {
    println!(
        "{}: {suite}: {} passed, {} failed, {} skipped, in {:.0} s",
        side.name(),
        outcome.passed,
        outcome.failed.len(),
        outcome.skipped.len(),
        begun.elapsed().as_secs_f64()
    );
    for (name, reason) in &outcome.failed {
        println!("{}:   {name}: {reason}", side.name());
    }
}

fn fsx(side: Side, place: &mut Place) -> Result<(), String> {
    for seed in SEEDS {
        let command = format!(
            "{PROGRAMS}/fsx -N {OPERATIONS} -S {seed} {SHARE}/fsx-{seed} >/tmp/fsx || tail -n 40 /tmp/fsx"
        );
        let said = place.run(&command, LIMIT)?;
        if said.lines().next_back() != Some("0") || said.lines().count() > 1 {
            return Err(format!("fsx with seed {seed}: {said}"));
        }
        println!("{}: fsx: {OPERATIONS} operations, seed {seed}", side.name());
    }
    Ok(())
}

/// Ours fail nothing that the peer does not; what the peer fails is only shown.
fn judge(outcomes: &[(Side, BTreeSet<String>)], problems: &mut Vec<String>) {
    let peer = outcomes.iter().find(|(side, _)| *side == Side::Virtiofsd);
    let peer = peer.map(|(_, failed)| failed.clone()).unwrap_or_default();
    for (side, failed) in outcomes.iter().filter(|(side, _)| *side != Side::Virtiofsd) {
        for name in failed.difference(&peer) {
            problems.push(format!("{}: {name} failed", side.name()));
        }
    }
}
