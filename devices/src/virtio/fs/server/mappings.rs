//! Pieces of files that the guest sees in its window.
//!
//! A mapping is told by the guest of a node and has no open file here: the host keeps
//! what is mapped. Which piece is where is kept so that it can be shown again: with
//! more rights, after the file has become longer, in a copy of the machine.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::super::handles::{Handle, OpenFile};
use super::super::host::Stat;
use super::super::wire::{Body, Fields, mapping, open};
use super::super::{DaxPolicy, FilePiece, FileWindow, PIECE_BYTES, PieceAccess};
use super::{Server, lock};

/// Least size of a file that the guest maps under [`DaxPolicy::LargeFiles`]: half a
/// piece, so that at most half of the window is taken by nothing.
const LARGE_BYTES: u64 = PIECE_BYTES / 2;

/// A window, and what is in it.
#[derive(Debug)]
pub struct Mappings {
    pub window: Arc<dyn FileWindow>,
    pub policy: DaxPolicy,
    /// By place in the window. Locked while one changes, so that the table says what
    /// the window shows.
    shown: Mutex<BTreeMap<u64, Shown>>,
}

/// What a place of the window shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    pub node: u64,
    /// Where the piece begins in the file.
    pub offset: u64,
    pub writes: bool,
}

/// A window as it is saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedWindow {
    pub address: u64,
    pub bytes: u64,
    /// Places in the window, in order, and what they show.
    pub shown: Vec<(u64, Shown)>,
}

/// A file to map.
enum Source {
    Opened(OwnedFd),
    Handle(Arc<OpenFile>),
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Opened(file) => file.as_fd(),
            Self::Handle(file) => file.file.as_fd(),
        }
    }
}

impl Mappings {
    pub fn new(window: Arc<dyn FileWindow>, policy: DaxPolicy) -> Self {
        Self {
            window,
            policy,
            shown: Mutex::default(),
        }
    }

    /// Whether the guest is to map this file rather than read it.
    pub fn are_for(&self, stat: &Stat) -> bool {
        stat.is_file()
            && match self.policy {
                DaxPolicy::LargeFiles => stat.size >= LARGE_BYTES,
                DaxPolicy::Always => true,
            }
    }

    /// The places of a range that a guest names.
    fn places(&self, offset: u64, bytes: u64) -> Result<impl Iterator<Item = u64>, Errno> {
        let end = offset.checked_add(bytes).ok_or(Errno::INVAL)?;
        let whole = offset.is_multiple_of(PIECE_BYTES) && bytes.is_multiple_of(PIECE_BYTES);
        if !whole || bytes == 0 || end > self.window.bytes() {
            return Err(Errno::INVAL);
        }
        Ok((0..bytes / PIECE_BYTES).map(move |piece| offset + piece * PIECE_BYTES))
    }

    /// Shows a piece at a place, whatever is there.
    fn show(&self, place: u64, wanted: Shown, piece: FilePiece<'_>) -> Result<(), Errno> {
        let mut shown = lock(&self.shown);
        let same = |there: &Shown| (there.node, there.offset) == (wanted.node, wanted.offset);
        if shown.get(&place).is_some_and(same) {
            // The guest goes on using it while it gets the right to write.
            self.window.renew(place, piece).map_err(errno)?;
            shown.insert(place, wanted);
            return Ok(());
        }
        shown.remove(&place);
        if let Err(error) = self.window.show(place, piece) {
            self.window.hide(place);
            return Err(errno(error));
        }
        shown.insert(place, wanted);
        Ok(())
    }

    fn hide(&self, place: u64) {
        let mut shown = lock(&self.shown);
        if shown.remove(&place).is_some() {
            self.window.hide(place);
        }
    }

    /// Shows nothing any more.
    pub fn clear(&self) {
        let mut shown = lock(&self.shown);
        for place in shown.keys() {
            self.window.hide(*place);
        }
        shown.clear();
    }

