//! The directory with one machine's sockets.

use crate::Error;
use rustix::fs::{FlockOperation, Mode, OFlags, fcntl_lock};
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

const PREFIX: &str = "supermachine-";
/// Name of the file that a worker keeps locked in its directory.
const WORKER: &str = "worker";

/// The directories of this process, for an exit that drops nothing.
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn live() -> MutexGuard<'static, Vec<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A private directory for one machine's sockets, removed on drop.
///
/// Embedder and worker each hold a shared lock on it. A directory that nobody has
/// locked belonged to processes that were killed.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    /// Released when this is closed.
    _lock: File,
}

impl RuntimeDir {
    /// Makes one in `XDG_RUNTIME_DIR` or the temporary directory. Its path is
    /// short, because socket paths must be.
    pub fn create() -> Result<Self, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        let base = base();
        SWEEP.call_once(|| sweep(&base));
        let process = std::process::id();
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("{PREFIX}{process}-{count}"));
            let mut live = live();
            let made = fs::DirBuilder::new().mode(0o700).create(&path);
            match made.and_then(|()| hold(&path)) {
                Ok(Some(lock)) => {
                    live.push(path.clone());
                    return Ok(Self { path, _lock: lock });
                }
                // Another process swept it away before it was locked.
                Ok(None) => {}
                // A process of the same number left one behind.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(Error::host("cannot create a runtime directory", path)(
                        error,
                    ));
                }
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it now. Safe to call twice.
    pub fn remove(&self) {
        let _ = fs::remove_dir_all(&self.path);
        live().retain(|path| *path != self.path);
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Where runtime directories are: `XDG_RUNTIME_DIR`, or the temporary directory.
fn base() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.is_dir())
        .unwrap_or_else(std::env::temp_dir)
}

/// This user's runtime directories, of any process, in use or not.
pub fn all() -> Vec<PathBuf> {
    let entries = fs::read_dir(base()).into_iter().flatten().flatten();
    entries
        .filter(|entry| is_our_name(entry.file_name().as_encoded_bytes()))
        .map(|entry| entry.path())
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|found| is_private(&found)))
        .collect()
}

#[cfg(feature = "cli")]
/// This user's runtime directory of an id, in use or not.
pub fn of(id: &str) -> Option<PathBuf> {
    let name = format!("{PREFIX}{id}");
    let path = is_our_name(name.as_bytes()).then(|| base().join(name))?;
    fs::symlink_metadata(&path)
        .is_ok_and(|found| is_private(&found))
        .then_some(path)
}

/// What follows the prefix in the name of a runtime directory.
pub fn id(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)
}

/// Opens a file that others may have put there: a link is not followed, a pipe
/// does not block, and only regular files are opened.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

/// Opens a directory, and not what a link in its place leads to.
fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// What a worker holds on its directory as long as it lives.
#[derive(Debug)]
pub struct Occupied {
    /// Against the sweep.
    _dir: Option<File>,
    /// A lock of POSIX's kind, which belongs to the process and not to the
    /// descriptor: forked children do not inherit it, and the system tells
    /// which process has it. It ends when any descriptor of the file is
    /// closed, so this stays the only one.
    _own: File,
}

/// Makes this process the one worker of a directory.
pub fn occupy(path: &Path) -> io::Result<Occupied> {
    let dir = hold(path)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let own: File = rustix::fs::open(path.join(WORKER), flags, Mode::RUSR | Mode::WUSR)?.into();
    fcntl_lock(&own, FlockOperation::NonBlockingLockExclusive)?;
    Ok(Occupied {
        _dir: dir,
        _own: own,
    })
}

/// Tells whether a directory's worker lives, and which process it is, for
/// processes other than that worker.
#[derive(Debug)]
pub struct Occupant(File);

impl Occupant {
    /// Of a directory; an error if no worker ever was there.
    pub fn of(path: &Path) -> io::Result<Self> {
        open_regular(&path.join(WORKER)).map(Self)
    }

    /// Whether the worker lives, also if it has removed its directory.
    pub fn is_alive(&self) -> bool {
        matches!(self.lock(), Ok(Some(_)))
    }

    /// Its process, as the system knows it: no number that was written down
    /// and may mean another process by now. `None` if it has ended, or cannot
    /// be seen from here.
    pub fn pid(&self) -> Option<Pid> {
        let pid = self.lock().ok().flatten()?.pid?;
        // Locks that belong to no process are said to be those of -1.
        (pid.as_raw_nonzero().get() > 0).then_some(pid)
    }

    fn lock(&self) -> io::Result<Option<Flock>> {
        // The lock that ours would have to wait for.
        Ok(fcntl_getlk(&self.0, &Flock::from(FlockType::WriteLock))?)
    }
}

/// The file that processes lock while they look at the names of machines and
/// give one.
const NAMES: &str = "names";

