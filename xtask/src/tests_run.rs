//! Runs all tests, and those that failed once more: alone, when nothing else does.
//!
//! Some two thousand tests start guests on a host that is always busy. A test that
//! fails among them and passes alone is named, with what it said, as something to
//! mend; it does not make the run fail. What fails twice does, and so do a test
//! program that crashed and more than a handful of failures.

use crate::{process, workspace};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Failures beyond this many are no accident of one busy moment.
const MOST_AGAIN: usize = 4;

/// A test program that failed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Failed {
    package: String,
    /// Relative to the workspace, as cargo prints it.
    executable: String,
    /// Tests of it; none if it crashed.
    tests: Vec<String>,
}

/// What is read out of the output of cargo and of the test programs.
#[derive(Debug, Default)]
struct Reader {
    executable: String,
    tests: Vec<String>,
    in_list: bool,
    failed: Vec<Failed>,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if let Some(running) = line.strip_prefix("     Running ") {
            let path = running.rsplit_once(" (").map(|(_, path)| path);
            self.executable = path.unwrap_or_default().trim_end_matches(')').to_owned();
            self.tests.clear();
        } else if line.starts_with("   Doc-tests ") {
            self.executable.clear();
            self.tests.clear();
        } else if line == "failures:" {
            // Written twice: before what the tests said, and before their names.
            self.tests.clear();
            self.in_list = true;
        } else if line.starts_with("test result:") {
            self.in_list = false;
        } else if let Some(rest) = line.strip_prefix("error: test failed, to rerun pass `-p ") {
            let package = rest.split([' ', '`']).next().unwrap_or_default();
            self.failed.push(Failed {
                package: package.to_owned(),
                executable: self.executable.clone(),
                tests: std::mem::take(&mut self.tests),
            });
        } else if let (true, Some(name)) = (self.in_list, line.strip_prefix("    ")) {
            self.tests.push(name.to_owned());
        }
    }
}

/// Runs `cargo`, which tests the workspace, and shows what it prints.
pub fn run(mut cargo: Command) -> Result<()> {
    let (output, end) = std::io::pipe().context("no pipe for the tests' output")?;
    cargo
        .stdin(Stdio::null())
        .stdout(end.try_clone().context("no pipe for the tests' output")?)
        .stderr(end);
    let mut child = cargo.spawn().context("cannot run cargo test")?;
    // The pipe's other end is in it, and would keep the output from ending.
    drop(cargo);
    let mut reader = Reader::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("the tests' output cannot be read")?;
        let line = String::from_utf8_lossy(&line);
        // By the macro, which the tests of this module can keep to themselves: a
        // reader outside them would take their lines for its own.
        eprintln!("{line}");
        reader.line(&line);
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    if status.success() {
        return Ok(());
    }
    let failed = reader.failed;
    let count: usize = failed.iter().map(|program| program.tests.len()).sum();
    let crashed = |program: &Failed| program.tests.is_empty() || program.executable.is_empty();
    if failed.is_empty() || count > MOST_AGAIN || failed.iter().any(crashed) {
        bail!("cargo test: {status}");
    }
    for program in &failed {
        again(program).with_context(|| format!("cargo test: {status}, and once more"))?;
    }
    for Failed { package, tests, .. } in &failed {
        for test in tests {
            eprintln!("unsteady, to be mended: {package} {test} failed, and passed alone");
        }
    }
    Ok(())
}

/// Runs the failed tests of one program, each when nothing else runs.
fn again(program: &Failed) -> Result<()> {
    for test in &program.tests {
        eprintln!("== {} {test}, once more", program.package);
        let directory = workspace::directory_of(&program.package)?;
        let mut command = Command::new(workspace::root().join(&program.executable));
        command
            .args(["--exact", test])
            .env("CARGO_MANIFEST_DIR", &directory)
            .current_dir(&directory);
        process::shown(&mut command)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str) -> Vec<Failed> {
        let mut reader = Reader::default();
        output.lines().for_each(|line| reader.line(line));
        reader.failed
    }

    const OUTPUT: &str = "
     Running unittests src/lib.rs (target/debug/deps/first-01)

running 1 test
test tests::holds ... ok

test result: ok. 1 passed; 0 failed

     Running tests/cli/main.rs (target/debug/deps/cli-02)

running 2 tests
test a::b ... FAILED
test c ... ok

failures:

---- a::b stdout ----
    a line that looks like a name

failures:
    a::b

test result: FAILED. 1 passed; 1 failed

error: test failed, to rerun pass `-p some-tests --test cli`
     Running tests/other.rs (target/debug/deps/other-03)
error: test failed, to rerun pass `-p other --test other`

Caused by:
  process didn't exit successfully: `other-03` (signal: 6, SIGABRT: process abort signal)
   Doc-tests first
error: doctest failed, to rerun pass `-p first --doc`
";

    #[test]
    fn failed_tests_are_found_with_their_programs() {
        let [cli, other] = &read(OUTPUT)[..] else {
            panic!("{:?}", read(OUTPUT));
        };
        assert_eq!(cli.package, "some-tests");
        assert_eq!(cli.executable, "target/debug/deps/cli-02");
        assert_eq!(cli.tests, ["a::b"]);
        assert_eq!(other.package, "other");
        assert_eq!(other.tests, [""; 0], "it crashed");
    }

    #[test]
    fn nothing_is_found_where_all_passed() {
        let passed = OUTPUT.split("     Running tests/cli").next().unwrap();
        assert_eq!(read(passed), []);
    }

    /// A shell script in the place of cargo.
    fn script(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn crashes_and_many_failures_are_not_tried_again() {
        run(script("exit 0")).unwrap();
        run(script("exit 101")).unwrap_err();
        let crash = "echo 'error: test failed, to rerun pass `-p xtask --bin xtask`'; exit 101";
        run(script(crash)).unwrap_err();
    }

    #[test]
    fn what_fails_again_fails_the_run_and_what_passes_does_not() {
        let once = |program: &str| {
            let lines = [
                format!("     Running it ({program})"),
                "failures:".into(),
                "    name".into(),
                "test result: FAILED.".into(),
                "error: test failed, to rerun pass `-p xtask --bin xtask`".into(),
            ];
            let text = lines.map(|line| format!("echo '{line}'; ")).concat();
            run(script(&format!("{text} exit 101")))
        };
        once("/bin/true").unwrap();
        once("/bin/false").unwrap_err();
    }
}
