//! What a detached machine's command wrote: two files of bounded size, of which
//! the older is thrown away when the newer is full.
//!
//! A file is a row of entries: a line `TIME STREAM LENGTH` (milliseconds since
//! 1970, `o` or `e`, bytes) and so many bytes as they were written. What a crash
//! leaves unfinished at the end is not read.

use crate::Error;
use crate::exec::Sinks;
use crate::link::runtime_dir::open_regular;
use crate::running::unix_ms;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const FILE: &str = "log";
const OLDER: &str = "log.1";
/// Most bytes of one file; there are two.
const MAX_FILE_BYTES: u64 = 8 << 20;
/// What stands in a log for what could not be written.
const GAP: &[u8] = b"supermachine: here the log has a gap: it could not be written\n";
/// Longest first line of an entry: a time, a stream, a length.
const MAX_HEADER_BYTES: u64 = 64;
/// Longest content of an entry; the agent's frames are no longer.
const MAX_ENTRY_BYTES: usize = 1 << 20;

/// Which of a command's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What was written at once.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub unix_ms: u64,
    pub stream: Stream,
    pub bytes: Vec<u8>,
}

/// Writes the log of a machine.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    file: File,
    written: u64,
    max_file_bytes: u64,
    /// Something could not be written, which the log does not say yet.
    has_gap: bool,
}

impl Writer {
    pub fn create(dir: &Path) -> Result<Self, Error> {
        Self::with_limit(dir, MAX_FILE_BYTES)
    }

    fn with_limit(dir: &Path, max_file_bytes: u64) -> Result<Self, Error> {
        Ok(Self {
            dir: dir.to_owned(),
            file: create(dir).map_err(Error::host("cannot write the log", dir.join(FILE)))?,
            written: 0,
            max_file_bytes,
            has_gap: false,
        })
    }

    /// Writes what can be written. A full disk costs a part of the log, and neither
    /// the command nor the machine.
    fn keep(&mut self, stream: Stream, bytes: &[u8]) {
        if self.has_gap && self.append(Stream::Stderr, GAP).is_err() {
            return;
        }
        self.has_gap = self.append(stream, bytes).is_err();
    }

    fn append(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Error> {
        for bytes in bytes.chunks(MAX_ENTRY_BYTES) {
            let entry = encode(stream, bytes);
            let size = entry.len() as u64;
            let failed = || Error::host("cannot write the log", self.dir.join(FILE));
            if self.written > 0 && self.written.saturating_add(size) > self.max_file_bytes {
                fs::rename(self.dir.join(FILE), self.dir.join(OLDER)).map_err(failed())?;
                self.file = create(&self.dir).map_err(failed())?;
                self.written = 0;
            }
            if let Err(error) = self.file.write_all(&entry) {
                // Half an entry would be taken for damage.
                let _ = self.file.set_len(self.written);
                return Err(failed()(error));
            }
            self.written = self.written.saturating_add(size);
        }
        Ok(())
    }
}

fn create(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create_new(true).mode(0o600);
    options.open(dir.join(FILE))
}

fn encode(stream: Stream, bytes: &[u8]) -> Vec<u8> {
    let letter = match stream {
        Stream::Stdout => 'o',
        Stream::Stderr => 'e',
    };
    let mut entry = format!("{} {letter} {}\n", unix_ms(), bytes.len()).into_bytes();
    entry.extend_from_slice(bytes);
    entry
}

impl Sinks for Writer {
    fn stdout(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.keep(Stream::Stdout, bytes);
        Ok(())
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.keep(Stream::Stderr, bytes);
        Ok(())
    }
}

/// Reads the log of a machine from its start, also while it is written.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    file: Option<BufReader<File>>,
}

impl Reader {
    pub fn open(dir: &Path) -> Self {
        let open = |name: &str| open_regular(&dir.join(name)).ok().map(BufReader::new);
        Self {
            dir: dir.to_owned(),
            // What is thrown away between the two is just not read.
            file: open(OLDER).or_else(|| open(FILE)),
        }
    }

    /// The next entry; `None` if there is none yet.
    pub fn next(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            let failed = Error::host("cannot read the log", self.dir.join(FILE));
            let Some(file) = &mut self.file else {
                match open_regular(&self.dir.join(FILE)) {
                    Ok(file) => self.file = Some(BufReader::new(file)),
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(failed(error)),
                }
                continue;
            };
            // Asked before: what is no longer written to is then read to its end.
            let is_older = !is_current(file.get_ref(), &self.dir);
            match decode(file).map_err(failed)? {
                Some(entry) => return Ok(Some(entry)),
                None if is_older => self.file = None,
                None => return Ok(None),
            }
        }
    }
}

