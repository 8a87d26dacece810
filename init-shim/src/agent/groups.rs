//! One control group per running command, so that all its descendants can be
//! killed at once, double-forked ones included.
//!
//! Groups are kept and used again: in the steady state a command costs neither
//! a `mkdir` nor an `rmdir`. All files are held open, so a guest that unmounts
//! or covers the cgroup file system changes nothing for existing groups.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::sys;

/// Empty groups kept for later commands.
const KEPT: usize = 32;

/// Makes and recycles groups below one directory.
#[derive(Debug)]
pub struct GroupPool {
    parent: PathBuf,
    process_limit: Option<u64>,
    next: AtomicU32,
    free: Mutex<Vec<Group>>,
}

/// A control group of one command.
#[derive(Debug)]
pub struct Group {
    dir: File,
    kill: File,
    events: File,
}

impl GroupPool {
    /// Uses `parent`, a directory of a cgroup2 file system that will hold no
    /// processes itself. No command gets more than `process_limit` processes,
    /// so that one which forks without end leaves some to the next.
    ///
    /// # Errors
    /// If a group cannot be made and opened there.
    pub fn new(parent: PathBuf, process_limit: Option<u64>) -> io::Result<Self> {
        let pool = Self {
            parent,
            process_limit,
            next: AtomicU32::new(0),
            free: Mutex::new(Vec::new()),
        };
        let first = pool.make()?;
        pool.lock().push(first);
        Ok(pool)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Group>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A group without processes.
    ///
    /// # Errors
    /// If none is kept and a new one cannot be made.
    pub fn take(&self) -> io::Result<Group> {
        let kept = self.lock().pop();
        kept.map_or_else(|| self.make(), Ok)
    }

    fn make(&self) -> io::Result<Group> {
        // A name left over from an earlier agent is skipped, not used.
        for _ in 0..64 {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.parent.join(format!("exec-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => {
                    if let Some(limit) = self.process_limit {
                        // Without the controller there is no limit to set.
                        let _ = fs::write(path.join("pids.max"), limit.to_string());
                    }
                    return Group::open(&path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }

    /// Takes a group back. One in which processes live on is let go: they keep
    /// it, and nothing else will ever be killed with them.
    pub fn give_back(&self, group: Group) {
        let mut free = self.lock();
        if free.len() < KEPT && group.is_empty() {
            free.push(group);
        }
    }
}

impl Group {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            dir: OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_DIRECTORY)
                .open(path)?,
            kill: OpenOptions::new()
                .write(true)
                .open(path.join("cgroup.kill"))?,
            events: File::open(path.join("cgroup.events"))?,
        })
    }

    /// The directory, for `CLONE_INTO_CGROUP`.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Kills every process in the group and below it, forking ones included.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn kill(&self) -> io::Result<()> {
        (&self.kill).write_all(b"1")
    }

    /// True if no process is left in the group or below it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let mut text = [0; 128];
        let Ok(len) = self.events.read_at(&mut text, 0) else {
            return false;
        };
        let text = text.get(..len).unwrap_or_default();
        text.split(|b| *b == b'\n')
            .any(|line| line == b"populated 0")
    }

    /// Waits until the group is empty, at most for `limit`.
    pub fn wait_until_empty(&self, limit: Duration) {
        let end =
            sys::monotonic_ns().saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        while !self.is_empty() {
            let left = end.saturating_sub(sys::monotonic_ns());
            if left == 0 {
                return;
            }
            let mut watch = [super::watch(self.events.as_fd(), sys::POLLPRI)];
            if sys::poll(&mut watch, Some(Duration::from_nanos(left))).is_err() {
                return;
            }
        }
    }
}
