//! The exec agent: connections in, commands run, results out.
//!
//! A thread serves a connection and accepts the next when it is done; there is
//! always one waiting in `accept`. So a command that hangs (in a guest's FUSE
//! mount, say) holds up nothing but itself, and in the steady state a command
//! costs no thread start.

mod command;
mod connection;
mod dialer;
mod durable;
mod entry;
mod failure;
pub mod files;
pub mod groups;
mod hold;
pub mod identity;
mod inbound;
mod launch;
mod link;
pub mod listener;
pub mod names;
mod output;
mod resume;
mod ring;
mod stdin;
mod stream;
mod tree;
mod workers;
mod workload;

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use exec_proto::{ErrorKind, Failure};

use crate::sys;
use dialer::Standby;
use durable::Commands;
use entry::Entry;
use groups::GroupPool;
use inbound::Inbound;
use resume::Controls;
use workload::Workload;

pub use connection::serve;
pub use dialer::{Dialer, Greeting};
pub use entry::EnterRoot;
pub use link::Buffers;
pub use workers::{Doorway, Workers};

/// A descriptor with the events to wait for.
fn watch(fd: BorrowedFd<'_>, events: i16) -> sys::Watch {
    sys::Watch {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    }
}

/// Files that every command may need, opened before a guest can hide them.
#[derive(Debug)]
struct Places {
    /// Directory with the terminal multiplexer.
    terminals: File,
    ptmx: &'static CStr,
    null: File,
    random: File,
    /// The agent's own program, for the tool it is too.
    own: File,
}

impl Places {
    fn open() -> io::Result<Self> {
        // In a guest /dev/pts is ours; its ptmx works even if /dev is replaced.
        let own =
            File::open("/dev/pts").and_then(|dir| sys::open_at(dir.as_fd(), c"ptmx", libc::O_RDWR));
        let (terminals, ptmx) = match own {
            Ok(_) => ("/dev/pts", c"ptmx"),
            Err(_) => ("/dev", c"ptmx"),
        };
        Ok(Self {
            terminals: File::open(Path::new(terminals))?,
            ptmx,
            null: File::options().read(true).write(true).open("/dev/null")?,
            random: File::open("/dev/urandom")?,
            own: File::open("/proc/self/exe")?,
        })
    }
}

/// State shared by all connections.
#[derive(Debug)]
pub struct Agent {
    places: Places,
    groups: OnceLock<Arc<GroupPool>>,
    entry: Entry,
    machine_control: bool,
    controls: Controls,
    standby: Standby,
    workload: Arc<Workload>,
    durable: Commands,
    inbound: Inbound,
    /// How long a connection may be open without a request.
    patience: Duration,
}

/// Why a connection ends before its time.
#[derive(Debug)]
enum Stop {
    /// The peer is gone.
    Gone,
    /// The peer is told why, then the connection is closed.
    Refused(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

/// Only socket operations fail with a plain I/O error here.
impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl Agent {
    /// An agent that confines commands to groups below the directory of
    /// `groups`, if given. `machine_control` lets requests set the clock, feed
    /// the kernel's generator and power off: for a guest of its own only.
    ///
    /// # Errors
    /// If `/dev/null`, `/dev/urandom` or `/proc/self/exe` cannot be opened.
    pub fn new(groups: Option<GroupPool>, machine_control: bool) -> io::Result<Self> {
        Ok(Self {
            places: Places::open()?,
            groups: groups.map(Arc::new).map_or_else(OnceLock::new, Into::into),
            entry: Entry::default(),
            machine_control,
            controls: Controls::default(),
            standby: Standby::default(),
            workload: Arc::default(),
            durable: Commands::default(),
            inbound: Inbound::default(),
            patience: connection::FIRST_REQUEST,
        })
    }

    /// An agent that controls its machine: as [`Agent::new`], and with
    /// `boot_id`, the file that stands in for the kernel's boot id, if any. It does not
    /// confine commands yet.
    ///
    /// # Errors
    /// As [`Agent::new`].
    pub fn of_machine(boot_id: Option<File>) -> io::Result<Self> {
        Ok(Self {
            controls: Controls::open(boot_id),
            ..Self::new(None, true)?
        })
    }

    /// Has the host say when the machine enters its root, by `enter`.
    #[must_use]
    pub fn entering(self, enter: EnterRoot) -> Self {
        Self {
            entry: Entry::new(enter),
            ..self
        }
    }

    /// Confines commands to groups of `groups` from now on.
    pub fn use_groups(&self, groups: GroupPool) {
        // They are made once.
        let _ = self.groups.set(groups.into());
    }

    /// Drops connections that the host made and on which it asked for nothing
    /// for so long; 60 s if not set.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    fn require_machine_control(&self) -> Result<(), Failure> {
        if self.machine_control {
            return Ok(());
        }
        Err(Failure {
            kind: ErrorKind::NotPermitted,
            errno: 0,
            message: "this agent does not control its machine".to_owned(),
        })
    }
}
