//! The tool's side of a machine that is to outlive it.

use super::record::{About, Record};
use crate::Error;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

/// In front of the supervisor's other arguments: the machine's directory.
const SUPERVISE: &str = "--supervise";
/// Longest first word of a supervisor in bytes.
const MAX_WORD_BYTES: u64 = 64 * 1024;

/// Starts a supervisor with our own arguments, which makes the machine, and
/// returns the machine's id when its command runs. If it never does, the
/// supervisor has said why, and its status is returned.
pub fn start(about: About, supervised: &[OsString]) -> Result<Result<String, u8>, Error> {
    let (record, held) = Record::create(about)?;
    let result = spawn(&record, supervised);
    drop(held);
    if !matches!(result, Ok(Ok(()))) {
        // Of what never ran there is nothing to look into.
        let _ = record.remove();
    }
    Ok(result?.map(|()| record.id))
}

fn spawn(record: &Record, arguments: &[OsString]) -> Result<Result<(), u8>, Error> {
    let executable = std::env::current_exe().map_err(Error::system("find our own executable"))?;
    let mut command = Command::new(executable);
    if let Some(directory) = &record.about.directory {
        command.current_dir(directory);
    }
    let mut supervisor = command
        .arg("run")
        .arg(SUPERVISE)
        .arg(record.dir())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::system("start the machine's supervisor"))?;
    let mut word = String::new();
    if let Some(stdout) = supervisor.stdout.take() {
        // What cannot be read is as good as not said.
        let _ = BufReader::new(stdout.take(MAX_WORD_BYTES)).read_line(&mut word);
    }
    if word == super::supervise::STARTED {
        return Ok(Ok(()));
    }
    let ended = supervisor
        .wait()
        .map_err(Error::system("wait for the machine's supervisor"))?;
    match ended.code().and_then(|code| u8::try_from(code).ok()) {
        Some(status) if status != 0 => Ok(Err(status)),
        _ => Err(Error::Ended {
            reason: "its supervisor was ended before its command ran".into(),
        }),
    }
}
