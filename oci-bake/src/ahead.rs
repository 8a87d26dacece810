//! Layers are got before the bake asks for them, some beside each other.
//!
//! Who gets them takes the lock of each layer in the image's order, and waits for no lock
//! before it has those of all layers below: so of two processes that bake the same
//! layers, one can always finish what it has.

use std::fs::File;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::Duration;

use crate::content::{Content, Getter};
use crate::decompress::Windows;
use crate::error::LayerError;
use crate::job::{Claim, Job};
use crate::section::Section;
use crate::store::CachedLayer;

/// Layers that are got at the same time, as many as Docker gets.
const BESIDE: usize = 3;
/// Layers that may be got and not yet made: each has a lock, and its content on the disk.
const AHEAD: usize = 8;
/// How long it may take to notice that somebody cancels.
const PERIOD: Duration = Duration::from_millis(100);

/// A layer that was asked for.
pub(crate) enum Got {
    Cached(CachedLayer),
    /// It is to be made of this, and the lock held meanwhile.
    Content(Content, Option<File>),
}

enum Slot {
    Coming,
    Here(Result<Got, LayerError>),
    Gone,
}

struct State {
    slots: Vec<Slot>,
    /// Layers that are in the cache, from the bottom.
    made: usize,
    is_over: bool,
}

/// What gets the layers of one image.
pub(crate) struct Ahead<'a> {
    job: &'a Job<'a>,
    windows: &'a Windows,
    state: Mutex<State>,
    changed: Condvar,
    /// The layer whose turn it is.
    next: Mutex<usize>,
}

impl<'a> Ahead<'a> {
    pub(crate) fn new(job: &'a Job<'a>, windows: &'a Windows) -> Self {
        let slots = job.blobs.iter().map(|_| Slot::Coming).collect();
        Self {
            job,
            windows,
            state: Mutex::new(State {
                slots,
                made: 0,
                is_over: false,
            }),
            changed: Condvar::new(),
            next: Mutex::new(0),
        }
    }

    /// Looks for layers in the cache as far as they are there, and gets the others from
    /// then on, until what this returns is dropped.
    ///
    /// # Errors
    /// Of the layer with that number.
    pub(crate) fn start<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
    ) -> Result<End<'s, 'a>, (usize, LayerError)> {
        let end = End(self);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.job.blobs.len();
        while *next < count {
            let at = *next;
            let Some(cached) = self.job.find(at).map_err(|error| (at, error.into()))? else {
                break;
            };
            self.put(at, Ok(Got::Cached(cached)));
            *next = self.after_cached(at);
        }
        let left = count - *next;
        drop(next);
        for number in 0..left.min(BESIDE) {
            let getter = thread::Builder::new().name("layer-get".into());
            match getter.spawn_scoped(scope, || self.work()) {
                Err(error) if number == 0 => return Err((count - left, error.into())),
                // Fewer do.
                Err(_) => break,
                Ok(_) => {}
            }
        }
        Ok(end)
    }

    /// The layer after one that is in the cache: those that are merged are there together.
    fn after_cached(&self, at: usize) -> usize {
        match at < self.job.alone {
            true => at + 1,
            false => self.job.blobs.len(),
        }
    }

    /// Gets layers as long as there are any.
    fn work(&self) {
        let mut getter = Getter::new(self.job.means(), self.windows);
        let panicked = OverOnPanic(self);
        while let Some((at, lock)) = self.turn() {
            let content = getter.get(at, &self.job.blobs[at]);
            self.put(at, content.map(|content| Got::Content(content, lock)));
        }
        drop(panicked);
    }

    /// The next layer that is not in the cache, with its lock.
    fn turn(&self) -> Option<(usize, Option<File>)> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let at = *next;
            if at >= self.job.blobs.len() || !self.wait_for_room(at) {
                return None;
            }
            *next += 1;
            // Those that are merged have one lock together.
            if at > self.job.alone {
                return Some((at, None));
            }
            match self.job.claim(at) {
                Ok(Claim::Missing(lock)) => return Some((at, lock)),
                Ok(Claim::Cached(cached)) => {
                    self.put(at, Ok(Got::Cached(cached)));
                    *next = self.after_cached(at);
                }
                Err(error) => {
                    self.put(at, Err(error.into()));
                    return None;
                }
            }
        }
    }

    /// Waits until layer `at` may be got; false if nobody wants it any more.
    fn wait_for_room(&self, at: usize) -> bool {
        let blobs = self.job.blobs;
        let is_same = |below: usize| blobs[below].diff_id == blobs[at].diff_id;
        let mut state = self.lock();
        loop {
            let has_failed = |slot: &Slot| matches!(slot, Slot::Here(Err(_)));
            if state.is_over || state.slots.iter().any(has_failed) {
                return false;
            }
            // Of two that are the same the upper one will be in the cache.
            if at < state.made + AHEAD && !(state.made..at).any(is_same) {
                return true;
            }
            if self.job.store.cancel().is_cancelled() {
                return false;
            }
            state = self.wait(state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        let waited = self.changed.wait_timeout(state, PERIOD);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn put(&self, at: usize, got: Result<Got, LayerError>) {
        self.lock().slots[at] = Slot::Here(got);
        self.changed.notify_all();
    }

    /// Layer `at`, once it is here; `None` if it was given already. If another layer
    /// fails while this one is still coming, the bake has failed.
    ///
    /// # Errors
    /// Of the layer with that number.
    pub(crate) fn take(&self, at: usize) -> Result<Option<Got>, (usize, LayerError)> {
        let mut state = self.lock();
        loop {
            let has_failed = |slot: &Slot| matches!(slot, Slot::Here(Err(_)));
            let found = match &state.slots[at] {
                Slot::Gone => return Ok(None),
                Slot::Here(_) => Some(at),
                Slot::Coming => state.slots.iter().position(has_failed),
            };
            if let Some(found) = found
                && let Slot::Here(got) = std::mem::replace(&mut state.slots[found], Slot::Gone)
            {
                return got.map(Some).map_err(|error| (found, error));
            }
            if state.is_over || self.job.store.cancel().is_cancelled() {
                let ended = io::Error::other("nobody gets the layer any more");
                return Err((at, ended.into()));
            }
            state = self.wait(state);
        }
    }

    /// The content of a layer that is to be merged with others, for which it is not kept
    /// any longer; `None` if it was given already.
    pub(crate) fn content(&self, at: usize) -> Result<Option<Section>, (usize, LayerError)> {
        let Some(Got::Content(content, _)) = self.take(at)? else {
            return Ok(None);
        };
        self.made(at);
        Ok(Some(content.into_section()))
    }

    /// Layer `at` is in the cache.
    pub(crate) fn made(&self, at: usize) {
        self.lock().made = at + 1;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }
}

/// Ends the getting of layers when it is dropped.
pub(crate) struct End<'s, 'a>(&'s Ahead<'a>);

impl Drop for End<'_, '_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Whoever waits is told if a thread that gets layers cannot go on.
struct OverOnPanic<'s, 'a>(&'s Ahead<'a>);

impl Drop for OverOnPanic<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end();
        }
    }
}
