//! Programs of Debian that work on files, as people use them, with checks of their own.

use std::time::Duration;

use super::{Outcome, PROGRAMS};

/// For one program, on a host however busy.
pub const LIMIT: Duration = Duration::from_secs(1800);

/// A script for guests, and what runs it.
pub struct Script {
    /// What it is called.
    pub name: &'static str,
    interpreter: &'static str,
    /// Its file name and text.
    file: (&'static str, &'static str),
    argument: &'static str,
}

macro_rules! script {
    ($name:literal, $interpreter:literal, $file:literal, $argument:literal) => {
        Script {
            name: $name,
            interpreter: $interpreter,
            file: (
                $file,
                include_str!(concat!("../../programs/suites/", $file)),
            ),
            argument: $argument,
        }
    };
}

/// What runs on each mount.
pub const SCRIPTS: [Script; 8] = [
    script!("fio", "bash", "fio.sh", ""),
    script!("sqlite", "python3", "sqlite.py", "12"),
    script!("git", "bash", "git.sh", ""),
    script!("stress-ng", "bash", "stress-ng.sh", ""),
    script!("dpkg", "bash", "dpkg.sh", ""),
    script!("rsync", "bash", "rsync.sh", ""),
    script!("pip", "bash", "pip.sh", ""),
    script!("npm", "bash", "npm.sh", ""),
];

/// What scripts need beside them: what they share, and the registry that npm asks.
const BESIDE: [(&str, &str); 2] = [
    ("steps.sh", include_str!("../../programs/suites/steps.sh")),
    (
        "npm-registry.py",
        include_str!("../../programs/suites/npm-registry.py"),
    ),
];

/// The files that guests need for them.
pub fn files() -> impl Iterator<Item = (&'static str, &'static str)> {
    SCRIPTS.iter().map(|script| script.file).chain(BESIDE)
}

impl Script {
    /// The command line for the guest's shell.
    pub fn command(&self) -> String {
        self.command_with(self.argument)
    }

    /// The same with another argument.
    pub fn command_with(&self, argument: &str) -> String {
        format!("{} {PROGRAMS}/{} {argument}", self.interpreter, self.file.0)
    }

    /// Reads what it says: lines of `passed`, `failed` and `skipped` with a name, and a
    /// reason after a colon; `end` is the last before the exit status.
    ///
    /// # Errors
    /// A text, if it did not come to its end.
    pub fn read(&self, said: &str) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        for line in said.lines() {
            let (line, reason) = line.split_once(": ").unwrap_or((line, ""));
            match line.split_once(' ') {
                Some(("passed", _)) => outcome.passed += 1,
                Some(("skipped", name)) => outcome.skipped.push(format!("{name}: {reason}")),
                Some(("failed", name)) => {
                    let name = format!("{}::{name}", self.name);
                    outcome.failed.insert(name, reason.to_owned());
                }
                _ => {}
            }
        }
        let ended = said.trim_end().ends_with("\nend\n0");
        match ended && outcome.passed + outcome.failed.len() > 0 {
            true => Ok(outcome),
            false => Err(format!("{} did not come to its end:\n{said}", self.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "passed one two\n# a figure\nfailed three: no: such file\n\
        skipped four: not here\nnoise\nend\n0\n";

    #[test]
    fn outcome_is_counted_only_of_a_whole_run() {
        let script = &SCRIPTS[0];
        let outcome = script.read(SAID).unwrap();
        assert_eq!(outcome.passed, 1);
        assert_eq!(outcome.skipped, ["four: not here"]);
        let failed: Vec<_> = outcome.failed.into_iter().collect();
        assert_eq!(failed, [("fio::three".into(), "no: such file".into())]);
        for cut in [
            SAID.replace("end\n", ""),
            SAID.replace("\n0\n", "\n1\n"),
            "end\n0\n".to_owned(),
            "\nend\n0\n".to_owned(),
        ] {
            assert!(script.read(&cut).is_err(), "{cut}");
        }
    }

    #[test]
    fn each_script_says_that_it_has_ended() {
        for script in &SCRIPTS {
            let last = script.file.1.trim_end().lines().next_back();
            assert!(
                matches!(last, Some("echo end" | "print(\"end\")")),
                "{}",
                script.name
            );
        }
    }
}