/// Keeps all other processes of this user from giving a machine a name. The
/// lock's file is there only as long as somebody wants it.
#[derive(Debug)]
pub struct NamesLock {
    path: PathBuf,
    _file: File,
}

/// Waits for that lock.
pub fn lock_names() -> io::Result<NamesLock> {
    let user = rustix::process::geteuid().as_raw();
    // Not in the form of a machine's directory.
    let path = base().join(format!("{PREFIX}{NAMES}-{user}"));
    loop {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file: File = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?.into();
        let held = file.metadata()?;
        if held.uid() != user {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        file.lock()?;
        // Its last holder removed it: the lock of a removed file keeps nobody out.
        let is_current = fs::symlink_metadata(&path)
            .is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino()));
        if is_current {
            return Ok(NamesLock { path, _file: file });
        }
    }
}

impl Drop for NamesLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn is_private(metadata: &fs::Metadata) -> bool {
    let own = rustix::process::geteuid().as_raw();
    metadata.is_dir() && metadata.uid() == own && metadata.mode() & 0o077 == 0
}

#[cfg(feature = "cli")]
/// Removes the directories of all machines of this process, which must end
/// now: no other is made any more.
pub fn remove_all_for_exit() {
    let live = live();
    for path in live.iter() {
        let _ = fs::remove_dir_all(path);
    }
    std::mem::forget(live);
}

/// Locks a directory against the sweep, as long as the file is open. `None`
/// if the sweep was faster.
pub fn hold(path: &Path) -> io::Result<Option<File>> {
    let dir = match open_directory(path) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    dir.lock_shared()?;
    let held = dir.metadata()?;
    let same = fs::symlink_metadata(path)
        .is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino()));
    Ok(same.then_some(dir))
}

/// Removes what killed processes of this user left in `base`. Failures leave
/// things as they were.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        if is_our_name(entry.file_name().as_encoded_bytes()) {
            let _ = remove_if_abandoned(&entry.path());
        }
    }
}

/// `supermachine-PID-COUNT`.
fn is_our_name(name: &[u8]) -> bool {
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let Some(rest) = name.strip_prefix(PREFIX.as_bytes()) else {
        return false;
    };
    let mut parts = rest.split(|byte| *byte == b'-');
    matches!((parts.next(), parts.next(), parts.next()),
        (Some(process), Some(count), None) if digits(process) && digits(count))
}

/// Removes a directory of this user that nobody holds.
pub fn remove_if_abandoned(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if !is_private(&metadata) {
        return Ok(());
    }
    let dir = open_directory(path)?;
    match dir.try_lock() {
        Ok(()) => fs::remove_dir_all(path),
        // In use.
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_form_are_swept() {
        for name in ["supermachine-1-0", "supermachine-4194304-12"] {
            assert!(is_our_name(name.as_bytes()), "{name}");
        }
        for name in [
            "supermachine",
            "supermachine-",
            "supermachine-1",
            "supermachine-1-",
            "supermachine-1-x",
            "supermachine-1-0-0",
            "supermachine-cache-0",
        ] {
            assert!(!is_our_name(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn held_directories_survive_a_sweep_and_abandoned_ones_do_not() {
        let base = RuntimeDir::create().unwrap();
        let make = |name: &str| {
            let path = base.path().join(name);
            fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
            path
        };
        let (held, abandoned) = (make("supermachine-1-0"), make("supermachine-1-1"));
        fs::write(abandoned.join("log"), "").unwrap();
        let lock = hold(&held).unwrap().unwrap();
        sweep(base.path());
        assert!(held.exists() && !abandoned.exists());
        drop(lock);
        sweep(base.path());
        assert!(!held.exists());
        assert!(hold(&held).unwrap().is_none());

        // A link to one is neither held nor followed.
        let (target, link) = (make("target"), base.path().join("supermachine-1-2"));
        fs::write(target.join("log"), "").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(hold(&link).is_err());
        sweep(base.path());
        assert!(link.is_symlink() && target.join("log").exists());
    }

    #[test]
    fn names_are_given_by_one_at_a_time_and_leave_no_file() {
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let lock = lock_names().unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        let lock = lock_names().unwrap();
        let path = lock.path.clone();
        drop(lock);
        assert!(!path.exists());
    }

    #[test]
    fn directory_without_a_living_worker_has_no_occupant() {
        let dir = RuntimeDir::create().unwrap();
        assert!(Occupant::of(dir.path()).is_err());
        // As a killed worker leaves it.
        fs::write(dir.path().join(WORKER), "").unwrap();
        let occupant = Occupant::of(dir.path()).unwrap();
        assert!(!occupant.is_alive());
        assert_eq!(occupant.pid(), None);
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = RuntimeDir::create().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(open_regular(&file).is_ok());
        assert!(open_regular(&link).is_err());
        assert!(open_regular(dir.path()).is_err());
        assert!(open_regular(&dir.path().join("none")).is_err());
    }
}
