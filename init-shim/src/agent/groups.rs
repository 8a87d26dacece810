//! One control group per running command, so that all its descendants can be
//! killed at once, double-forked ones included.
//!
//! Groups are kept and used again: in the steady state a command costs neither
//! a `mkdir` nor an `rmdir`. The directory and all files are held open, so a
//! guest that unmounts or covers the cgroup file system changes nothing.
//!
//! A command cannot leave its group. It runs in a control group namespace whose
//! root is the group, on a hierarchy mounted with `nsdelegate`: the kernel then
//! lets nobody in the namespace move a process into or out of it, whatever he
//! mounts, or write the root's limits. It can make groups below its own.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exec_proto::ExecLimits;

use crate::sys::{self, Confinement, Namespaces};

/// Empty groups kept for later commands.
const KEPT: usize = 64;
/// Over which the kernel counts a group's processor time, in µs: its own default.
const CPU_PERIOD_US: u64 = 100_000;
/// The least processor time in a period that the kernel takes, in µs.
const LEAST_CPU_US: u64 = 1_000;
/// Links of a directory without directories in it.
const LINKS_OF_A_LEAF: u64 = 2;

/// How commands in the groups of a pool are confined.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Most processes of one command, so that one which forks without end
    /// leaves some to the next.
    pub process_limit: Option<u64>,
    /// Where a command sees its own group as the root of all groups. Without
    /// it, it sees what the agent sees.
    pub private_root: Option<&'static CStr>,
}

/// Makes and recycles groups below one directory.
#[derive(Debug)]
pub struct GroupPool {
    parent: OwnedFd,
    rules: Rules,
    next: AtomicU32,
    free: Mutex<Vec<Group>>,
    /// Groups let go while processes lived in them, to be removed afterwards.
    retired: Mutex<VecDeque<CString>>,
}

/// A control group of one command.
#[derive(Debug)]
pub struct Group {
    name: CString,
    dir: File,
    kill: File,
    events: File,
    namespaces: Option<Namespaces>,
    is_limited: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a file of a control group.
///
/// # Errors
/// As the calls involved.
pub fn set(group: BorrowedFd<'_>, file: &CStr, value: &str) -> io::Result<()> {
    let file = sys::open_at(group, file, libc::O_WRONLY)?;
    sys::write(file.as_fd(), value.as_bytes()).map(drop)
}

impl GroupPool {
    /// Uses `parent`, a directory of a cgroup2 file system that will hold no
    /// processes itself.
    ///
    /// # Errors
    /// If a group cannot be made and opened there.
    pub fn new(parent: &Path, rules: Rules) -> io::Result<Self> {
        Self::below(File::open(parent)?.into(), rules)
    }

    /// As [`GroupPool::new`], for a directory that may have no path.
    ///
    /// # Errors
    /// As [`GroupPool::new`].
    pub fn below(parent: OwnedFd, rules: Rules) -> io::Result<Self> {
        let pool = Self {
            parent,
            rules,
            next: AtomicU32::new(0),
            free: Mutex::default(),
            retired: Mutex::default(),
        };
        let first = pool.make()?;
        lock(&pool.free).push(first);
        Ok(pool)
    }

    /// A group without processes.
    ///
    /// # Errors
    /// If none is kept and a new one cannot be made.
    pub fn take(&self) -> io::Result<Group> {
        let kept = lock(&self.free).pop();
        kept.map_or_else(|| self.make(), Ok)
    }

    /// A group of its own for a command with limits, which nobody uses again.
    ///
    /// The kernel counts memory by group from the first command on that has a limit
    /// of it: counting costs each page fault a little.
    ///
    /// # Errors
    /// If it cannot be made, or the kernel does not take a limit.
    pub fn take_limited(&self, limits: &ExecLimits) -> io::Result<Group> {
        let parent = self.parent.as_fd();
        if limits.memory_bytes != 0 {
            // Above the groups of commands first. Where it is on already, or is not
            // ours to switch, the limit itself says whether it works.
            let _ = set(parent, c"../cgroup.subtree_control", "+memory");
            let _ = set(parent, c"cgroup.subtree_control", "+memory");
        }
        let mut group = self.make()?;
        group.is_limited = true;
        match group.limit(limits, &self.rules) {
            Ok(()) => Ok(group),
            Err(error) => {
                self.give_back(group);
                Err(error)
            }
        }
    }

