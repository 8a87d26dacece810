//! The program: it listens, and starts itself for each client.
//!
//! A client hands over memory that it may cut short, which ends the process that works
//! on it. So that is the client's own, and the next one finds everything new.

use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use devices::virtio::fs::{FsConfig, FsError};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::confine::{self, ConfineError};
use crate::options::{self, CONNECTED, Options, OptionsError};
use crate::{Front, ServeError, serve};

/// Why the program ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The words on the command line.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// What is to be shared.
    #[error("cannot open {}: share a directory or a file that this user may open", path.display())]
    Shared {
        /// As it was said.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no directory and no file, or cannot be shared so.
    #[error(transparent)]
    Device(#[from] FsError),
    /// Where to listen.
    #[error("cannot listen on {}: choose a path in a directory of this user's", path.display())]
    Socket {
        /// As it was said.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Somebody listens there.
    #[error("somebody listens on {} already: end that, or choose another path", .0.display())]
    InUse(PathBuf),
    /// The process for a client.
    #[error("cannot start a process for a client")]
    Process(#[source] std::io::Error),
    /// A process could not be confined.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// A client, in its own process.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Does what the words say, until it is ended; with `--once` until its client has gone.
///
/// # Errors
/// [`DaemonError`], whose text is for the user.
pub fn run(words: Vec<OsString>) -> Result<(), DaemonError> {
    let options = options::parse(words.iter().cloned())?;
    if options.is_connected {
        return serve_connected(options);
    }
    // What cannot be shared is said now, and not to the first client.
    drop(Front::new(open(&options)?, options.config.clone())?);
    let listener = listen(&options.socket)?;
    let program = std::env::current_exe().map_err(DaemonError::Process)?;
    loop {
        let client = accept(&listener, &options)?;
        let mut process = Command::new(&program)
            .args(&words)
            .arg(CONNECTED)
            .stdin(Stdio::from(OwnedFd::from(client)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(DaemonError::Process)?;
        let ended = process.wait().map_err(DaemonError::Process)?;
        if !ended.success() {
            eprintln!("supermachine-fsd: the process of a client ended with {ended}");
        }
        if options.once {
            // It was made here; somebody may have removed it.
            let _ = std::fs::remove_file(&options.socket);
            return Ok(());
        }
    }
}

fn accept(listener: &UnixListener, options: &Options) -> Result<UnixStream, DaemonError> {
    loop {
        match listener.accept() {
            Ok((client, _)) => return Ok(client),
            // It has gone again.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(source) => return Err(unheard(&options.socket, source)),
        }
    }
}

fn unheard(path: &Path, source: std::io::Error) -> DaemonError {
    let path = path.to_owned();
    DaemonError::Socket { path, source }
}

/// Opens what is shared; a file for as much as the guest may do with it.
fn open(options: &Options) -> Result<OwnedFd, DaemonError> {
    let path = &options.shared;
    let failed = |source| DaemonError::Shared {
        path: path.clone(),
        source,
    };
    let is_directory = std::fs::metadata(path).map_err(failed)?.is_dir();
    let access = match (is_directory, options.config.read_only) {
        (true, _) | (false, true) => OFlags::RDONLY,
        (false, false) => OFlags::RDWR,
    };
    // Nobody is waited for, should it be a pipe.
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    opened.map_err(|error| failed(error.into()))
}

/// Listens for this user alone, also where a process listened that was killed.
fn listen(path: &Path) -> Result<UnixListener, DaemonError> {
    let bind = || {
        let before = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(before);
        bound
    };
    let in_use = match bind() {
        Err(error) if error.kind() == ErrorKind::AddrInUse => error,
        bound => return bound.map_err(|error| unheard(path, error)),
    };
    match UnixStream::connect(path) {
        Ok(_) => Err(DaemonError::InUse(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused && is_socket(path) => {
            std::fs::remove_file(path).map_err(|error| unheard(path, error))?;
            bind().map_err(|error| unheard(path, error))
        }
        Err(_) => Err(unheard(path, in_use)),
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// Serves the client that is standard input.
fn serve_connected(options: Options) -> Result<(), DaemonError> {
    // Whoever ends the program ends this one, too.
    let with_parent = rustix::process::Signal::KILL;
    rustix::process::set_parent_process_death_signal(Some(with_parent))
        .map_err(|error| DaemonError::Process(error.into()))?;
    let standard = std::io::stdin();
    let client = standard.as_fd().try_clone_to_owned();
    let client = UnixStream::from(client.map_err(DaemonError::Process)?);
    // So that its end is heard of when the client goes.
    let nothing = File::open("/dev/null").map_err(DaemonError::Process)?;
    rustix::stdio::dup2_stdin(&nothing).map_err(|error| DaemonError::Process(error.into()))?;
    let shared = open(&options)?;
    confine::confine(&shared, options.config.symlinks)?;
    let config = FsConfig {
        open_files: options.config.open_files.min(allow_open_files()),
        ..options.config
    };
    Ok(serve(client, Front::new(shared, config)?)?)
}

/// Descriptors that a guest leaves for all else that a client's process does: the client's
/// memory and rings, and each request while it is answered.
const OTHER_DESCRIPTORS: u64 = 1024;

/// Raises the limit on open files as far as this user may, and gives how many of them a
/// guest may have.
fn allow_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Otherwise guests are told sooner that there are too many open.
    let _ = setrlimit(Resource::Nofile, raised);
    match getrlimit(Resource::Nofile).current {
        Some(most) => open_files(most),
        None => usize::MAX,
    }
}

/// How many a guest may have where a process may have `most`.
fn open_files(most: u64) -> usize {
    let others = OTHER_DESCRIPTORS.min(most / 2);
    usize::try_from(most - others).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_leave_descriptors_whatever_the_limit_is() {
        let left = [(0, 0), (1, 1), (64, 32), (2048, 1024), (20_000, 18_976)];
        for (most, guests) in left {
            assert_eq!(open_files(most), guests, "{most}");
        }
        assert!(open_files(u64::MAX) > 1 << 20);
    }
}
