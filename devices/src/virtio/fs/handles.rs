//! Files and directories that the guest has open.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::host::Listing;

/// Most of them, whatever the owner of the device says: each is a descriptor.
pub const MAX_HANDLES: usize = 16 << 10;

/// An open file.
#[derive(Debug)]
pub struct OpenFile {
    pub file: OwnedFd,
    pub node: u64,
    /// The guest's open flags, as far as they matter here.
    pub flags: u32,
    /// Whether the host appends what is written.
    pub appends: AtomicBool,
    /// Whether others that are open are the same one to the host.
    pub is_shared: bool,
    /// What a write takes from a file was taken after privileges had been given so many
    /// times.
    pub cleared: Cleared,
}

/// When set-user-id and set-group-id were last taken from an open file.
#[derive(Debug)]
pub struct Cleared(AtomicU64);

impl Default for Cleared {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Cleared {
    /// Whether they were, since the server gave any for the `given`-th time.
    pub fn is_since(&self, given: u64) -> bool {
        self.0.load(Ordering::Relaxed) == given
    }

    pub fn set(&self, given: u64) {
        self.0.store(given, Ordering::Relaxed);
    }
}

/// An open directory.
#[derive(Debug)]
pub struct OpenDir {
    pub node: u64,
    pub listing: Mutex<Listing>,
}

#[derive(Debug, Clone)]
pub enum Handle {
    File(Arc<OpenFile>),
    Dir(Arc<OpenDir>),
    /// It was open when the machine was saved, and was not used since.
    Saved(SavedHandle),
}

/// A handle as it is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedHandle {
    pub number: u64,
    pub node: u64,
    pub is_dir: bool,
    pub flags: u32,
}

impl Handle {
    pub fn node(&self) -> u64 {
        match self {
            Self::File(file) => file.node,
            Self::Dir(dir) => dir.node,
            Self::Saved(saved) => saved.node,
        }
    }
}

/// All of them, by the numbers the guest knows them by.
#[derive(Debug)]
pub struct Handles {
    by_number: HashMap<u64, Handle>,
    next: u64,
    most: usize,
}

impl Default for Handles {
    fn default() -> Self {
        Self {
            by_number: HashMap::new(),
            next: 1,
            most: MAX_HANDLES,
        }
    }
}

impl Handles {
    /// No more than `most` from now on, of which there are at most [`MAX_HANDLES`].
    pub fn limit(&mut self, most: usize) {
        self.most = most.min(MAX_HANDLES);
    }

    pub fn insert(&mut self, handle: Handle) -> Result<u64, Errno> {
        if self.by_number.len() >= self.most {
            return Err(Errno::NFILE);
        }
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, handle);
        Ok(number)
    }

    /// Puts an opened one in the place of a saved one, which may have gone.
    pub fn replace(&mut self, number: u64, handle: Handle) {
        if let Some(place) = self.by_number.get_mut(&number) {
            *place = handle;
        }
    }

    pub fn get(&self, number: u64) -> Result<Handle, Errno> {
        self.by_number.get(&number).cloned().ok_or(Errno::BADF)
    }

    pub fn remove(&mut self, number: u64) -> Option<Handle> {
        self.by_number.remove(&number)
    }

    pub fn clear(&mut self) {
        self.by_number.clear();
    }

    /// The number that the next new one gets, and all there are, in order.
    pub fn save(&self) -> (u64, Vec<SavedHandle>) {
        let handles = self.by_number.iter().map(|(number, handle)| {
            let (is_dir, flags) = match handle {
                Handle::File(file) => (false, file.flags),
                Handle::Dir(_) => (true, 0),
                Handle::Saved(saved) => (saved.is_dir, saved.flags),
            };
            SavedHandle {
                number: *number,
                node: handle.node(),
                is_dir,
                flags,
            }
        });
        let mut handles: Vec<SavedHandle> = handles.collect();
        handles.sort_unstable_by_key(|handle| handle.number);
        (self.next, handles)
    }

    /// Takes over what was saved, which is not trusted; `None` if it cannot be.
    pub fn restore(&mut self, next: u64, saved: &[SavedHandle]) -> Option<()> {
        if next == 0 || saved.len() > MAX_HANDLES {
            return None;
        }
        let mut by_number = HashMap::with_capacity(saved.len());
        for handle in saved {
            let twice = by_number.insert(handle.number, Handle::Saved(*handle));
            if twice.is_some() || !(1..next).contains(&handle.number) {
                return None;
            }
        }
        self.by_number = by_number;
        self.next = next;
        Some(())
    }
}
