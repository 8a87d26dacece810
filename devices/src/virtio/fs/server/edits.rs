//! What the host changes: which directories are watched, and what the guest is told.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::super::host::{self, Identity, Stat};
use super::super::nodes::Link;
use super::super::watch::{Content, DirectoryWatch, HostEvent, Request, Watch};
use super::super::wire::{Body, NOTIFY_CHANGED, OUT_HEADER_BYTES, ROOT, opcode};
use super::find::Dir;
use super::{Server, changes};

/// Bytes of what is said between the header and the name.
const CHANGE_BYTES: usize = 32;
/// `IN_Q_OVERFLOW`: events were lost.
const OVERFLOW: u32 = 0x4000;
/// How deep a tree is watched again at most, in which the guest was when it was saved.
const MAX_LEVELS: usize = 128;
/// How often a file is looked at that the guest changes at the same time.
const LOOKS: usize = 3;

/// What was found last, for events that come one after the other.
#[derive(Debug, Default)]
pub struct Lately<'a> {
    dir: Option<(u64, Option<Dir<'a>>)>,
}

impl<'a> Lately<'a> {
    fn stat(&mut self, server: &'a Server, event: &HostEvent) -> Option<Stat> {
        if self.dir.as_ref().is_none_or(|(n, _)| *n != event.directory) {
            self.dir = Some((event.directory, server.dir(event.directory).ok()));
        }
        let (_, dir) = self.dir.as_ref()?;
        host::stat_entry(dir.as_ref()?, &event.name).ok()
    }
}

impl Server {
    /// A server whose guest is told what the host changes.
    pub fn with_watch(self, host: Arc<dyn DirectoryWatch>) -> Self {
        Self {
            watch: Some(Watch::new(host)),
            ..self
        }
    }

    /// The same by this crate's own way. Where the host has none, or no more of it, the guest
    /// looks again in a second.
    pub fn with_host_watch(self) -> Self {
        match host::watch() {
            Ok(watch) => self.with_watch(watch),
            Err(_) => self,
        }
    }

    /// What the host says now.
    #[cfg(any(all(test, feature = "default"), feature = "fuzzing"))]
    pub fn events(&self) -> Vec<HostEvent> {
        let mut events = Vec::new();
        if let Some(watch) = &self.watch {
            watch.host().take(&mut events);
        }
        events
    }

    pub fn watch(&self) -> Option<&Watch> {
        self.watch.as_ref()
    }

