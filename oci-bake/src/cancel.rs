//! Stopping a bake from outside.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::section::ReadAt;

/// Asks a running [`bake`](crate::bake()) to stop. Clones share the request,
/// which cannot be taken back.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    asked: Arc<AtomicBool>,
    /// Also ends this one.
    parent: Option<Arc<AtomicBool>>,
}

impl Cancel {
    /// Asks. The bake ends with [`BakeError::Cancelled`](crate::BakeError) at
    /// the next chunk of data, a mebibyte away at the most; it waits for a
    /// layer's last flush to the disk if that has begun.
    pub fn cancel(&self) {
        // Nothing else is handed over with it.
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Whether anyone asked.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        let is_set = |asked: &Arc<AtomicBool>| asked.load(Ordering::Relaxed);
        is_set(&self.asked) || self.parent.as_ref().is_some_and(is_set)
    }

    /// One that this ends too, for a part of the work.
    pub(crate) fn child(&self) -> Self {
        Self {
            asked: Arc::default(),
            parent: Some(Arc::clone(&self.asked)),
        }
    }

    /// An error if anyone asked. `bake` says what it means, whatever layer of
    /// readers it came through; no kind of error that is retried.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        Ok(())
    }

    /// `inner`, failing once anyone asked.
    pub(crate) fn watch<T>(&self, inner: T) -> Watched<T> {
        Watched {
            inner,
            cancel: self.clone(),
        }
    }
}

/// A file or stream that fails once the work on it is cancelled.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    inner: T,
    cancel: Cancel,
}

impl<T> Watched<T> {
    pub(crate) fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: Read> Read for Watched<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.cancel.check()?;
        self.inner.read(buf)
    }
}

impl<T: Write> Write for Watched<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.cancel.check()?;
        self.inner.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Seek> Seek for Watched<T> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

impl<T: ReadAt> ReadAt for Watched<T> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.cancel.check()?;
        self.inner.read_at(buf, offset)
    }
}
