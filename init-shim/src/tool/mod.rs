//! The agent's program as a tool for the guest's files and mounts, run as a command:
//! as the user that is asked for, with the time limit and the end of one.
//!
//! It leaves with 0, or with 1 and a line `ERRNO TEXT` on standard error. Trees are
//! streams of [`exec_proto::tree`].

mod mounts;
mod pack;
mod trust;
mod unpack;
mod volumes;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, chroot};
use std::path::{Path, PathBuf};

use exec_proto::tree::Node;

/// Output is written in pieces of this size.
const WRITE_BYTES: usize = 64 * 1024;

/// Why the tool failed.
#[derive(Debug)]
struct Failure {
    errno: i32,
    text: String,
}

impl Failure {
    fn new(path: &Path, error: &io::Error) -> Self {
        Self {
            errno: error.raw_os_error().unwrap_or(libc::EIO),
            text: format!("{}: {error}", path.display()),
        }
    }

    fn usage() -> Self {
        Self {
            errno: libc::EINVAL,
            text: "these arguments mean nothing to this agent".to_owned(),
        }
    }
}

/// Names the file a call was about.
fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::new(path, &error))
}

/// Does what the arguments behind the tool's name say; the exit status.
pub fn run(arguments: &[OsString]) -> i32 {
    let words: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    match act(&words) {
        Ok(()) => 0,
        Err(failure) => {
            // A reader that closed it needs no text.
            let _ = writeln!(io::stderr(), "{} {}", failure.errno, failure.text);
            1
        }
    }
}

fn act(words: &[&OsStr]) -> Result<(), Failure> {
    let Some((verb, rest)) = words.split_first() else {
        return Err(Failure::usage());
    };
    match (verb.as_bytes(), rest) {
        (b"stat", [path]) => describe(Path::new(path), fs::symlink_metadata(path)),
        (b"stat-followed", [path]) => describe(Path::new(path), fs::metadata(path)),
        (b"list", [path]) => list(Path::new(path)),
        (b"mkdir", [mode, path]) => make_directory(Path::new(path), mode, false),
        (b"mkdir-all", [mode, path]) => make_directory(Path::new(path), mode, true),
        (b"remove", [path]) => remove(Path::new(path), false),
        (b"remove-all", [path]) => remove(Path::new(path), true),
        (b"rename", [from, to]) => at(Path::new(from), fs::rename(from, to)),
        (b"pack", [path]) => pack::pack(Path::new(path)),
        (b"pack-named", [path]) => pack::pack_named(Path::new(path)),
        (b"tree", [path]) => pack::tree(Path::new(path)),
        (b"unpack", [path]) => unpack::unpack(Path::new(path)),
        (b"tmpfs", [path, flags, options]) => mounts::tmpfs(Path::new(path), flags, options),
        (b"volume", [number, path]) => volumes::mount(number, Path::new(path)),
        (b"grow-volume", [number, path, bytes]) => {
            volumes::grow_mounted(number, Path::new(path), bytes)
        }
        (b"freeze-volume", [number, path]) => volumes::freeze(number, Path::new(path)),
        (b"trust", [certificate]) => trust::trust(trust::certificate(certificate)?),
        (b"read-only-root", []) => mounts::make_root_read_only(),
        _ => Err(Failure::usage()),
    }
}

fn describe(path: &Path, metadata: io::Result<fs::Metadata>) -> Result<(), Failure> {
    let metadata = at(path, metadata)?;
    let mut out = Out::default();
    out.node(path, &pack::node(path, b"", &metadata)?)?;
    out.end(path)
}

fn list(path: &Path) -> Result<(), Failure> {
    let mut out = Out::default();
    for entry in at(path, fs::read_dir(path))? {
        let entry = at(path, entry)?;
        // What has gone meanwhile is not there.
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => at(&entry.path(), metadata)?,
        };
        let node = pack::node(&entry.path(), entry.file_name().as_bytes(), &metadata)?;
        out.node(&entry.path(), &node)?;
    }
    out.end(path)
}

fn make_directory(path: &Path, mode: &OsStr, with_parents: bool) -> Result<(), Failure> {
    let mode = mode.to_str().and_then(|mode| mode.parse().ok());
    let mode: u32 = mode.ok_or_else(Failure::usage)?;
    if with_parents && let Some(parent) = path.parent() {
        at(parent, fs::create_dir_all(parent))?;
    }
    let made = fs::DirBuilder::new().mode(mode).create(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // As `mkdir -p` has it.
            if with_parents && path.is_dir() {
                return Ok(());
            }
            at(path, Err(error))
        }
        made => at(path, made),
    }
}

fn remove(path: &Path, with_content: bool) -> Result<(), Failure> {
    let metadata = at(path, fs::symlink_metadata(path))?;
    let removed = match (metadata.is_dir(), with_content) {
        (false, _) => fs::remove_file(path),
        (true, false) => fs::remove_dir(path),
        (true, true) => fs::remove_dir_all(path),
    };
    at(path, removed)
}

/// Makes a directory the root, if this process may: then no link, whoever puts it
/// where meanwhile, leads a privileged process out of it. Returns its path from here
/// on. Who may not has no privilege that could be led astray.
fn confine(directory: &Path) -> Result<PathBuf, Failure> {
    at(directory, std::env::set_current_dir(directory))?;
    Ok(match chroot(".") {
        Ok(()) => PathBuf::from("/"),
        Err(_) => PathBuf::from("."),
    })
}

/// The parent of a path and its name there; `None` for the root, `.` and the like.
fn parted(path: &Path) -> (PathBuf, Option<OsString>) {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => (parent.to_owned(), Some(name.to_owned())),
        _ => (path.to_owned(), None),
    }
}

/// The stream on standard output.
#[derive(Default)]
struct Out {
    pending: Vec<u8>,
}

impl Out {
    fn node(&mut self, path: &Path, node: &Node) -> Result<(), Failure> {
        let encoded = node.encode(&mut self.pending);
        at(path, encoded.map_err(io::Error::other))?;
        self.write_from(path, WRITE_BYTES)
    }

    fn data(&mut self, path: &Path, data: &[u8]) -> Result<(), Failure> {
        exec_proto::tree::encode_data(&mut self.pending, data);
        self.write_from(path, WRITE_BYTES)
    }

    /// The end of a file's content.
    fn file_end(&mut self) {
        exec_proto::tree::encode_end(&mut self.pending);
    }

    /// The end of the stream.
    fn end(mut self, path: &Path) -> Result<(), Failure> {
        exec_proto::tree::encode_end(&mut self.pending);
        self.write_from(path, 0)
    }

    /// Writes if there is as much as that.
    fn write_from(&mut self, path: &Path, bytes: usize) -> Result<(), Failure> {
        if self.pending.len() >= bytes {
            at(path, io::stdout().write_all(&self.pending))?;
            at(path, io::stdout().flush())?;
            self.pending.clear();
        }
        Ok(())
    }
}
