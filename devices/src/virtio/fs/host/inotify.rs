//! Linux: inotify(7).

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{
    CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch,
};
use rustix::io::Errno;

use super::super::watch::{DirectoryWatch, HostEvent};

/// Most directories of one device that are watched. Each takes about a KiB of the host's
/// memory, and of a number that all programs of a user share.
const MAX_DIRECTORIES: usize = 8192;
/// How much is read at a time.
const BUFFER_BYTES: usize = 16 << 10;
/// Most events that are taken at a time: what comes faster than it is read is lost in the
/// end, and not kept without bound.
const MAX_TAKEN: usize = 8192;

/// The way of this host, if it gives one.
pub fn watch() -> io::Result<Arc<dyn DirectoryWatch>> {
    Ok(Arc::new(Inotify {
        events: init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
        woken: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        directories: Mutex::default(),
    }))
}

#[derive(Debug)]
struct Inotify {
    events: OwnedFd,
    woken: OwnedFd,
    directories: Mutex<Directories>,
}

/// The watched directories, by the numbers of both sides.
#[derive(Debug, Default)]
struct Directories {
    by_number: HashMap<u64, i32>,
    by_watch: HashMap<i32, u64>,
}

impl Directories {
    fn forget(&mut self, watch: i32) {
        if let Some(number) = self.by_watch.remove(&watch)
            && self.by_number.get(&number) == Some(&watch)
        {
            self.by_number.remove(&number);
        }
    }
}

impl Inotify {
    /// Also held while events are read, so that none is read before its directory is
    /// known.
    fn directories(&self) -> MutexGuard<'_, Directories> {
        self.directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl DirectoryWatch for Inotify {
    fn add(&self, parent: BorrowedFd<'_>, name: &CStr, number: u64) -> io::Result<()> {
        let wanted = WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::EXCL_UNLINK
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        let mut directories = self.directories();
        let known = directories.by_number.contains_key(&number);
        if !known && directories.by_number.len() >= MAX_DIRECTORIES {
            return Err(Errno::NOSPC.into());
        }
        let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        path.extend(name.to_bytes());
        let watch = add_watch(&self.events, &*path, wanted)?;
        if let Some(before) = directories.by_number.insert(number, watch)
            && before != watch
        {
            directories.by_watch.remove(&before);
            // It may have gone by itself.
            let _ = remove_watch(&self.events, before);
        }
        if let Some(other) = directories.by_watch.insert(watch, number)
            && other != number
        {
            directories.by_number.remove(&other);
        }
        Ok(())
    }

    fn holds(&self, number: u64) -> bool {
        self.directories().by_number.contains_key(&number)
    }

    fn remove(&self, number: u64) {
        let mut directories = self.directories();
        if let Some(watch) = directories.by_number.remove(&number) {
            directories.by_watch.remove(&watch);
            // It may have gone by itself.
            let _ = remove_watch(&self.events, watch);
        }
    }

    fn clear(&self) {
        let mut directories = self.directories();
        for (watch, _) in std::mem::take(&mut *directories).by_watch {
            let _ = remove_watch(&self.events, watch);
        }
    }

    fn wait(&self) {
        let mut both = [
            PollFd::new(&self.events, PollFlags::IN),
            PollFd::new(&self.woken, PollFlags::IN),
        ];
        // Whoever waits looks for itself what there is.
        let _ = poll(&mut both, None);
        let _ = rustix::io::read(&self.woken, &mut [0; 8]);
    }

    fn wake(&self) {
        // Full only if it has been woken very often.
        let _ = rustix::io::write(&self.woken, &1_u64.to_ne_bytes());
    }

    fn take(&self, events: &mut Vec<HostEvent>) -> bool {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
        let mut directories = self.directories();
        let mut reader = Reader::new(&self.events, &mut buffer);
        let mut complete = true;
        while events.len() < MAX_TAKEN {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return complete,
                Err(_) => return false,
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                complete = false;
            }
            if event.events().contains(ReadFlags::IGNORED) {
                directories.forget(event.wd());
            }
            // What happens to the directory itself its parent says.
            if let Some(name) = event.file_name()
                && let Some(number) = directories.by_watch.get(&event.wd())
            {
                events.push(HostEvent {
                    directory: *number,
                    name: name.into(),
                    mask: event.events().bits(),
                    cookie: event.cookie(),
                });
            }
        }
        complete
    }
}
