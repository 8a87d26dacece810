//! Our standard streams, byte for byte.

use super::terminal;
use crate::Error;
use crate::error::with_causes;
use crate::exec::Sinks;
use exec_proto::Printable;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Since when, if at all, a write of ours has been waiting.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Option<Instant>>);

impl Progress {
    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// For how long a write has been waiting, counted from `start`.
    pub fn stalled_since(&self, start: Instant) -> Duration {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.max(start).elapsed())
    }
}

/// Writes all of it, to descriptors that do not block as well: whoever shares
/// our standard output may have set it so.
pub fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8], progress: &Progress) -> io::Result<()> {
    while !bytes.is_empty() {
        progress.set(Some(Instant::now()));
        let result = rustix::io::write(to, bytes);
        if result == Err(Errno::AGAIN) {
            wait(to, PollFlags::OUT)?;
        }
        progress.set(None);
        match result {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::AGAIN | Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads once, from descriptors that do not block as well.
pub fn read(from: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(from, &mut *buffer) {
            Err(Errno::AGAIN) => wait(from, PollFlags::IN)?,
            Err(Errno::INTR) => (),
            result => return Ok(result?),
        }
    }
}

fn wait(on: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(&on, flags)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Standard output and error.
pub struct Standard<'a>(pub &'a Progress);

impl Sinks for Standard<'_> {
    fn stdout(&mut self, bytes: &[u8]) -> Result<(), Error> {
        write_all(io::stdout().as_fd(), bytes, self.0).map_err(|source| Error::Output { source })
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<(), Error> {
        write_all(io::stderr().as_fd(), bytes, self.0).map_err(|source| Error::Output { source })
    }
}

/// Foreign text in a line of ours.
pub fn plain(text: &str) -> String {
    Printable::line(text).to_string()
}

/// Writes text of our own to standard output. What is foreign in it goes
/// through [`plain`], or it could end our lines; what was forgotten still cannot
/// drive a terminal.
pub fn print(text: &str) -> Result<(), Error> {
    let tame = tame(text, |char| char.escape_unicode().to_string());
    Standard(&Progress::default()).stdout(tame.as_bytes())
}

/// Writes JSON to standard output, with what would drive a terminal escaped as
/// JSON has it. The values are the same.
pub fn print_json(value: &impl Serialize, is_pretty: bool) -> Result<(), Error> {
    let text = if is_pretty {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    let text = text.map_err(|error| Error::system("write JSON")(error.into()))?;
    let tame = tame(&text, |char| {
        let mut units = [0; 2];
        let units = char.encode_utf16(&mut units).iter();
        units.map(|unit| format!("\\u{unit:04x}")).collect()
    });
    Standard(&Progress::default()).stdout(format!("{tame}\n").as_bytes())
}

/// Text with everything escaped that is neither harmless nor a line's end.
fn tame(text: &str, escape: impl Fn(char) -> String) -> String {
    let mut tame = String::with_capacity(text.len());
    for char in text.chars() {
        if char == '\n' || Printable::is_harmless(char) {
            tame.push(char);
        } else {
            tame.push_str(&escape(char));
        }
    }
    tame
}

/// Writes bytes that are ours alone to standard output.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Error> {
    Standard(&Progress::default()).stdout(bytes)
}

/// Whether a stream of ours is a terminal.
pub fn is_terminal(stream: impl AsFd) -> bool {
    rustix::termios::isatty(stream)
}

/// Whether standard error may be coloured: it is a terminal that can, and its user
/// wants it (`NO_COLOR`, <https://no-color.org>).
fn has_colour() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let can = set("TERM").is_none_or(|term| term != "dumb");
    can && set("NO_COLOR").is_none() && is_terminal(io::stderr())
}

/// Says why the tool failed: the error and all its causes.
pub fn report(error: &Error) {
    report_text(&with_causes(error));
}

/// The same of what another process of the tool says of its error.
pub fn report_text(text: &str) {
    let text = Printable::lines(text).to_string();
    let name = match has_colour() {
        true => "\x1b[1;31msupermachine:\x1b[0m",
        false => "supermachine:",
    };
    // A command that had the terminal has left the cursor somewhere in a line.
    let start = match terminal::was_raw() {
        true => "\n",
        false => "",
    };
    let line = format!("{start}{name} {text}\n");
    let _ = Standard(&Progress::default()).stderr(line.as_bytes());
}

/// Writes text of our own to standard error; without one there is no one to
/// tell.
pub fn complain(text: &str) {
    let tame = Printable::lines(text).to_string();
    let _ = Standard(&Progress::default()).stderr(tame.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_with_foreign_text_is_tame_and_means_the_same() {
        let value = serde_json::json!({"name": "a\x1b\u{7f}\u{9b}\u{202e}\n😀\\"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let tame = tame(&text, |char| format!("\\u{:04x}", u32::from(char)));
        assert!(tame.chars().all(|c| c == '\n' || Printable::is_harmless(c)));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&tame).unwrap(),
            value
        );
    }
}
