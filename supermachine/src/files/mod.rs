//! Files and directories of a guest.
//!
//! The agent's own program does the work there, as root, so that an image needs no
//! tools for it. Whatever it sends is a guest's word: it is checked, counted, and
//! written nowhere but below the directory that was named.

mod extract;
mod gather;
mod methods;
pub(crate) mod mounts;
mod named;
mod tar;
mod whole;

use crate::Error;
use crate::exec::{Command, ExecStatus, Opens, Sinks};
use crate::limits::GUEST_ANSWER_TIMEOUT;
use exec_proto::ErrorKind;
use exec_proto::tree::{Node, NodeKind, TOOL_NAME, TreeReader};
pub(crate) use extract::Extract;
pub(crate) use named::{copy_named, named_tar, tree_nodes};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
pub use whole::FileOptions;

/// Most bytes of a list that are taken: some hundred thousand names.
const MAX_LIST_BYTES: usize = 64 << 20;
/// Most bytes of what the tool says about a failure.
const MAX_WORDS_BYTES: usize = 16 << 10;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl From<&NodeKind> for FileKind {
    fn from(kind: &NodeKind) -> Self {
        match kind {
            NodeKind::Directory => Self::Directory,
            NodeKind::Symlink(_) => Self::Symlink,
            NodeKind::CharDevice { .. } => Self::CharDevice,
            NodeKind::BlockDevice { .. } => Self::BlockDevice,
            NodeKind::Fifo => Self::Fifo,
            NodeKind::Socket => Self::Socket,
            _ => Self::File,
        }
    }
}

/// What a guest says about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// Its name in the directory that was listed; empty if it was asked for by its
    /// path.
    pub name: OsString,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, setuid, setgid and sticky included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub bytes: u64,
    /// Names it has.
    pub links: u64,
    /// When its content was changed last.
    pub modified: SystemTime,
    /// Where it leads, if it is a symbolic link.
    pub target: Option<PathBuf>,
}

impl From<Node> for FileInfo {
    fn from(node: Node) -> Self {
        let epoch = SystemTime::UNIX_EPOCH;
        let whole = Duration::from_secs(node.mtime_s.unsigned_abs());
        let modified = match node.mtime_s {
            0.. => epoch.checked_add(whole),
            _ => epoch.checked_sub(whole),
        };
        let nanoseconds = Duration::from_nanos(node.mtime_ns.into());
        let kind = FileKind::from(&node.kind);
        let target = match node.kind {
            NodeKind::Symlink(path) => Some(PathBuf::from(OsString::from_vec(path))),
            _ => None,
        };
        Self {
            name: OsString::from_vec(node.path),
            kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            bytes: node.size,
            links: node.links,
            modified: modified
                .and_then(|time| time.checked_add(nanoseconds))
                .unwrap_or(epoch),
            target,
        }
    }
}

/// Bounds on a copy of a tree, and what of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyOptions {
    /// Most bytes of content; 64 GiB by default.
    pub max_bytes: u64,
    /// Most files and directories; four million by default.
    pub max_entries: u64,
    /// Owners stay what they are. Without this, what comes into a guest is root's,
    /// and what comes out belongs to whoever runs this process. Out of a guest it
    /// needs a process that may give files away.
    pub keep_owners: bool,
    /// Longest time the copy may take in the guest; none by default.
    pub timeout: Option<Duration>,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 30,
            max_entries: 4_000_000,
            keep_owners: false,
            timeout: None,
        }
    }
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Files and directories.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Sockets and devices, which are left out; out of a guest named pipes too.
    pub skipped: u64,
}

impl Copied {
    /// Counts one more file or directory.
    fn entry(&mut self, options: &CopyOptions) -> Result<(), Error> {
        self.entries += 1;
        match self.entries > options.max_entries {
            true => Err(Error::CopyTooLarge {
                what: "entries",
                limit: options.max_entries,
            }),
            false => Ok(()),
        }
    }

    /// Counts content.
    fn content(&mut self, bytes: usize, options: &CopyOptions) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        match self.bytes > options.max_bytes {
            true => Err(Error::CopyTooLarge {
                what: "bytes",
                limit: options.max_bytes,
            }),
            false => Ok(()),
        }
    }
}

fn mkdir_all(on: &dyn Opens, path: &[u8]) -> Result<(), Error> {
    ask(on, &[b"mkdir-all", DIRECTORY_MODE, absolute(path)?]).map(drop)
}

/// Of a directory that is made, in decimal digits.
const DIRECTORY_MODE: &[u8] = b"493";

