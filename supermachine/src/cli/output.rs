//! Our standard streams, byte for byte.

use crate::Error;
use crate::exec::Sinks;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
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
fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8], progress: &Progress) -> io::Result<()> {
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

/// Foreign text for a terminal: what would move its cursor, or turn the
/// direction of its writing, is escaped.
pub fn plain(text: &str) -> String {
    let shown = |char: char| match char {
        // Marks, embeddings and isolates of the Unicode bidirectional
        // algorithm (UAX #9), and the two separators that end lines.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            false
        }
        char => !char.is_control(),
    };
    let mut plain = String::with_capacity(text.len());
    for char in text.chars() {
        if shown(char) {
            plain.push(char);
        } else {
            plain.extend(char.escape_unicode());
        }
    }
    plain
}

/// Writes text of our own to standard output.
pub fn print(text: &str) -> Result<(), Error> {
    Standard(&Progress::default()).stdout(text.as_bytes())
}

/// Writes text of our own to standard error; without one there is no one to
/// tell.
pub fn complain(text: &str) {
    let _ = Standard(&Progress::default()).stderr(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        assert_eq!(plain("oci:größe/日本"), "oci:größe/日本");
        assert_eq!(plain("a\x1b[31mb"), "a\\u{1b}[31mb");
        assert_eq!(plain("a\nb\u{9b}c\u{202e}d"), "a\\u{a}b\\u{9b}c\\u{202e}d");
    }
}
