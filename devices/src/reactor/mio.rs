//! A reactor on a thread of its own, over `mio`, which has edge-triggered
//! readiness on epoll and kqueue alike (see docs/decisions).
//!
//! The loop sleeps in the operating system until a registered file is ready, a
//! device asks to be woken, or the earliest deadline is there. Without any of
//! these it does not run.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use super::{EventHandler, HandlerId, Reactor, ReactorError, Readiness};

/// Events taken from the operating system in one go.
const EVENTS_PER_POLL: usize = 256;
/// The loop's own token; handler tokens never have all bits set.
const WAKE: Token = Token(usize::MAX);

/// An event loop on its own thread. Dropping it stops and joins the thread.
pub struct MioReactor {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a loop has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReactorCounters {
    /// Times it woke up from its sleep.
    pub polls: u64,
    /// Calls of handlers.
    pub calls: u64,
}

struct Shared {
    registry: Registry,
    waker: Waker,
    stop: AtomicBool,
    handlers: Mutex<Handlers>,
    /// The loop's thread, once it runs.
    thread: OnceLock<ThreadId>,
    polls: AtomicU64,
    calls: AtomicU64,
}

#[derive(Default)]
struct Handlers {
    next: u32,
    by_id: HashMap<u32, Handler>,
    woken: Vec<u32>,
    /// The handlers' deadlines, the earliest first.
    deadlines: BTreeSet<(Instant, u32)>,
}

struct Handler {
    handler: Arc<dyn EventHandler>,
    deadline: Option<Instant>,
}

impl Handlers {
    /// The handlers whose deadlines are not after `now`; those are over.
    fn take_due(&mut self, now: Instant) -> Vec<Arc<dyn EventHandler>> {
        let mut due = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            if let Some(entry) = self.by_id.get_mut(&id) {
                entry.deadline = None;
                due.push(entry.handler.clone());
            }
        }
        due
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Handlers> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_loop(&self) {
        // It fails only when the kernel's counter is full, and then the loop
        // is awake anyhow.
        let _ = self.waker.wake();
    }

    /// How long the loop may sleep: without a deadline as long as it likes.
    fn sleep(&self) -> Option<Duration> {
        let earliest = self.lock().deadlines.first().map(|(at, _)| *at)?;
        Some(earliest.saturating_duration_since(Instant::now()))
    }

    fn call(&self, handler: &dyn EventHandler, event: impl FnOnce(&dyn EventHandler)) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        event(handler);
    }
}

impl MioReactor {
    /// Starts the loop.
    pub fn spawn() -> Result<Self, ReactorError> {
        let poll = Poll::new().map_err(ReactorError::Create)?;
        let registry = poll.registry().try_clone().map_err(ReactorError::Create)?;
        let waker = Waker::new(poll.registry(), WAKE).map_err(ReactorError::Create)?;
        let shared = Arc::new(Shared {
            registry,
            waker,
            stop: AtomicBool::new(false),
            handlers: Mutex::default(),
            thread: OnceLock::new(),
            polls: AtomicU64::new(0),
            calls: AtomicU64::new(0),
        });
        let thread = std::thread::Builder::new()
            .name("vm-reactor".into())
            .spawn({
                let shared = shared.clone();
                move || run(poll, &shared)
            })
            .map_err(ReactorError::Thread)?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The loop for those who use it and do not own it: it does not keep the
    /// thread running.
    pub fn handle(&self) -> Arc<dyn Reactor> {
        self.shared.clone()
    }

    /// What the loop has done so far.
    pub fn counters(&self) -> ReactorCounters {
        ReactorCounters {
            polls: self.shared.polls.load(Ordering::Relaxed),
            calls: self.shared.calls.load(Ordering::Relaxed),
        }
    }

    /// Stops the loop and waits for its thread. Called on that thread it only
    /// asks, and the loop ends after the current event.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake_loop();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // The loop itself cannot panic; a handler that did has nothing
            // more to say here.
            let _ = thread.join();
        }
    }
}

impl Drop for MioReactor {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Reactor for Shared {
    fn add_handler(&self, handler: Arc<dyn EventHandler>) -> HandlerId {
        let mut handlers = self.lock();
        loop {
            let id = handlers.next;
            // One short of the top, so that no token equals WAKE.
            handlers.next = (id + 1) % (u32::MAX - 1);
            if let std::collections::hash_map::Entry::Vacant(slot) = handlers.by_id.entry(id) {
                slot.insert(Handler {
                    handler,
                    deadline: None,
                });
                return HandlerId(id);
            }
        }
    }