/// A path as the guest gets it: one that does not depend on a directory.
fn absolute(path: &[u8]) -> Result<&[u8], Error> {
    match path.first() {
        Some(b'/') => Ok(path),
        _ => Err(Error::Unsuitable {
            what: "a path in the guest",
            needs: "a / at its start",
        }),
    }
}

/// A run of the agent's tool for files.
fn tool(words: &[&[u8]]) -> Command {
    let argv = [TOOL_NAME.as_bytes()]
        .into_iter()
        .chain(words.iter().copied());
    Command::agent_tool(argv)
}

/// Runs the tool in the guest, and returns what it wrote.
fn ask(on: &dyn Opens, words: &[&[u8]]) -> Result<Vec<u8>, Error> {
    let command = tool(words)
        .timeout(GUEST_ANSWER_TIMEOUT)
        .max_output_bytes(MAX_LIST_BYTES);
    let outcome = command.output_of(on)?;
    check(&outcome.status, &outcome.stderr)?;
    Ok(outcome.stdout)
}

/// Whether the tool did what it was asked to.
fn check(status: &ExecStatus, words: &[u8]) -> Result<(), Error> {
    if status.timed_out {
        return Err(Error::Timeout {
            what: "work on the guest's files",
            after: status.duration,
        });
    }
    if status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(words);
    let said = words.trim_end().split_once(' ');
    let errno = said.and_then(|(errno, _)| errno.parse::<i32>().ok());
    let (kind, message) = match (errno, said) {
        // ENOENT and ENOTDIR, the same on every architecture of Linux.
        (Some(2 | 20), Some((_, text))) => (ErrorKind::NotFound, text.to_owned()),
        (Some(_), Some((_, text))) => (ErrorKind::Io, text.to_owned()),
        _ => (
            ErrorKind::Internal,
            format!("the agent's file tool failed: {}", words.trim_end()),
        ),
    };
    Err(Error::Exec { kind, message })
}

/// What a stream of nodes without content says.
fn infos(stream: &[u8]) -> Result<Vec<FileInfo>, Error> {
    Ok(nodes(stream)?.into_iter().map(FileInfo::from).collect())
}

/// The nodes of a stream without content.
fn nodes(stream: &[u8]) -> Result<Vec<Node>, Error> {
    let mut reader = TreeReader::new();
    let mut found = Vec::new();
    // A file's node is followed by nothing in a list, so that content would begin.
    reader.feed(stream);
    loop {
        match reader.next_node()? {
            Some(node) => found.push(node),
            None if reader.is_over() => {
                // Nothing may follow.
                reader.next_event()?;
                return Ok(found);
            }
            None => return Err(cut_off()),
        }
    }
}

fn cut_off() -> Error {
    exec_proto::ProtoError::BadTree {
        what: "it ends too soon",
    }
    .into()
}

pub(crate) fn stat(on: &dyn Opens, path: &[u8], follow: bool) -> Result<FileInfo, Error> {
    let verb: &[u8] = if follow { b"stat-followed" } else { b"stat" };
    let mut found = infos(&ask(on, &[verb, absolute(path)?])?)?;
    match (found.pop(), found.is_empty()) {
        (Some(info), true) => Ok(info),
        _ => Err(cut_off()),
    }
}

/// What the tool says, and nothing else.
struct Words(Vec<u8>);

