//! The tool's side of a machine that is to outlive it.

use super::record::{About, Record};
use crate::Error;
use crate::limits::OTHERS_END_PAUSE;
use crate::limits::cli::SUPERVISOR_TIMEOUT;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// In front of the supervisor's other arguments: the machine's directory.
const SUPERVISE: &str = "--supervise";
/// Longest first word of a supervisor in bytes.
const MAX_WORD_BYTES: u64 = 64 * 1024;

/// Starts a supervisor with our own arguments, which makes the machine, and
/// returns the machine's id when its command runs. If it never does, the
/// supervisor has said why, and its status is returned.
pub fn start(about: About, supervised: &[OsString]) -> Result<Result<String, u8>, Error> {
    let (record, held) = Record::create(about)?;
    let result = spawn(&record, supervised, Stdio::null());
    drop(held);
    if !matches!(result, Ok(Ok(_))) {
        // Of what never ran there is nothing to look into.
        let _ = record.remove();
    }
    Ok(result?.map(|_| record.id))
}

/// A machine with a supervisor that ends it when we are gone, unless we said before
/// that we leave it.
pub struct Attended {
    record: Record,
    supervisor: Child,
    /// Where its command's streams are, in frames.
    pub stream: UnixStream,
}

/// As [`start`], of a record that was just made, with us at the command's streams from
/// their first byte on.
pub fn attend(
    (record, held): (Record, File),
    supervised: &[OsString],
) -> Result<Result<Attended, u8>, Error> {
    let (stream, theirs) = UnixStream::pair().map_err(Error::system("make a pair of sockets"))?;
    let result = spawn(&record, supervised, OwnedFd::from(theirs).into());
    drop(held);
    if !matches!(result, Ok(Ok(_))) {
        let _ = record.remove();
    }
    Ok(result?.map(|supervisor| Attended {
        record,
        supervisor,
        stream,
    }))
}

impl Attended {
    /// What the machine is to be called in commands.
    pub fn name(&self) -> &str {
        self.record.about.name.as_deref().unwrap_or(&self.record.id)
    }

    /// Waits until the machine is gone, of which nothing is kept then.
    pub fn settle(mut self) {
        drop(self.stream);
        let begun = Instant::now();
        // What cannot be asked is gone.
        while matches!(self.supervisor.try_wait(), Ok(None)) {
            if begun.elapsed() >= SUPERVISOR_TIMEOUT {
                return;
            }
            std::thread::sleep(OTHERS_END_PAUSE);
        }
        // Its supervisor has done so, if it could.
        let _ = self.record.remove();
    }
}

fn spawn(
    record: &Record,
    arguments: &[OsString],
    stdin: Stdio,
) -> Result<Result<Child, u8>, Error> {
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
        .stdin(stdin)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::system("start the machine's supervisor"))?;
    let mut word = String::new();
    if let Some(stdout) = supervisor.stdout.take() {
        // What cannot be read is as good as not said.
        let _ = BufReader::new(stdout.take(MAX_WORD_BYTES)).read_line(&mut word);
    }
    if word == super::supervise::STARTED {
        return Ok(Ok(supervisor));
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
