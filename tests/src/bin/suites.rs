//! Suites of others for file systems, on mounts: `suites PROGRAMS [SIDE…]`. `cargo xtask
//! suites` builds the programs and runs this.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use supermachine_tests::suites::{PROGRAMS, Place, Program, SHARE, Side, pjdfstest};
use supermachine_tests::{busybox, target_dir};

/// For one suite, on a host however busy.
const LIMIT: Duration = Duration::from_secs(1800);
/// Operations of fsx, and the seeds it begins with.
const OPERATIONS: u32 = 10_000;
const SEEDS: [u32; 3] = [1, 20, 300];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((programs, sides)) = words.split_first() else {
        eprintln!("usage: suites PROGRAMS [SIDE…]");
        return ExitCode::from(2);
    };
    let is_side = |word: &String| Side::ALL.iter().any(|side| word == side.name());
    if let Some(word) = sides.iter().find(|word| !is_side(word)) {
        eprintln!(
            "suites: no side {word}: there are {:?}",
            Side::ALL.map(Side::name)
        );
        return ExitCode::from(2);
    }
    let wanted = |side: &Side| sides.is_empty() || sides.iter().any(|word| word == side.name());
    let programs = match read(Path::new(programs)) {
        Ok(programs) => programs,
        Err(error) => {
            eprintln!("suites: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut outcomes = Vec::new();
    let mut problems = Vec::new();
    for side in Side::ALL.into_iter().filter(wanted) {
        match run(side, &programs) {
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

fn read(directory: &Path) -> std::io::Result<Vec<Program>> {
    let mut programs = vec![("busybox".to_owned(), busybox())];
    for name in ["pjdfstest", "fsx"] {
        programs.push((name.to_owned(), std::fs::read(directory.join(name))?));
    }
    let config = pjdfstest::CONFIG.as_bytes().to_vec();
    programs.push(("pjdfstest.toml".to_owned(), config));
    Ok(programs)
}

/// Runs the suites at one place; the names of what failed of pjdfstest.
fn run(side: Side, programs: &[Program]) -> Result<BTreeSet<String>, String> {
    let shared = tempfile::tempdir_in(target_dir()).map_err(|error| error.to_string())?;
    let mut place = Place::start(side, shared.path(), programs)?;
    let begun = Instant::now();
    let outcome = pjdfstest::read(&place.run(&pjdfstest::command(), LIMIT)?)?;
    println!(
        "{}: pjdfstest: {} passed, {} failed, {} skipped, in {:.0} s",
        side.name(),
        outcome.passed,
        outcome.failed.len(),
        outcome.skipped,
        begun.elapsed().as_secs_f64()
    );
    for (name, reason) in &outcome.failed {
        println!("{}:   {name}: {reason}", side.name());
    }
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
    Ok(outcome.failed.into_keys().collect())
}

/// Ours fail what is expected and nothing else; what the peer fails is only shown.
fn judge(outcomes: &[(Side, BTreeSet<String>)], problems: &mut Vec<String>) {
    let expected = pjdfstest::expected();
    for (side, failed) in outcomes.iter().filter(|(side, _)| *side != Side::Virtiofsd) {
        let failed: BTreeSet<&str> = failed.iter().map(String::as_str).collect();
        for name in failed.difference(&expected) {
            problems.push(format!("{}: {name} failed", side.name()));
        }
        for name in expected.difference(&failed) {
            problems.push(format!("{}: {name} passed: strike it out", side.name()));
        }
    }
}