    fn remove_handler(&self, id: HandlerId) {
        let mut handlers = self.lock();
        let removed = handlers.by_id.remove(&id.0);
        if let Some(deadline) = removed.as_ref().and_then(|entry| entry.deadline) {
            handlers.deadlines.remove(&(deadline, id.0));
        }
        drop(handlers);
        // Outside the lock: dropping a handler may call back into us.
        drop(removed);
    }

    fn register(&self, id: HandlerId, key: u32, fd: BorrowedFd<'_>) -> Result<(), ReactorError> {
        let fd = fd.as_raw_fd();
        let token = token(id, key);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry
            .register(&mut SourceFd(&fd), token, interest)
            .map_err(ReactorError::Register)
    }

    fn deregister(&self, fd: BorrowedFd<'_>) {
        let fd = fd.as_raw_fd();
        // It fails only for a file that is not watched, which is the goal.
        let _ = self.registry.deregister(&mut SourceFd(&fd));
    }

    fn wake(&self, id: HandlerId) {
        let mut handlers = self.lock();
        if !handlers.woken.contains(&id.0) {
            handlers.woken.push(id.0);
        }
        drop(handlers);
        self.wake_loop();
    }

    fn wake_at(&self, id: HandlerId, deadline: Option<Instant>) {
        let mut handlers = self.lock();
        let Some(entry) = handlers.by_id.get_mut(&id.0) else {
            return;
        };
        let before = std::mem::replace(&mut entry.deadline, deadline);
        if let Some(before) = before {
            handlers.deadlines.remove(&(before, id.0));
        }
        let Some(deadline) = deadline else { return };
        handlers.deadlines.insert((deadline, id.0));
        let is_earliest = handlers.deadlines.first() == Some(&(deadline, id.0));
        drop(handlers);
        // A loop that sleeps longer has to look again; on its own thread it
        // looks before it sleeps.
        if is_earliest && self.thread.get() != Some(&std::thread::current().id()) {
            self.wake_loop();
        }
    }
}

/// Packs both numbers into one token; every supported host has 64-bit `usize`.
fn token(id: HandlerId, key: u32) -> Token {
    Token((id.0 as usize) << 32 | key as usize)
}

fn split(token: Token) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = (token.0 as u64).to_be_bytes();
    (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    )
}

fn run(mut poll: Poll, shared: &Shared) {
    let _ = shared.thread.set(std::thread::current().id());
    let mut events = Events::with_capacity(EVENTS_PER_POLL);
    while !shared.stop.load(Ordering::SeqCst) {
        let outcome = poll.poll(&mut events, shared.sleep());
        shared.polls.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The queue itself is gone; there is nothing left to wait for.
            Err(_) => return,
        }
        for event in &events {
            if shared.stop.load(Ordering::SeqCst) {
                return;
            }
            if event.token() == WAKE {
                run_woken(shared);
                continue;
            }
            let (id, key) = split(event.token());
            let handler = shared.lock().by_id.get(&id).map(|e| e.handler.clone());
            if let Some(handler) = handler {
                let closed = event.is_error();
                let readiness = Readiness {
                    readable: event.is_readable() || event.is_read_closed() || closed,
                    writable: event.is_writable() || event.is_write_closed() || closed,
                    write_closed: event.is_write_closed(),
                };
                shared.call(&*handler, |handler| handler.ready(key, readiness));
            }
        }
        run_due(shared);
    }
}

fn run_woken(shared: &Shared) {
    let handlers: Vec<_> = {
        let mut handlers = shared.lock();
        let woken = std::mem::take(&mut handlers.woken);
        let find = |id| handlers.by_id.get(&id).map(|entry| entry.handler.clone());
        woken.into_iter().filter_map(find).collect()
    };
    for handler in handlers {
        shared.call(&*handler, |handler| handler.woken());
    }
}

fn run_due(shared: &Shared) {
    let due = {
        let mut handlers = shared.lock();
        if handlers.deadlines.is_empty() {
            return;
        }
        handlers.take_due(Instant::now())
    };
    for handler in due {
        shared.call(&*handler, |handler| handler.deadline_passed());
    }
}

#[cfg(test)]
mod tests;