    pub fn save(&self) -> SavedWindow {
        SavedWindow {
            address: self.window.address(),
            bytes: self.window.bytes(),
            shown: lock(&self.shown)
                .iter()
                .map(|(at, shown)| (*at, *shown))
                .collect(),
        }
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

impl Server {
    fn mappings(&self) -> Result<&Mappings, Errno> {
        self.mappings.as_ref().ok_or(Errno::NOSYS)
    }

    /// A file to map: what the node's names mean, or, if it has none any more, one of
    /// those by which it is open.
    fn mappable(&self, node: u64, writes: bool) -> Result<Source, Errno> {
        let error = match self.find(node) {
            Ok(found) if !found.stat.is_file() => return Err(Errno::NODEV),
            Ok(found) => {
                let flags = if writes { OFlags::RDWR } else { OFlags::RDONLY };
                let (file, stat) = found.open(flags)?;
                if writes {
                    self.clear_privileges(&file, &stat)?;
                }
                return Ok(Source::Opened(file));
            }
            Err(error) => error,
        };
        let handles = self.nodes().handles(node);
        for number in handles {
            if let Ok(Handle::File(file)) = self.opened(number)
                && match file.flags & open::ACCESS {
                    open::RDWR => true,
                    open::WRONLY => false,
                    _ => !writes,
                }
            {
                return Ok(Source::Handle(file));
            }
        }
        Err(error)
    }

    pub(super) fn set_up_mapping(
        &self,
        node: u64,
        mut arguments: Fields<'_>,
    ) -> Result<Body, Errno> {
        let mappings = self.mappings()?;
        arguments.skip(8)?; // a handle, which Linux does not have at that time
        let offset = arguments.u64()?;
        let bytes = arguments.u64()?;
        let flags = arguments.u64()?;
        let place = arguments.u64()?;
        let places = mappings.places(place, bytes)?;
        let end = offset.checked_add(bytes).ok_or(Errno::INVAL)?;
        if !offset.is_multiple_of(PIECE_BYTES)
            || i64::try_from(end).is_err()
            || flags & !(mapping::READ | mapping::WRITE) != 0
        {
            return Err(Errno::INVAL);
        }
        let writes = flags & mapping::WRITE != 0;
        if writes && self.rules.read_only {
            return Err(Errno::ROFS);
        }
        let source = self.mappable(node, writes)?;
        let access = if writes {
            PieceAccess::Write
        } else {
            PieceAccess::Read
        };
        for at in places {
            let offset = offset + (at - place);
            let wanted = Shown {
                node,
                offset,
                writes,
            };
            let piece = FilePiece {
                file: source.as_fd(),
                offset,
                access,
            };
            mappings.show(at, wanted, piece)?;
        }
        Ok(Body::default())
    }

    pub(super) fn remove_mappings(&self, mut arguments: Fields<'_>) -> Result<Body, Errno> {
        let mappings = self.mappings()?;
        for _ in 0..arguments.u32()? {
            let offset = arguments.u64()?;
            let bytes = arguments.u64()?;
            mappings
                .places(offset, bytes)?
                .for_each(|at| mappings.hide(at));
        }
        Ok(Body::default())
    }

    /// Shows what was lost once more: mostly a file that the host made anew is as long
    /// again as it was.
    pub(super) fn mend_mappings(&self) {
        let Some(mappings) = &self.mappings else {
            return;
        };
        for place in mappings.window.take_lost() {
            let Some(known) = lock(&mappings.shown).get(&place).copied() else {
                continue;
            };
            if known.writes {
                self.nodes().lost(known.node);
            }
            // What cannot be shown stays as it is: zeros.
            if let Ok((source, access)) = self.again(known) {
                let shown = lock(&mappings.shown);
                if shown.get(&place) == Some(&known) {
                    let piece = FilePiece {
                        file: source.as_fd(),
                        offset: known.offset,
                        access,
                    };
                    let _ = mappings.window.renew(place, piece);
                }
            }
        }
    }

    /// What a place showed, to be shown again.
    fn again(&self, known: Shown) -> Result<(Source, PieceAccess), Errno> {
        let writes = known.writes && !self.rules.read_only;
        let source = self.mappable(known.node, writes)?;
        let access = match (known.writes, writes) {
            (false, _) => PieceAccess::Read,
            (true, true) => PieceAccess::Write,
            // Its guest may write, and this host no longer lets it.
            (true, false) => PieceAccess::Keep,
        };
        Ok((source, access))
    }

    /// Shows what a saved window showed, which is not trusted; `None` if this one
    /// cannot. What is not the same file any more is zeros.
    pub(super) fn restore_mappings(&self, saved: &SavedWindow) -> Option<()> {
        let Some(mappings) = &self.mappings else {
            return (*saved == SavedWindow::default()).then_some(());
        };
        let window = &mappings.window;
        if (saved.address, saved.bytes) != (window.address(), window.bytes()) {
            return None;
        }
        mappings.clear();
        for (place, known) in &saved.shown {
            let _one = mappings.places(*place, PIECE_BYTES).ok()?;
            let end = known.offset.checked_add(PIECE_BYTES)?;
            i64::try_from(end).ok()?;
            if !known.offset.is_multiple_of(PIECE_BYTES) {
                return None;
            }
            let shown = self.again(*known).is_ok_and(|(source, access)| {
                let piece = FilePiece {
                    file: source.as_fd(),
                    offset: known.offset,
                    access,
                };
                window.show(*place, piece).is_ok()
            });
            if !shown {
                window.show_zeros(*place).ok()?;
            }
            if lock(&mappings.shown).insert(*place, *known).is_some() {
                return None;
            }
        }
        Some(())
    }
}
