//! What a machine's vCPUs and the thread that decodes for them share.

use super::store::Store;
use crate::zeroes::atomic_words;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

/// Blocks that are decoded are to be noted.
const NOTING: u8 = 1;
/// Blocks are decoded ahead, so it matters which ones vCPUs have decoded.
const HELPED: u8 = 2;
/// Blocks that are noted at most.
const MAX_NOTES: usize = super::plan::MAX_BLOCKS;
/// Bits of the set of blocks that a vCPU has decoded, a power of two. Blocks that
/// share a bit are taken for one another: then the vCPU decodes one more.
const SEEN_BITS: usize = 1 << 17;

/// How vCPUs came by blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// vCPUs decoded so many themselves,
    pub decoded: u64,
    /// and took so many that were decoded ahead.
    pub taken: u64,
}

/// What is decoded ahead in one machine, and what is noted for others.
#[derive(Debug, Default)]
pub struct Ahead {
    state: AtomicU8,
    notes: Mutex<Vec<u64>>,
    /// What another machine noted, for this one.
    kept: Mutex<Option<Arc<[u8]>>>,
    store: Mutex<Option<Arc<Store>>>,
    /// Hashes of the blocks that vCPUs have decoded themselves.
    seen: OnceLock<Box<[AtomicU64]>>,
    stop: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
    decoded: AtomicU64,
    taken: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ahead {
    /// Notes from now on which blocks are decoded. What was noted before is
    /// forgotten.
    pub fn note(&self) {
        locked(&self.notes).clear();
        self.state.fetch_or(NOTING, Ordering::Relaxed);
    }

    /// What was noted; nothing is any more.
    pub fn take_notes(&self) -> Vec<u64> {
        self.state.fetch_and(!NOTING, Ordering::Relaxed);
        std::mem::take(&mut *locked(&self.notes))
    }

    /// A vCPU has decoded the block of `key`.
    #[inline]
    pub fn decoded(&self, key: u64) {
        self.decoded.fetch_add(1, Ordering::Relaxed);
        let state = self.state.load(Ordering::Relaxed);
        if state != 0 {
            self.decoded_while(state, key);
        }
    }

    #[cold]
    fn decoded_while(&self, state: u8, key: u64) {
        if state & NOTING != 0 {
            let mut notes = locked(&self.notes);
            if notes.len() < MAX_NOTES {
                notes.push(key);
            }
        }
        if state & HELPED != 0
            && let Some(seen) = self.seen.get()
        {
            let (word, bit) = seen_place(key);
            seen[word].fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// A vCPU has taken a block that was decoded ahead.
    #[inline]
    pub fn took(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// How the vCPUs came by blocks until now.
    pub fn counts(&self) -> Counts {
        Counts {
            decoded: self.decoded.load(Ordering::Relaxed),
            taken: self.taken.load(Ordering::Relaxed),
        }
    }

    /// Where blocks are that are decoded ahead, if any are.
    #[inline]
    pub fn store(&self) -> Option<Arc<Store>> {
        if self.state.load(Ordering::Relaxed) & HELPED == 0 {
            return None;
        }
        locked(&self.store).clone()
    }

    /// Keeps what is to be decoded ahead, whenever a vCPU has nothing decoded.
    pub(super) fn keep(&self, notes: Arc<[u8]>) {
        *locked(&self.kept) = Some(notes);
    }

    /// What is kept.
    pub(super) fn kept(&self) -> Option<Arc<[u8]>> {
        locked(&self.kept).clone()
    }

    /// Has a thread decode ahead that `start` starts; false if there is one already or
    /// it could not be started.
    pub(super) fn begin(&self, start: impl FnOnce() -> Option<JoinHandle<()>>) -> bool {
        let mut thread = locked(&self.thread);
        if thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return false;
        }
        let seen = self.seen.get_or_init(|| atomic_words(SEEN_BITS / 64));
        seen.iter()
            .for_each(|word| word.store(0, Ordering::Relaxed));
        self.stop.store(false, Ordering::Relaxed);
        *thread = start();
        thread.is_some()
    }

    /// For the thread: lets vCPUs take from `store`, unless it is over.
    pub(super) fn open(&self, store: Arc<Store>) {
        let mut place = locked(&self.store);
        // Looked at under the lock: `close` would not empty it once more.
        if !self.is_over() {
            *place = Some(store);
            self.state.fetch_or(HELPED, Ordering::Relaxed);
        }
    }

    /// For the thread: whether it is to end.
    pub(super) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// For the thread: whether a vCPU has decoded the block of `key` meanwhile.
    pub(super) fn is_seen(&self, key: u64) -> bool {
        self.seen.get().is_some_and(|seen| {
            let (word, bit) = seen_place(key);
            seen[word].load(Ordering::Relaxed) & bit != 0
        })
    }

    /// Nothing is decoded ahead any more, and nobody finds what was. Does not wait.
    pub fn close(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut place = locked(&self.store);
        self.state.fetch_and(!HELPED, Ordering::Relaxed);
        *place = None;
    }

    /// Waits until all is decoded.
    #[cfg(test)]
    pub(super) fn finish(&self) {
        if let Some(thread) = locked(&self.thread).take() {
            thread.join().unwrap();
        }
    }

    /// As [`Ahead::close`], and waits until the thread reads guest memory no more.
    pub fn end(&self) {
        self.close();
        if let Some(thread) = locked(&self.thread).take() {
            // A panic of its own has been shown.
            let _ = thread.join();
        }
    }
}

fn seen_place(key: u64) -> (usize, u64) {
    let hash = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % SEEN_BITS;
    (hash / 64, 1 << (hash % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_noted_from_the_order_until_the_notes_are_taken() {
        let ahead = Ahead::default();
        ahead.decoded(4);
        ahead.note();
        ahead.decoded(8);
        ahead.decoded(5);
        assert_eq!(ahead.take_notes(), [8, 5]);
        ahead.decoded(12);
        assert!(ahead.take_notes().is_empty());
        assert_eq!(ahead.counts().decoded, 4);
    }

    #[test]
    fn one_thread_fills_one_store_until_the_end() {
        let ahead = Ahead::default();
        let store = || Arc::new(Store::new(1));
        assert!(ahead.store().is_none());
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let wait = || Some(std::thread::spawn(move || receiver.recv().unwrap()));
        assert!(ahead.begin(wait));
        assert!(!ahead.begin(|| None));
        ahead.open(store());
        assert!(ahead.store().is_some() && !ahead.is_over());
        ahead.decoded(8);
        assert!(ahead.is_seen(8) && !ahead.is_seen(12));
        sender.send(()).unwrap();
        ahead.end();
        assert!(ahead.store().is_none() && ahead.is_over());
        ahead.open(store());
        assert!(ahead.store().is_none(), "too late");
    }
}
