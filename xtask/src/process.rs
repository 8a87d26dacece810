//! Running other programs, with errors that show what they said.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Lines of a log shown when its program failed.
const TAIL_LINES: usize = 120;

/// Runs a program to its end and returns its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let name = describe(command);
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{name}: {}: {}", done.status, said.trim_end());
    }
    String::from_utf8(done.stdout).with_context(|| format!("{name}: output is not text"))
}

/// Runs a program with its output appended to `log`; on failure the error ends
/// with the end of that log.
pub fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let name = describe(command);
    let open = || OpenOptions::new().create(true).append(true).open(log);
    let (stdout, stderr) = open()
        .and_then(|file| Ok((file.try_clone()?, file)))
        .with_context(|| format!("cannot open {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .status()
        .with_context(|| format!("cannot run {name}"))?;
    if status.success() {
        return Ok(());
    }
    bail!(
        "{name}: {status}; the end of {}:\n{}",
        log.display(),
        tail(log)?
    )
}

/// Runs a program whose output the user sees, on our standard error: standard
/// output is for results.
pub fn shown(command: &mut Command) -> Result<()> {
    let name = describe(command);
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}

/// Whether a program of this name is on the search path.
pub fn exists(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

fn tail(log: &Path) -> Result<String> {
    let mut lines = VecDeque::with_capacity(TAIL_LINES + 1);
    for line in BufReader::new(File::open(log)?).split(b'\n') {
        lines.push_back(String::from_utf8_lossy(&line?).into_owned());
        if lines.len() > TAIL_LINES {
            lines.pop_front();
        }
    }
    Ok(Vec::from(lines).join("\n"))
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned();
    for argument in command.get_args().take(3) {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_end_of_the_log_and_not_its_start() {
        let log = std::env::temp_dir().join(format!("xtask-tail-{}", std::process::id()));
        let mut script = Command::new("sh");
        script.args([
            "-c",
            "i=0; while [ $i -lt 300 ]; do echo line-$i; i=$((i+1)); done; exit 3",
        ]);
        let error = logged(&mut script, &log).unwrap_err().to_string();
        std::fs::remove_file(&log).unwrap();
        assert!(
            error.contains("line-299") && error.contains("line-180\n"),
            "{error}"
        );
        assert!(!error.contains("line-179\n"), "{error}");
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = output(&mut Command::new("no-such-program-here")).unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"));
        assert!(!exists("no-such-program-here"));
    }
}
