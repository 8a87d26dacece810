//! Lists of directories.

use std::ffi::CStr;
use std::sync::{Arc, Mutex};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::super::SymlinkPolicy;
use super::super::handles::{Handle, OpenDir};
use super::super::host::{self, Entry, Listing};
use super::super::nodes::Link;
use super::super::wire::{Body, ENTRY_BYTES, Fields, dirent_bytes, kind};
use super::find::Found;
use super::{Server, VALIDITY, lock};

/// Longest list in one answer.
const MAX_LIST_BYTES: usize = 64 << 10;

impl Server {
    pub(super) fn directory_handle(&self, node: u64, found: &Found<'_>) -> Result<Handle, Errno> {
        if !found.stat.is_dir() {
            return Err(Errno::NOTDIR);
        }
        let (dir, _) = found.open(OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Handle::Dir(Arc::new(OpenDir {
            node,
            listing: Mutex::new(Listing::new(dir)?),
        })))
    }

    pub(super) fn open_directory(&self, node: u64) -> Result<Body, Errno> {
        let handle = self.directory_handle(node, &self.find(node)?)?;
        self.add_directory(handle)
    }

    /// Lists a directory, with what the guest would ask next about each entry if
    /// it wants that.
    pub(super) fn list(
        &self,
        mut arguments: Fields<'_>,
        plus: bool,
        room: usize,
    ) -> Result<Body, Errno> {
        let handle = arguments.u64()?;
        let offset = arguments.u64()?;
        let size = usize::try_from(arguments.u32()?).unwrap_or(usize::MAX);
        let room = size.min(room).min(MAX_LIST_BYTES);
        let Handle::Dir(open) = self.opened(handle)? else {
            return Err(Errno::NOTDIR);
        };
        // Not where it was moved to: that may be out of the shared directory.
        drop(self.dir(open.node)?);
        let mut body = Body::default();
        let mut listing = lock(&open.listing);
        let mut told = Vec::new();
        let before = if plus { ENTRY_BYTES } else { 0 };
        // Entries are longer in the answer than on the host if they come with more.
        let host_room = if plus { room / 4 } else { room };
        let mut was_refused = false;
        listing.each(offset, host_room, |entry| {
            let length = dirent_bytes(entry.name.to_bytes().len()) + before;
            if body.0.len() + length > room {
                was_refused = true;
                return false;
            }
            if plus {
                let at = body.0.len();
                body.0.resize(at + ENTRY_BYTES, 0);
                told.push((at, entry.kind, CStr::to_owned(entry.name)));
            }
            let kind = self.listed_kind(entry.kind);
            put_entry(&mut body, &Entry { kind, ..entry });
            true
        })?;
        for (at, kind, name) in told {
            if let Some(entry) = self.describe(&open, &listing, kind, &name) {
                body.0[at..at + ENTRY_BYTES].copy_from_slice(&entry.0);
            }
        }
        if body.0.is_empty() && was_refused {
            return Err(Errno::INVAL);
        }
        Ok(body)
    }

    /// Describes an entry of a list; one that is not described the guest looks up.
    fn describe(&self, open: &OpenDir, listing: &Listing, kind: u32, name: &CStr) -> Option<Body> {
        if matches!(name.to_bytes(), b"." | b"..") {
            return None;
        }
        // What a link is depends on where it leads.
        if kind == kind::LINK && self.rules.symlinks != SymlinkPolicy::Opaque {
            return None;
        }
        let stat = host::stat_entry(listing.dir(), name).ok()?;
        if stat.is_link() && self.rules.symlinks != SymlinkPolicy::Opaque {
            return None;
        }
        let stat = self.with_record(listing.dir(), name, stat).ok()?;
        let link = Link {
            parent: open.node,
            name: name.into(),
            followed: false,
        };
        let node = self.nodes().look_up(link, &stat).ok()?;
        self.watch_entry((open.node, listing.dir()), name, node, &stat);
        let mut body = Body::default();
        body.entry(node, VALIDITY, &self.shown(&stat));
        Some(body)
    }
}

/// `struct fuse_dirent`.
pub(super) fn put_entry(body: &mut Body, entry: &Entry<'_>) {
    let name = entry.name.to_bytes();
    let end = body.0.len() + dirent_bytes(name.len());
    // What is above the shared directory has no number here.
    let ino = if name == b".." { 1 } else { entry.ino };
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    body.u64(ino)
        .u64(entry.next)
        .u32(length)
        .u32(entry.kind)
        .bytes(name);
    body.0.resize(end, 0);
}
