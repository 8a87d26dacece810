//! One file, of any length, as bytes or as a stream.

use super::{Words, absolute, check, cut_off, tool};
use crate::Error;
use crate::deadline::Deadline;
use crate::exec::{Opens, Sinks};
use crate::limits::{GREETING_TIMEOUT, GUEST_ANSWER_TIMEOUT};
use exec_proto::client::Event;
use exec_proto::tree::{NodeKind, TreeEvent, TreeReader};
use exec_proto::{ErrorKind, MAX_DATA_BYTES, MAX_FILE_BYTES, MAX_STAGED_BYTES, ProtoError};
use std::io::{self, Read, Write};
use std::time::Duration;

/// How fast a guest takes and gives files, at the least.
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;

/// Bounds on a file that is read or written, and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileOptions {
    /// Most bytes; 4 MiB by default. What is written has at most 256 MiB.
    pub max_bytes: u64,
    /// Permission bits of a file that is written; 0644 by default.
    pub mode: u32,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            max_bytes: MAX_FILE_BYTES as u64,
            mode: 0o644,
        }
    }
}

impl FileOptions {
    fn too_large(&self) -> Error {
        Error::CopyTooLarge {
            what: "bytes",
            limit: self.max_bytes,
        }
    }

    /// How long a file of the most bytes may take.
    fn patience(&self) -> Duration {
        let moving = Duration::from_secs(self.max_bytes / SLOWEST_BYTES_PER_SECOND);
        GUEST_ANSWER_TIMEOUT.saturating_add(moving)
    }
}

/// Fills as much of the buffer as there is.
fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match source.read(room) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

pub(super) fn write_small(on: &dyn Opens, path: &str, bytes: &[u8]) -> Result<(), Error> {
    let channel = on.open_session(Deadline::within(GREETING_TIMEOUT), &|session| {
        session.write_file(path.as_bytes(), 0o644, bytes)
    })?;
    channel.answer(|event| matches!(event, Event::FileWritten { .. }).then_some(()))
}

pub(super) fn read_small(on: &dyn Opens, path: &str) -> Result<Vec<u8>, Error> {
    let channel = on.open_session(Deadline::within(GREETING_TIMEOUT), &|session| {
        session.read_file(path.as_bytes())
    })?;
    channel.answer(|event| match event {
        Event::File(bytes) => Some(bytes),
        _ => None,
    })
}

pub(super) fn write_from(
    on: &dyn Opens,
    path: &[u8],
    source: &mut dyn Read,
    options: &FileOptions,
) -> Result<u64, Error> {
    let path = absolute(path)?;
    let limit = options.max_bytes.min(MAX_STAGED_BYTES as u64);
    let options = FileOptions {
        max_bytes: limit,
        ..options.clone()
    };
    let deadline = Deadline::within(options.patience());
    let channel = on.open_session(deadline, &|session| {
        session.begin_staging(path, options.mode)
    })?;
    let mut piece = vec![0; MAX_DATA_BYTES];
    let mut written = 0_u64;
    loop {
        // A file that is given up here is nowhere: its connection ends before it does.
        let count =
            fill(source, &mut piece).map_err(Error::system("read what is to be written"))?;
        written = written.saturating_add(count as u64);
        if written > limit {
            return Err(options.too_large());
        }
        if count == 0 {
            break;
        }
        channel.request(|session| session.stage_piece(&piece[..count]))?;
    }
    channel.request(|session| {
        session.end_staging()?;
        session.ping(written)
    })?;
    channel.answer_until(deadline, |event| {
        matches!(event, Event::Pong(_)).then_some(written)
    })
}

/// A file that arrives as a tree of one node.
struct Arriving<'a> {
    reader: TreeReader,
    sink: &'a mut dyn Write,
    options: &'a FileOptions,
    path: &'a [u8],
    has_node: bool,
    read: u64,
    words: Words,
}

impl Arriving<'_> {
    fn take(&mut self, event: TreeEvent) -> Result<(), Error> {
        match event {
            TreeEvent::Node(node) => {
                if std::mem::replace(&mut self.has_node, true) {
                    return Err(more_than_one());
                }
                match node.kind {
                    NodeKind::File => Ok(()),
                    _ => Err(Error::Exec {
                        kind: ErrorKind::NotRegularFile,
                        message: format!(
                            "{}: not a regular file",
                            String::from_utf8_lossy(self.path)
                        ),
                    }),
                }
            }
            TreeEvent::Data(data) => {
                self.read = self.read.saturating_add(data.len() as u64);
                if self.read > self.options.max_bytes {
                    return Err(self.options.too_large());
                }
                let written = self.sink.write_all(&data);
                written.map_err(Error::system("write what was read"))
            }
            _ => Ok(()),
        }
    }
}

fn more_than_one() -> Error {
    ProtoError::BadTree {
        what: "more than the one file that was asked for",
    }
    .into()
}

impl Sinks for Arriving<'_> {
    fn stdout(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.reader.feed(bytes);
        while let Some(event) = self.reader.next_event()? {
            self.take(event)?;
        }
        Ok(())
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.words.take(bytes);
        Ok(())
    }
}

pub(super) fn read_to(
    on: &dyn Opens,
    path: &[u8],
    sink: &mut dyn Write,
    options: &FileOptions,
) -> Result<u64, Error> {
    let path = absolute(path)?;
    let command = tool(&[b"pack", path]).timeout(options.patience());
    let mut arriving = Arriving {
        reader: TreeReader::new(),
        sink,
        options,
        path,
        has_node: false,
        read: 0,
        words: Words(Vec::new()),
    };
    let status = command.start(on, false)?.read_to_end(&mut arriving)?;
    check(&status, &arriving.words.0)?;
    match arriving.reader.is_over() && arriving.has_node {
        true => Ok(arriving.read),
        false => Err(cut_off()),
    }
}
