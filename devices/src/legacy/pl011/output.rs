//! Output that never waits for its reader.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most output kept for a reader that is slower than the guest.
pub const OUTPUT_BYTES: usize = 256 << 10;

/// The writing end; a thread of its own holds the sink.
pub(super) struct Output {
    shared: Arc<Shared>,
}

struct Shared {
    ring: Mutex<Ring>,
    /// There is something to write, or there never will be again.
    filled: Condvar,
    /// Everything is written.
    drained: Condvar,
}

#[derive(Default)]
struct Ring {
    bytes: VecDeque<u8>,
    /// The sink, until the thread that writes to it has been started.
    sink: Option<Box<dyn Write + Send>>,
    writing: bool,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut sink: Box<dyn Write + Send>) {
        let mut chunk = Vec::new();
        let mut ring = self.lock();
        loop {
            while ring.bytes.is_empty() {
                ring.writing = false;
                self.drained.notify_all();
                if ring.closed {
                    return;
                }
                ring = self
                    .filled
                    .wait(ring)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            ring.writing = true;
            chunk.clear();
            chunk.extend(ring.bytes.drain(..));
            drop(ring);
            // A sink that fails loses this output; the next may fare better.
            let _ = sink.write_all(&chunk).and_then(|()| sink.flush());
            ring = self.lock();
        }
    }
}

impl Output {
    pub(super) fn new(sink: Box<dyn Write + Send>) -> Self {
        Self {
            shared: Arc::new(Shared {
                ring: Mutex::new(Ring {
                    sink: Some(sink),
                    ..Ring::default()
                }),
                filled: Condvar::new(),
                drained: Condvar::new(),
            }),
        }
    }

    /// Adds a byte; returns how many old ones that pushed out.
    pub(super) fn push(&self, byte: u8) -> usize {
        let mut ring = self.shared.lock();
        let mut dropped = 0;
        if ring.bytes.len() >= OUTPUT_BYTES {
            ring.bytes.pop_front();
            dropped = 1;
        }
        ring.bytes.push_back(byte);
        if let Some(sink) = ring.sink.take() {
            let shared = self.shared.clone();
            // Without a thread the ring simply stays full of the newest.
            let _ = std::thread::Builder::new()
                .name("vm-console".into())
                .spawn(move || shared.run(sink));
        }
        if ring.bytes.len() == 1 {
            self.shared.filled.notify_one();
        }
        dropped
    }

    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut ring = self.shared.lock();
        while ring.writing || !ring.bytes.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            ring = self
                .shared
                .drained
                .wait_timeout(ring, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // The thread writes what is left and ends; it is not waited for,
        // since the sink may block for ever.
        self.shared.lock().closed = true;
        self.shared.filled.notify_one();
    }
}
