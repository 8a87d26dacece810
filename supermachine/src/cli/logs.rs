//! `supermachine logs`: what is printed of a log, and how.

use super::detached::log::{Entry, Reader, Stream};
use super::output::{Progress, Standard};
use crate::Error;
use crate::exec::Sinks;
use crate::limits::cli::LOG_PAUSE;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

/// What is printed.
#[derive(clap::Args)]
pub struct Options {
    /// Go on until the machine has ended
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<usize>,
    /// Put the time in front of each line
    #[arg(short, long)]
    timestamps: bool,
}

/// Prints a log to the streams it came from. `is_written` says whether more may
/// follow.
pub fn show(
    mut reader: Reader,
    options: &Options,
    is_written: impl Fn() -> bool,
) -> Result<(), Error> {
    let progress = Progress::default();
    let mut printer = Printer {
        to: Standard(&progress),
        has_times: options.timestamps,
        begins_line: [true; 2],
    };
    match options.tail {
        Some(lines) => {
            for piece in tail(&mut reader, lines)? {
                printer.print(&piece)?;
            }
        }
        None => {
            while let Some(entry) = reader.next()? {
                printer.print(&entry)?;
            }
        }
    }
    let mut goes_on = options.follow;
    while goes_on {
        // Asked first: what comes before the end is read after it.
        goes_on = is_written();
        while let Some(entry) = reader.next()? {
            printer.print(&entry)?;
        }
        if goes_on {
            std::thread::sleep(LOG_PAUSE);
        }
    }
    Ok(())
}

/// The last lines of what there is, cut where they begin. A line is what one
/// stream wrote up to an end of line.
fn tail(reader: &mut Reader, lines: usize) -> Result<VecDeque<Entry>, Error> {
    let mut kept: VecDeque<Entry> = VecDeque::new();
    let mut begins_line = [true; 2];
    let mut begun = 0;
    while let Some(entry) = reader.next()? {
        for piece in entry.bytes.split_inclusive(|byte| *byte == b'\n') {
            let begins = &mut begins_line[entry.stream as usize];
            begun += usize::from(*begins);
            *begins = piece.ends_with(b"\n");
            kept.push_back(Entry {
                unix_ms: entry.unix_ms,
                stream: entry.stream,
                bytes: piece.to_vec(),
            });
        }
        // Whole lines only: each piece but the last of a stream ends one.
        while begun > lines {
            let Some(first) = kept.pop_front() else { break };
            begun -= usize::from(first.bytes.ends_with(b"\n"));
        }
    }
    Ok(kept)
}

struct Printer<'a> {
    to: Standard<'a>,
    has_times: bool,
    /// Of each stream.
    begins_line: [bool; 2],
}

impl Printer<'_> {
    fn print(&mut self, entry: &Entry) -> Result<(), Error> {
        let text = match self.has_times {
            true => self.with_times(entry),
            false => entry.bytes.clone(),
        };
        match entry.stream {
            Stream::Stdout => self.to.stdout(&text),
            Stream::Stderr => self.to.stderr(&text),
        }
    }

    fn with_times(&mut self, entry: &Entry) -> Vec<u8> {
        let begins = &mut self.begins_line[entry.stream as usize];
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(entry.unix_ms));
        let time = time.unwrap_or(SystemTime::UNIX_EPOCH);
        let stamp = format!("{} ", humantime::format_rfc3339_millis(time));
        let mut text = Vec::new();
        for line in entry.bytes.split_inclusive(|byte| *byte == b'\n') {
            if *begins {
                text.extend_from_slice(stamp.as_bytes());
            }
            text.extend_from_slice(line);
            *begins = line.ends_with(b"\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::detached::log::Writer;
    use crate::link::runtime_dir::RuntimeDir;

    #[test]
    fn tail_is_whole_lines_whatever_they_were_written_in() {
        let dir = RuntimeDir::create().unwrap();
        let mut writer = Writer::create(dir.path()).unwrap();
        for piece in [&b"a\nb"[..], b"b", b"b\nc\n", b"d"] {
            writer.stdout(piece).unwrap();
        }
        let last = |lines| {
            let pieces = tail(&mut Reader::open(dir.path()), lines).unwrap();
            let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.bytes).collect();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(last(0), "");
        assert_eq!(last(1), "d");
        assert_eq!(last(2), "c\nd");
        assert_eq!(last(3), "bbb\nc\nd");
        assert_eq!(last(9), "a\nbbb\nc\nd");
    }

    #[test]
    fn times_stand_in_front_of_lines_and_nowhere_else() {
        let progress = Progress::default();
        let mut printer = Printer {
            to: Standard(&progress),
            has_times: true,
            begins_line: [true; 2],
        };
        let mut line = |stream, bytes: &[u8]| {
            let entry = Entry {
                unix_ms: 1500,
                stream,
                bytes: bytes.to_vec(),
            };
            String::from_utf8(printer.with_times(&entry)).unwrap()
        };
        const TIME: &str = "1970-01-01T00:00:01.500Z ";
        assert_eq!(
            line(Stream::Stdout, b"one\ntw"),
            format!("{TIME}one\n{TIME}tw")
        );
        assert_eq!(line(Stream::Stderr, b"x\n"), format!("{TIME}x\n"));
        assert_eq!(line(Stream::Stdout, b"o\n"), "o\n");
    }
}