/// Whether a file is the one that is written to.
fn is_current(file: &File, dir: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(dir.join(FILE))) {
        (Ok(file), Ok(current)) => (file.dev(), file.ino()) == (current.dev(), current.ino()),
        // Nothing follows it.
        _ => true,
    }
}

/// The entry at the file's position, which moves only past a whole one.
fn decode(file: &mut BufReader<File>) -> io::Result<Option<Entry>> {
    let start = file.stream_position()?;
    match decode_whole(file) {
        Ok(Some(entry)) => Ok(Some(entry)),
        Ok(None) => {
            file.seek(io::SeekFrom::Start(start))?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn decode_whole(file: &mut BufReader<File>) -> io::Result<Option<Entry>> {
    let mut header = Vec::new();
    (&mut *file)
        .take(MAX_HEADER_BYTES)
        .read_until(b'\n', &mut header)?;
    if header.last() != Some(&b'\n') {
        return match header.len() as u64 {
            MAX_HEADER_BYTES => Err(damaged()),
            _ => Ok(None),
        };
    }
    let (unix_ms, stream, length) = parse_header(&header).ok_or_else(damaged)?;
    let mut bytes = vec![0; length];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(Entry {
            unix_ms,
            stream,
            bytes,
        })),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn damaged() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "an entry has no valid header")
}

fn parse_header(line: &[u8]) -> Option<(u64, Stream, usize)> {
    let mut words = std::str::from_utf8(line).ok()?.trim_end().split(' ');
    let unix_ms = words.next()?.parse().ok()?;
    let stream = match words.next()? {
        "o" => Stream::Stdout,
        "e" => Stream::Stderr,
        _ => return None,
    };
    let length = words.next()?.parse().ok()?;
    (words.next().is_none() && length <= MAX_ENTRY_BYTES).then_some((unix_ms, stream, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::runtime_dir::RuntimeDir;

    fn rest(reader: &mut Reader) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            bytes.extend(entry.bytes);
        }
        bytes
    }

    #[test]
    fn streams_are_read_back_as_they_were_written() {
        let dir = RuntimeDir::create().unwrap();
        let mut writer = Writer::create(dir.path()).unwrap();
        writer.stdout(b"one\n").unwrap();
        writer.stderr(b"\xff 1 o 3\n\0").unwrap();
        let mut reader = Reader::open(dir.path());
        let (first, second) = (
            reader.next().unwrap().unwrap(),
            reader.next().unwrap().unwrap(),
        );
        assert_eq!(
            (first.stream, &first.bytes[..]),
            (Stream::Stdout, &b"one\n"[..])
        );
        assert_eq!(
            (second.stream, &second.bytes[..]),
            (Stream::Stderr, &b"\xff 1 o 3\n\0"[..])
        );
        assert!(first.unix_ms > 0 && first.unix_ms <= second.unix_ms);
        assert_eq!(reader.next().unwrap(), None);
        writer.stdout(b"later").unwrap();
        assert_eq!(rest(&mut reader), b"later");
    }

    #[test]
    fn a_full_log_loses_its_beginning_and_a_reader_nothing_it_keeps_up_with() {
        let dir = RuntimeDir::create().unwrap();
        let mut writer = Writer::with_limit(dir.path(), 1000).unwrap();
        let mut reader = Reader::open(dir.path());
        let (mut all, mut seen) = (Vec::new(), Vec::new());
        for number in 0..400 {
            let line = format!("line {number}\n").into_bytes();
            writer.stdout(&line).unwrap();
            all.extend(line);
            if number % 7 == 0 {
                seen.extend(rest(&mut reader));
            }
        }
        seen.extend(rest(&mut reader));
        assert_eq!(seen, all);
        let kept = rest(&mut Reader::open(dir.path()));
        assert!(all.ends_with(&kept) && kept.len() < 2000 && kept.len() > 200);
        let sizes = [FILE, OLDER].map(|name| fs::metadata(dir.path().join(name)).unwrap().len());
        assert!(sizes.iter().all(|size| *size <= 1000), "{sizes:?}");
    }

    #[test]
    fn what_a_crash_cut_off_is_not_read_and_what_is_no_log_is_an_error() {
        let dir = RuntimeDir::create().unwrap();
        let path = dir.path().join(FILE);
        for cut in ["5", "5 o 3", "5 o 3\n", "5 o 3\nab"] {
            fs::write(&path, format!("4 e 2\nhi{cut}")).unwrap();
            assert_eq!(rest(&mut Reader::open(dir.path())), b"hi", "{cut:?}");
        }
        let long = "9".repeat(100);
        for bad in [
            "\n",
            "x o 3\nabc",
            "5 q 3\nabc",
            "5 o -3\nabc",
            "5 o 9999999\n",
            &long,
        ] {
            fs::write(&path, bad).unwrap();
            assert!(Reader::open(dir.path()).next().is_err(), "{bad:?}");
        }
    }
}
