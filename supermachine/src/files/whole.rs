//! One file, of any length, as bytes or as a stream.

use super::{Words, absolute, check, cut_off, tool};
use crate::deadline::Deadline;
use crate::exec::{Opens, Sinks};
use crate::limits::GUEST_ANSWER_TIMEOUT;
use crate::{Error, Vm};
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

impl Vm {
    /// As [`Vm::write_file`], with another limit or mode.
    ///
    /// # Errors
    /// As [`Vm::write_file_from`].
    pub fn write_file_with(
        &self,
        path: impl AsRef<[u8]>,
        bytes: &[u8],
        options: &FileOptions,
    ) -> Result<(), Error> {
        write_from(self, path.as_ref(), &mut &bytes[..], options).map(drop)
    }

    /// As [`Vm::read_file`], with another limit.
    ///
    /// # Errors
    /// As [`Vm::read_file_to`].
    pub fn read_file_with(
        &self,
        path: impl AsRef<[u8]>,
        options: &FileOptions,
    ) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        read_to(self, path.as_ref(), &mut bytes, options)?;
        Ok(bytes)
    }

    /// Writes a file of the guest with what a stream has until its end, and gives its
    /// length. The file appears when it is complete, in place of what has its name,
    /// or not at all; directories that are missing are made.
    ///
    /// # Errors
    /// [`Error::CopyTooLarge`] for more than the limit, [`Error::System`] if the stream
    /// cannot be read, [`Error::Exec`] when the guest cannot write the file.
    pub fn write_file_from(
        &self,
        path: impl AsRef<[u8]>,
        mut source: impl Read,
        options: &FileOptions,
    ) -> Result<u64, Error> {
        write_from(self, path.as_ref(), &mut source, options)
    }

    /// Reads a file of the guest into a stream, and gives its length.
    ///
    /// # Errors
    /// [`Error::CopyTooLarge`] for more than the limit: what comes before it has been
    /// written by then. [`Error::System`] if it cannot be written,
    /// [`Error::Exec`] when the guest cannot read the file.
    pub fn read_file_to(
        &self,
        path: impl AsRef<[u8]>,
        mut sink: impl Write,
        options: &FileOptions,
    ) -> Result<u64, Error> {
        read_to(self, path.as_ref(), &mut sink, options)
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

fn write_from(
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

fn read_to(
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