    fn make(&self) -> io::Result<Group> {
        let parent = self.parent.as_fd();
        // A name left over from an earlier agent is skipped, not used.
        for _ in 0..64 {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let name = CString::new(format!("exec-{number}")).unwrap_or_default();
            match sys::make_dir_at(parent, &name) {
                Ok(()) => return Group::open(parent, name, &self.rules),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }

    /// Takes a group back. One in which processes live on is let go: they keep
    /// it, and nothing else will ever be killed with them. So is one in which
    /// a command has made groups.
    pub fn give_back(&self, group: Group) {
        self.remove_retired();
        let mut free = lock(&self.free);
        if !group.is_limited && group.is_fresh() && free.len() < KEPT {
            free.push(group);
            return;
        }
        drop(free);
        lock(&self.retired).push_back(group.name);
    }

    /// Tries to remove one group that was let go.
    fn remove_retired(&self) {
        let mut retired = lock(&self.retired);
        if let Some(name) = retired.pop_front()
            && let Err(error) = sys::remove_dir_at(self.parent.as_fd(), &name)
            && error.raw_os_error() == Some(libc::EBUSY)
        {
            retired.push_back(name);
        }
    }
}

impl Group {
    fn open(parent: BorrowedFd<'_>, name: CString, rules: &Rules) -> io::Result<Self> {
        let dir = sys::open_at(parent, &name, libc::O_RDONLY | libc::O_DIRECTORY)?;
        let file = |name: &CStr, flags| sys::open_at(dir.as_fd(), name, flags).map(File::from);
        if let Some(limit) = rules.process_limit {
            // Without the controller there is no limit to set.
            let _ = set(dir.as_fd(), c"pids.max", &limit.to_string());
        }
        let kill = file(c"cgroup.kill", libc::O_WRONLY)?;
        let events = file(c"cgroup.events", libc::O_RDONLY)?;
        let namespaces = match rules.private_root {
            Some(place) => Some(Namespaces::of_group(dir.as_fd(), place)?),
            None => None,
        };
        Ok(Self {
            name,
            dir: dir.into(),
            kill,
            events,
            namespaces,
            is_limited: false,
        })
    }

    fn limit(&self, limits: &ExecLimits, rules: &Rules) -> io::Result<()> {
        let dir = self.dir.as_fd();
        if limits.memory_bytes != 0 {
            set(dir, c"memory.max", &limits.memory_bytes.to_string())?;
            // All are killed, and not the one that happens to be the largest.
            set(dir, c"memory.oom.group", "1")?;
            // A kernel without swap has no file for it.
            let _ = set(dir, c"memory.swap.max", "0");
        }
        if limits.processes != 0 {
            let most = rules.process_limit.unwrap_or(u64::MAX);
            set(dir, c"pids.max", &limits.processes.min(most).to_string())?;
        }
        if limits.cpu_thousandths != 0 {
            let quota = limits.cpu_thousandths.saturating_mul(CPU_PERIOD_US / 1000);
            let quota = quota.max(LEAST_CPU_US);
            set(dir, c"cpu.max", &format!("{quota} {CPU_PERIOD_US}"))?;
        }
        Ok(())
    }

    /// Made for the limits of one command, which must not run without them.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.is_limited
    }

    /// Whether the kernel killed something in it for its memory limit.
    #[must_use]
    pub fn was_out_of_memory(&self) -> bool {
        let Ok(file) = sys::open_at(self.dir.as_fd(), c"memory.events", libc::O_RDONLY) else {
            return false;
        };
        let mut text = [0; 512];
        let count = sys::read(file.as_fd(), &mut text).unwrap_or(0);
        let text = text.get(..count).unwrap_or_default();
        text.split(|byte| *byte == b'\n').any(|line| {
            line.strip_prefix(b"oom_kill ")
                .is_some_and(|kills| kills != b"0")
        })
    }

    /// What a command is started with to be in the group.
    #[must_use]
    pub fn confinement(&self) -> Confinement<'_> {
        Confinement {
            directory: self.dir.as_fd(),
            namespaces: self.namespaces.as_ref(),
        }
    }

    /// As it was made: nobody in it, and no groups below.
    fn is_fresh(&self) -> bool {
        let is_leaf = |metadata: std::fs::Metadata| metadata.nlink() <= LINKS_OF_A_LEAF;
        self.is_empty() && self.dir.metadata().is_ok_and(is_leaf)
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