    /// Notes that a request begins which may change something, until that is dropped.
    pub(super) fn begin(&self, request: u32, node: u64) -> Option<Request<'_>> {
        let watch = self.watch.as_ref()?;
        let may_change = changes(request) || matches!(request, opcode::OPEN | opcode::RELEASE);
        may_change.then(|| watch.begin(node))
    }

    /// The guest has put a file, or nothing, in the place of a name.
    pub(super) fn left(&self, parent: u64, name: &CStr, what: Option<Identity>) {
        if let Some(watch) = &self.watch {
            watch.left(parent, name, what);
        }
    }

    /// The guest has made or changed an entry of a directory.
    pub(super) fn made(&self, parent: u64, dir: &Dir<'_>, name: &CStr) {
        if let Some(watch) = &self.watch
            && let Ok(stat) = host::stat_entry(dir, name)
        {
            watch.left(parent, name, Some(stat.identity));
            watch.touched(&stat);
        }
    }

    /// The guest has changed an open file.
    pub(super) fn touched(&self, file: impl AsFd) {
        if let Some(watch) = &self.watch
            && let Ok(stat) = host::stat(file)
        {
            watch.touched(&stat);
        }
    }

    /// Watches the shared directory.
    pub(super) fn watch_root(&self) {
        if let Some(watch) = &self.watch {
            // Where the host gives no more, the guest looks again in a second.
            let _ = watch.host().add(self.root.as_fd(), c".", ROOT);
        }
    }

    /// Watches a directory that the guest was told of, if the one it is in is watched;
    /// false if it is not.
    pub(super) fn watch_entry(
        &self,
        (parent, dir): (u64, impl AsFd),
        name: &CStr,
        node: u64,
        stat: &Stat,
    ) -> bool {
        let Some(watch) = self.watch.as_ref().filter(|_| stat.is_dir()) else {
            return false;
        };
        if !watch.host().holds(parent) || self.is_left_out(parent, name) {
            return false;
        }
        // As above.
        watch.host().add(dir.as_fd(), name, node).is_ok()
    }

    /// Whether what is in a directory is left alone: dependencies and objects, which are
    /// very many, and which nobody edits.
    fn is_left_out(&self, parent: u64, name: &CStr) -> bool {
        match name.to_bytes() {
            b"node_modules" => true,
            b"objects" => self.nodes().is_named(parent, c".git"),
            _ => false,
        }
    }

    /// The guest does not know these directories any more.
    pub(super) fn unwatch(&self, nodes: impl IntoIterator<Item = u64>) {
        if let Some(watch) = &self.watch {
            nodes.into_iter().for_each(|node| watch.host().remove(node));
        }
    }

    /// Watches the directories that the guest knew when it was saved.
    pub fn watch_restored(&self) {
        if self.watch.is_none() {
            return;
        }
        self.watch_root();
        let mut left = self.nodes().directories();
        let mut reached = HashSet::from([ROOT]);
        for _ in 0..MAX_LEVELS {
            let before = left.len();
            left.retain(|(node, link)| {
                if !reached.contains(&link.parent) {
                    return true;
                }
                if self.watch_link(*node, link) {
                    reached.insert(*node);
                }
                false
            });
            if left.len() == before {
                return;
            }
        }
    }

    /// Watches a directory by its name; false if it is not to be, or is not there.
    fn watch_link(&self, node: u64, link: &Link) -> bool {
        if link.followed {
            return false;
        }
        let Ok(dir) = self.dir(link.parent) else {
            return false;
        };
        let Ok(stat) = host::stat_entry(&dir, &link.name) else {
            return false;
        };
        if self.nodes().number(&stat.identity) != Some(node) {
            return false;
        }
        self.watch_entry((link.parent, &dir), &link.name, node, &stat)
    }

    /// What the guest is told of an event, unless it did that itself or does not know the
    /// directory.
    pub fn tell_event<'a>(&'a self, event: &HostEvent, lately: &mut Lately<'a>) -> Option<Vec<u8>> {
        let watch = self.watch.as_ref()?;
        if !self.nodes().knows(event.directory) {
            return None;
        }
        let mut child = None;
        for _ in 0..LOOKS {
            let before = watch.left_as(event.directory, &event.name);
            let stat = lately.stat(self, event);
            child = stat.and_then(|stat| self.nodes().number(&stat.identity));
            let (is_own, is_still) = match event.mask & HostEvent::ENTRY {
                0 => self.is_own_change(watch, stat, child),
                _ => {
                    let now = stat.map(|stat| stat.identity);
                    let after = watch.left_as(event.directory, &event.name);
                    (after == Some(now), after == before)
                }
            };
            if is_own {
                return None;
            }
            if is_still {
                break;
            }
        }
        Some(change(event, child.unwrap_or(0)))
    }

    /// Whether a file is as the guest has left it; and whether that will stay so.
    fn is_own_change(&self, watch: &Watch, stat: Option<Stat>, node: Option<u64>) -> (bool, bool) {
        // What is gone already is told of with its name.
        let Some(stat) = stat else {
            return (true, true);
        };
        let (left, is_busy) = watch.left_content(&stat.identity, node);
        // Whoever changes a file all the time is not told that it changes.
        (
            is_busy || left == Some(Content::from(&stat)),
            left.is_none(),
        )
    }
}

/// Says that an entry of a directory was changed by the host; `child` is what is there
/// now, if the guest knows it.
fn change(event: &HostEvent, child: u64) -> Vec<u8> {
    let name = event.name.to_bytes();
    let kind = event.mask & (HostEvent::ENTRY | HostEvent::FILE | HostEvent::DIRECTORY);
    let child = match event.mask & (HostEvent::DELETE | HostEvent::MOVED_FROM) {
        0 => child,
        _ => 0,
    };
    message(event.directory, child, kind, event.cookie, name)
}

/// Says that anything may have changed.
pub fn everything_changed() -> Vec<u8> {
    message(0, 0, OVERFLOW, 0, b"")
}

/// `struct fuse_notify_changed_out` of our patch, behind a header.
fn message(parent: u64, child: u64, mask: u32, cookie: u32, name: &[u8]) -> Vec<u8> {
    let length = OUT_HEADER_BYTES + CHANGE_BYTES + name.len();
    let mut body = Body::default();
    body.u32(u32::try_from(length).unwrap_or(u32::MAX))
        .u32(NOTIFY_CHANGED)
        .u64(0) // unique: no answer to anything
        .u64(parent)
        .u64(child)
        .u32(mask)
        .u32(cookie)
        .u32(u32::try_from(name.len()).unwrap_or(u32::MAX))
        .u32(0)
        .bytes(name);
    body.0
}
