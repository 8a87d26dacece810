//! A window onto files that shows nobody anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::virtio::fs::{FilePiece, FileWindow, PIECE_BYTES, PieceAccess};

/// A window that remembers what it is to show.
#[derive(Debug)]
pub struct RecordingWindow {
    address: u64,
    bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Without a file, zeros.
    shown: BTreeMap<u64, Option<(File, u64, PieceAccess)>>,
    lost: Vec<u64>,
    renewed: usize,
}

impl RecordingWindow {
    /// A window of so many pieces.
    pub fn new(address: u64, pieces: u64) -> Arc<Self> {
        Arc::new(Self {
            address,
            bytes: pieces * PIECE_BYTES,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it shows something, and what the guest may do with it; `None` where that
    /// is zeros.
    pub fn shown(&self) -> Vec<(u64, Option<PieceAccess>)> {
        let state = self.lock();
        let shown = state.shown.iter();
        shown
            .map(|(at, piece)| (*at, piece.as_ref().map(|piece| piece.2)))
            .collect()
    }

    /// How often it was to show something once more.
    pub fn renewed(&self) -> usize {
        self.lock().renewed
    }

    /// What the guest reads in the window: as much as there is of the file.
    pub fn look(&self, offset: u64, length: usize) -> Vec<u8> {
        let state = self.lock();
        let piece = state.shown.get(&(offset / PIECE_BYTES * PIECE_BYTES));
        let mut bytes = vec![0; length];
        if let Some((file, begins, _)) = piece.expect("something is shown") {
            let at = begins + offset % PIECE_BYTES;
            let read = file.read_at(&mut bytes, at).expect("files can be read");
            bytes.truncate(read);
        }
        bytes
    }

    /// The guest uses what a file no longer has.
    pub fn lose(&self, offset: u64) {
        self.lock().lost.push(offset);
    }

    fn check(&self, offset: u64) {
        assert!(offset.is_multiple_of(PIECE_BYTES) && offset < self.bytes);
    }

    fn put(&self, state: &mut State, offset: u64, piece: FilePiece<'_>) -> io::Result<()> {
        assert!(piece.offset.is_multiple_of(PIECE_BYTES));
        let file = File::from(piece.file.try_clone_to_owned()?);
        let piece = (file, piece.offset, piece.access);
        state.shown.insert(offset, Some(piece));
        Ok(())
    }
}

impl FileWindow for RecordingWindow {
    fn address(&self) -> u64 {
        self.address
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn show(&self, offset: u64, piece: FilePiece<'_>) -> io::Result<()> {
        self.check(offset);
        self.put(&mut self.lock(), offset, piece)
    }

    fn renew(&self, offset: u64, piece: FilePiece<'_>) -> io::Result<()> {
        self.check(offset);
        let mut state = self.lock();
        assert!(state.shown.contains_key(&offset), "it is not there yet");
        state.renewed += 1;
        self.put(&mut state, offset, piece)
    }

    fn show_zeros(&self, offset: u64) -> io::Result<()> {
        self.check(offset);
        self.lock().shown.insert(offset, None);
        Ok(())
    }

    fn holds(&self, address: u64, bytes: usize) -> bool {
        let end = address.checked_add(bytes as u64);
        let own = self.address + self.bytes;
        address >= self.address && end.is_some_and(|end| end <= own)
    }

    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        let offset = address - self.address;
        let state = self.lock();
        let piece = state.shown.get(&(offset / PIECE_BYTES * PIECE_BYTES));
        match piece.ok_or(io::ErrorKind::NotFound)? {
            None => buffer.fill(0),
            Some((file, begins, _)) => {
                file.read_exact_at(buffer, begins + offset % PIECE_BYTES)?;
            }
        }
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = address - self.address;
        let state = self.lock();
        let piece = state.shown.get(&(offset / PIECE_BYTES * PIECE_BYTES));
        match piece.and_then(Option::as_ref) {
            Some((file, begins, PieceAccess::Write)) => {
                file.write_all_at(bytes, begins + offset % PIECE_BYTES)
            }
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    fn hide(&self, offset: u64) {
        self.check(offset);
        self.lock().shown.remove(&offset);
    }

    fn take_lost(&self) -> Vec<u64> {
        std::mem::take(&mut self.lock().lost)
    }
}
