//! What the host changes in directories that the guest has looked at.
//!
//! The host says which entry of a directory has changed; what the guest's own requests
//! have changed is left out, and the rest waits, each change once, until the guest is
//! told. Of a tree only so much is watched: a directory that is not is looked at again
//! when what the guest was told of it is no longer valid.

mod own;
mod pending;

use std::ffi::CStr;
use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::host::{Identity, Stat};
pub(super) use own::Content;
use own::Own;
pub(super) use pending::Pending;

/// Longest wait for requests that were under way when a change was heard of. A request
/// that takes longer may be heard of by the guest that made it.
const PATIENCE: Duration = Duration::from_millis(100);

/// A change of an entry of a watched directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEvent {
    /// The directory, by the number it was added with.
    pub directory: u64,
    /// The entry.
    pub name: Box<CStr>,
    /// What became of it: one of these events, which are those of inotify(7), and
    /// [`HostEvent::DIRECTORY`] of a directory.
    pub mask: u32,
    /// Joins the two events of a rename; otherwise 0.
    pub cookie: u32,
}

impl HostEvent {
    /// A file was written to, or cut.
    pub const MODIFY: u32 = 0x2;
    /// Mode, owner, times or extended attributes were changed.
    pub const ATTRIB: u32 = 0x4;
    /// Who had it open to write to has closed it.
    pub const CLOSE_WRITE: u32 = 0x8;
    /// It was moved to another name.
    pub const MOVED_FROM: u32 = 0x40;
    /// It was moved here.
    pub const MOVED_TO: u32 = 0x80;
    /// It was made.
    pub const CREATE: u32 = 0x100;
    /// It was removed.
    pub const DELETE: u32 = 0x200;
    /// What changed is a directory.
    pub const DIRECTORY: u32 = 0x4000_0000;

    /// What changes what is in a directory.
    pub(super) const ENTRY: u32 = Self::MOVED_FROM | Self::MOVED_TO | Self::CREATE | Self::DELETE;
    /// What changes a file, whatever its name.
    pub(super) const FILE: u32 = Self::MODIFY | Self::ATTRIB | Self::CLOSE_WRITE;
}

/// How the host says what changes in directories. Called on several threads.
pub trait DirectoryWatch: Send + Sync + Debug {
    /// Watches the entries of the directory that `name` is in `parent`, which is `.` for
    /// `parent` itself, by this number; not what a link of that name leads to. A directory
    /// may be added again.
    fn add(&self, parent: BorrowedFd<'_>, name: &CStr, number: u64) -> io::Result<()>;

    /// Whether a directory is watched by this number.
    fn holds(&self, number: u64) -> bool;

    /// Watches a directory no longer.
    fn remove(&self, number: u64);

    /// Watches none.
    fn clear(&self);

    /// Sleeps until there is something to take or somebody wakes it.
    fn wait(&self);

    /// Has the next or current [`DirectoryWatch::wait`] return.
    fn wake(&self);

    /// Appends what there is, in order; false if some of it was lost.
    fn take(&self, events: &mut Vec<HostEvent>) -> bool;
}

/// The watched directories of one device, and what of the changes is the guest's own.
#[derive(Debug)]
pub struct Watch {
    host: Arc<dyn DirectoryWatch>,
    own: Mutex<Own>,
    /// A request has ended.
    ended: Condvar,
}

/// A request that may change something, while it is under way.
#[derive(Debug)]
pub struct Request<'a> {
    watch: &'a Watch,
    ticket: u64,
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.watch.own().end(self.ticket);
        self.watch.ended.notify_all();
    }
}

impl Watch {
    pub(super) fn new(host: Arc<dyn DirectoryWatch>) -> Self {
        Self {
            host,
            own: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn host(&self) -> &dyn DirectoryWatch {
        &*self.host
    }

    /// Notes that a request about this node begins.
    pub(super) fn begin(&self, node: u64) -> Request<'_> {
        Request {
            watch: self,
            ticket: self.own().begin(node),
        }
    }

    /// The guest has left this under a name: a file, or nothing.
    pub(super) fn left(&self, parent: u64, name: &CStr, what: Option<Identity>) {
        self.own().left(parent, name, what);
    }

    /// The guest has changed a file, which is like this now.
    pub(super) fn touched(&self, stat: &Stat) {
        self.own().touched(stat);
    }

    /// Waits for the requests that are under way: what they have done by now is noted
    /// afterwards.
    pub(super) fn settle(&self) {
        let mut own = self.own();
        let barrier = own.next_ticket();
        let end = Instant::now() + PATIENCE;
        while own.has_before(barrier) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.ended.wait_timeout(own, left);
            own = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What the guest has last left under a name, if it did.
    pub(super) fn left_as(&self, parent: u64, name: &CStr) -> Option<Option<Identity>> {
        self.own().left_as(parent, name)
    }

    /// How the guest has last left a file, if it did; whether it is at it now.
    pub(super) fn left_content(&self, of: &Identity, node: Option<u64>) -> (Option<Content>, bool) {
        let own = self.own();
        let busy = node.is_some_and(|node| own.is_busy(node));
        (own.content(of), busy)
    }

    /// Forgets all of a guest.
    pub(super) fn clear(&self) {
        self.host.clear();
        self.own().clear();
    }
}
