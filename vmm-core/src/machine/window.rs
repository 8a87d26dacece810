//! Windows of a machine's addresses onto files of the host.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use devices::virtio::fs::{FilePiece, FileWindow, PIECE_BYTES, PieceAccess};
use tracing::warn;

use super::error::MachineError;
use crate::arch::Layout;
use crate::hypervisor::{Access, DynVm, EngineError};
use crate::memory::{MemoryError, WindowSpace};

/// Pieces that the guest has, and what it may do there. Locked while one changes.
type Pieces = Mutex<BTreeMap<u64, Access>>;
/// All windows of a machine: what is mapped of one mount is written to another.
type All = Arc<Mutex<Vec<Weak<Shown>>>>;

/// What is seen in a window.
struct Shown {
    space: Arc<WindowSpace>,
    pieces: Pieces,
}

/// Gives devices their windows, one after the other: the same ones to devices of the
/// same order, so that a restored guest finds its own.
pub(super) struct Windows<'a> {
    vm: &'a Arc<dyn DynVm>,
    all: All,
    next: u64,
    left: u64,
}

impl<'a> Windows<'a> {
    pub(super) fn new(vm: &'a Arc<dyn DynVm>, layout: &Layout) -> Self {
        Self {
            vm,
            all: All::default(),
            next: layout.dax_window,
            left: layout.dax_window_bytes,
        }
    }

    /// A window of this length.
    pub(super) fn take(&mut self, bytes: u64) -> Result<Arc<dyn FileWindow>, MachineError> {
        let left = self.left.checked_sub(bytes);
        let left = left.filter(|_| bytes > 0 && bytes.is_multiple_of(PIECE_BYTES));
        let Some(left) = left else {
            return Err(MemoryError::BadWindow {
                bytes,
                left_bytes: self.left,
            }
            .into());
        };
        let space = WindowSpace::reserve(self.next, bytes)
            .map_err(|source| MemoryError::HostRefused { bytes, source })?;
        self.next += bytes;
        self.left = left;
        let shown = Arc::new(Shown {
            space: space.clone(),
            pieces: Pieces::default(),
        });
        lock(&self.all).push(Arc::downgrade(&shown));
        Ok(Arc::new(Window {
            vm: self.vm.clone(),
            space,
            shown,
            all: self.all.clone(),
            told: AtomicBool::new(false),
        }))
    }
}

/// A window of one device.
struct Window {
    vm: Arc<dyn DynVm>,
    space: Arc<WindowSpace>,
    shown: Arc<Shown>,
    all: All,
    /// The log has been told that something was lost.
    told: AtomicBool,
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window")
            .field("space", &self.space)
            .finish_non_exhaustive()
    }
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Access>> {
        lock(&self.shown.pieces)
    }

    /// The window that has this range, and where it is there.
    fn find(&self, address: u64, bytes: usize) -> Option<(Arc<Shown>, u64)> {
        let all = lock(&self.all);
        all.iter().filter_map(Weak::upgrade).find_map(|shown| {
            let offset = address.checked_sub(shown.space.ipa())?;
            let end = offset.checked_add(bytes as u64)?;
            (end <= shown.space.bytes()).then_some((shown, offset))
        })
    }

    /// Takes a piece from the guest, if it has it.
    fn take(&self, shown: &mut BTreeMap<u64, Access>, offset: u64) -> io::Result<()> {
        if shown.contains_key(&offset) {
            self.vm.unmap(self.space.ipa() + offset).map_err(refused)?;
            shown.remove(&offset);
        }
        Ok(())
    }

    /// Gives the guest what is at a piece's host addresses.
    fn give(
        &self,
        shown: &mut BTreeMap<u64, Access>,
        offset: u64,
        access: Access,
    ) -> io::Result<()> {
        let lease = self.space.lease(offset)?;
        if let Err(error) = self.vm.map(lease, access) {
            let _ = self.space.clear(offset);
            return Err(refused(error));
        }
        shown.insert(offset, access);
        Ok(())
    }
}