impl Words {
    fn take(&mut self, bytes: &[u8]) {
        let room = MAX_WORDS_BYTES.saturating_sub(self.0.len());
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl Sinks for Words {
    fn stdout(&mut self, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.take(bytes);
        Ok(())
    }
}

/// A tree that arrives.
struct Arriving {
    reader: TreeReader,
    extract: Extract,
    words: Words,
}

impl Sinks for Arriving {
    fn stdout(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.reader.feed(bytes);
        while let Some(event) = self.reader.next_event()? {
            self.extract.take(event)?;
        }
        Ok(())
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.words.take(bytes);
        Ok(())
    }
}

pub(crate) fn copy_out(
    on: &dyn Opens,
    guest: &[u8],
    host: &Path,
    options: &CopyOptions,
) -> Result<Copied, Error> {
    let command = limited(tool(&[b"pack", absolute(guest)?]), options);
    let mut arriving = Arriving {
        reader: TreeReader::new(),
        extract: Extract::new(host, options.clone())?,
        words: Words(Vec::new()),
    };
    let status = command.start(on, false)?.read_to_end(&mut arriving)?;
    check(&status, &arriving.words.0)?;
    if !arriving.reader.is_over() {
        return Err(cut_off());
    }
    arriving.extract.finish()
}

pub(crate) fn copy_in(
    on: &dyn Opens,
    host: &Path,
    guest: &[u8],
    options: &CopyOptions,
) -> Result<Copied, Error> {
    feed(on, guest, options, |write| {
        gather::gather(host, options, write)
    })
}

/// Makes a tree of the guest of the stream that `gather` writes.
fn feed(
    on: &dyn Opens,
    guest: &[u8],
    options: &CopyOptions,
    gather: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<bool, Error>) -> Result<Copied, Error> + Send,
) -> Result<Copied, Error> {
    let command = limited(tool(&[b"unpack", absolute(guest)?]), options);
    let mut words = Words(Vec::new());
    let (status, gathered) = converse(on, &command, &mut words, gather)?;
    // What the host could not read made the guest's end, not the other way round.
    match (status, gathered) {
        (
            _,
            Err(
                error @ (Error::Host { .. }
                | Error::System { .. }
                | Error::Unsuitable { .. }
                | Error::CopyTooLarge { .. }),
            ),
        ) => Err(error),
        (Err(error), _) => Err(error),
        (Ok(status), gathered) => {
            check(&status, &words.0)?;
            gathered
        }
    }
}

/// How a command ended, and what came of writing its input.
type Conversation<T> = (Result<ExecStatus, Error>, Result<T, Error>);

/// Starts a command, and reads what it writes while `write` writes its input.
fn converse<T: Send>(
    on: &dyn Opens,
    command: &Command,
    sinks: &mut impl Sinks,
    write: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<bool, Error>) -> Result<T, Error> + Send,
) -> Result<Conversation<T>, Error> {
    let channel = command.start(on, true)?;
    std::thread::scope(|scope| {
        let feed = || {
            let written = write(&mut |bytes| channel.write_stdin(bytes));
            // Of a tree that is not whole, the end tells the guest.
            let closed = channel.close_stdin();
            written.and_then(|written| closed.map(|()| written))
        };
        let feeder = std::thread::Builder::new()
            .name("copy-in".into())
            .spawn_scoped(scope, feed)
            .map_err(Error::system("start a thread"))?;
        let status = channel.read_to_end(sinks);
        let written = feeder.join().unwrap_or(Err(Error::Cancelled));
        Ok((status, written))
    })
}

fn limited(command: Command, options: &CopyOptions) -> Command {
    match options.timeout {
        Some(timeout) => command.timeout(timeout),
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: i32) -> ExecStatus {
        ExecStatus {
            code: Some(code),
            signal: None,
            duration: Duration::ZERO,
            timed_out: false,
            oom: false,
            peak_rss_kib: 0,
            step: 0,
            executed: true,
        }
    }

    #[test]
    fn what_the_tool_says_becomes_an_error_of_a_kind() {
        let kind = |words: &str| match check(&status(1), words.as_bytes()) {
            Err(Error::Exec { kind, message }) => (kind, message),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            kind("2 /x: none\n"),
            (ErrorKind::NotFound, "/x: none".into())
        );
        assert_eq!(kind("13 /x: denied").0, ErrorKind::Io);
        for odd in ["", "words", "x y", "\u{1b}[2J"] {
            assert_eq!(kind(odd).0, ErrorKind::Internal);
        }
        assert!(check(&status(0), b"2 x").is_ok());
    }

    #[test]
    fn lists_that_are_cut_off_or_go_on_are_refused() {
        let node = Node {
            path: b"name".to_vec(),
            kind: NodeKind::File,
            mode: 0o644,
            uid: 1,
            gid: 2,
            size: 3,
            links: 1,
            mtime_s: -1,
            mtime_ns: 500_000_000,
            xattrs: Vec::new(),
        };
        let mut stream = Vec::new();
        node.encode(&mut stream).unwrap();
        assert!(nodes(&stream).is_err());
        exec_proto::tree::encode_end(&mut stream);
        let found = infos(&stream).unwrap();
        assert_eq!((found[0].name.to_str(), found[0].bytes), (Some("name"), 3));
        let half = Duration::from_millis(500);
        assert_eq!(found[0].modified, SystemTime::UNIX_EPOCH - half);
        stream.push(0);
        assert!(nodes(&stream).is_err());
    }

    #[test]
    fn paths_in_a_guest_are_absolute() {
        assert!(absolute(b"/a").is_ok());
        assert!(absolute(b"a").is_err() && absolute(b"").is_err());
    }
}