/// An error unless all pieces of a range are there with such an access.
fn has(
    shown: &BTreeMap<u64, Access>,
    offset: u64,
    bytes: usize,
    fits: impl Fn(Access) -> bool,
) -> io::Result<()> {
    let end = offset.checked_add(bytes as u64);
    let end = end.ok_or(io::ErrorKind::InvalidInput)?;
    let mut piece = offset / PIECE_BYTES * PIECE_BYTES;
    while piece < end {
        if !shown.get(&piece).is_some_and(|access| fits(*access)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        piece = piece.saturating_add(PIECE_BYTES);
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(error: EngineError) -> io::Error {
    io::Error::other(error)
}

fn access_of(access: PieceAccess) -> Access {
    match access {
        PieceAccess::Read => Access::ReadExecute,
        PieceAccess::Write | PieceAccess::Keep => Access::ReadWriteExecute,
    }
}

impl FileWindow for Window {
    fn address(&self) -> u64 {
        self.space.ipa()
    }

    fn bytes(&self) -> u64 {
        self.space.bytes()
    }

    fn show(&self, offset: u64, piece: FilePiece<'_>) -> io::Result<()> {
        let mut shown = self.lock();
        self.take(&mut shown, offset)?;
        self.space
            .put(offset, piece.file, piece.offset, piece.access)?;
        self.give(&mut shown, offset, access_of(piece.access))
    }

    fn renew(&self, offset: u64, piece: FilePiece<'_>) -> io::Result<()> {
        let mut shown = self.lock();
        let Some(before) = shown.get(&offset).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let after = access_of(piece.access);
        let protect = |shown: &mut BTreeMap<u64, Access>| {
            let at = self.space.ipa() + offset;
            let bytes = usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX);
            self.vm.protect(at, bytes, after).map_err(refused)?;
            shown.insert(offset, after);
            Ok::<_, io::Error>(())
        };
        // The guest never may write what this process may not.
        if before != after && after == Access::ReadExecute {
            protect(&mut shown)?;
        }
        let put = self
            .space
            .put(offset, piece.file, piece.offset, piece.access);
        if let Err(error) = put {
            // The host may have taken what was there, and the guest must find something.
            if self.space.put_zeros(offset).is_err() {
                self.take(&mut shown, offset)?;
            }
            return Err(error);
        }
        if before != after && after == Access::ReadWriteExecute {
            protect(&mut shown)?;
        }
        Ok(())
    }

    fn show_zeros(&self, offset: u64) -> io::Result<()> {
        let mut shown = self.lock();
        self.take(&mut shown, offset)?;
        self.space.put_zeros(offset)?;
        self.give(&mut shown, offset, Access::ReadExecute)
    }

    fn holds(&self, address: u64, bytes: usize) -> bool {
        self.find(address, bytes).is_some()
    }

    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        let found = self.find(address, buffer.len());
        let (shown, offset) = found.ok_or(io::ErrorKind::NotFound)?;
        // Locked, so that nothing is taken from there meanwhile.
        let pieces = lock(&shown.pieces);
        has(&pieces, offset, buffer.len(), |_| true)?;
        shown.space.read(offset, buffer)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        let found = self.find(address, bytes.len());
        let (shown, offset) = found.ok_or(io::ErrorKind::NotFound)?;
        let pieces = lock(&shown.pieces);
        let may_write = |access| access == Access::ReadWriteExecute;
        has(&pieces, offset, bytes.len(), may_write)?;
        shown.space.write(offset, bytes)
    }

    fn hide(&self, offset: u64) {
        let mut shown = self.lock();
        // What an engine does not take back stays where it is: a file too long.
        match self.take(&mut shown, offset) {
            Ok(()) => drop(self.space.clear(offset)),
            Err(error) => warn!(%error, offset, "cannot take a mapped file from the guest"),
        }
    }

    fn take_lost(&self) -> Vec<u64> {
        let lost = self.space.take_lost();
        // Once: the guest can have it happen as often as it likes.
        if !lost.is_empty() && !self.told.swap(true, Ordering::Relaxed) {
            warn!("the guest read zeros where a mapped file has ended");
        }
        lost
    }
}
