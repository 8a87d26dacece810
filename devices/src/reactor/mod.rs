//! One event loop thread per machine, for devices that wait on host files.
//!
//! The loop sleeps in the operating system until a registered file is ready
//! or a device asks to be woken; it has no timers, so an idle machine costs
//! nothing. Readiness is edge-triggered: a source is told once that it became
//! ready and must read or write until the operation would block. `mio` gives
//! this on epoll and kqueue alike (see docs/decisions).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

/// Events taken from the operating system in one go.
const EVENTS_PER_POLL: usize = 256;
/// The loop's own token; handler tokens never have all bits set.
const WAKE: Token = Token(usize::MAX);

/// What became possible on a registered file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// Reading, or learning of the end of the stream or an error, will not
    /// block.
    pub readable: bool,
    /// Writing will not block, or will report an error.
    pub writable: bool,
    /// The other end reads nothing more.
    pub write_closed: bool,
}

/// A device's entry point for events; called on the loop's thread.
pub trait EventHandler: Send + Sync {
    /// The file registered under `key` became ready. Late calls for a key
    /// that was just deregistered are possible and must be harmless.
    fn ready(&self, key: u32, readiness: Readiness);
    /// Somebody called [`ReactorHandle::wake`] for this handler.
    fn woken(&self) {}
}

/// Names a handler within its reactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandlerId(u32);

/// Why the reactor could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReactorError {
    /// The event queue could not be made.
    #[error("could not create the event queue")]
    Create(#[source] io::Error),
    /// The thread could not be started.
    #[error("could not start the event loop thread")]
    Thread(#[source] io::Error),
    /// The file could not be watched.
    #[error("could not watch a file descriptor")]
    Register(#[source] io::Error),
}

/// An event loop on its own thread. Dropping it stops and joins the thread.
pub struct Reactor {
    handle: ReactorHandle,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A cheap way to the reactor for those that do not own it. It stays valid,
/// without effect, after the reactor stopped.
#[derive(Clone)]
pub struct ReactorHandle {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    waker: Waker,
    stop: AtomicBool,
    handlers: Mutex<Handlers>,
}

#[derive(Default)]
struct Handlers {
    next: u32,
    by_id: HashMap<u32, Arc<dyn EventHandler>>,
    woken: Vec<u32>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Handlers> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reactor {
    /// Starts the loop.
    pub fn spawn() -> Result<Arc<Self>, ReactorError> {
        let poll = Poll::new().map_err(ReactorError::Create)?;
        let registry = poll.registry().try_clone().map_err(ReactorError::Create)?;
        let waker = Waker::new(poll.registry(), WAKE).map_err(ReactorError::Create)?;
        let shared = Arc::new(Shared {
            registry,
            waker,
            stop: AtomicBool::new(false),
            handlers: Mutex::default(),
        });
        let thread = std::thread::Builder::new()
            .name("vm-reactor".into())
            .spawn({
                let shared = shared.clone();
                move || run(poll, &shared)
            })
            .map_err(ReactorError::Thread)?;
        Ok(Arc::new(Self {
            handle: ReactorHandle { shared },
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// A handle that does not keep the thread running.
    pub fn handle(&self) -> ReactorHandle {
        self.handle.clone()
    }

    /// Stops the loop and waits for its thread. Called on that thread it only
    /// asks, and the loop ends after the current event.
    pub fn stop(&self) {
        self.handle.shared.stop.store(true, Ordering::SeqCst);
        self.handle.wake_loop();
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

impl Drop for Reactor {
    fn drop(&mut self) {
        self.stop();
    }
}

impl ReactorHandle {
    /// Adds a handler. The reactor keeps it alive until
    /// [`ReactorHandle::remove_handler`] or its own end.
    pub fn add_handler(&self, handler: Arc<dyn EventHandler>) -> HandlerId {
        let mut handlers = self.shared.lock();
        loop {
            let id = handlers.next;
            // One short of the top, so that no token equals WAKE.
            handlers.next = (id + 1) % (u32::MAX - 1);
            if let std::collections::hash_map::Entry::Vacant(slot) = handlers.by_id.entry(id) {
                slot.insert(handler);
                return HandlerId(id);
            }
        }
    }

    /// Forgets a handler. A call that is running on the loop's thread may
    /// still finish after this returns.
    pub fn remove_handler(&self, id: HandlerId) {
        let removed = self.shared.lock().by_id.remove(&id.0);
        // Outside the lock: dropping a handler may call back into us.
        drop(removed);
    }

    /// Watches `fd` for reading and writing, edge-triggered, and reports to
    /// handler `id` under `key`. The caller deregisters before closing it.
    pub fn register(&self, id: HandlerId, key: u32, fd: impl AsFd) -> Result<(), ReactorError> {
        let fd = fd.as_fd().as_raw_fd();
        let token = token(id, key);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.shared
            .registry
            .register(&mut SourceFd(&fd), token, interest)
            .map_err(ReactorError::Register)
    }

    /// Stops watching `fd`.
    pub fn deregister(&self, fd: impl AsFd) {
        let fd = fd.as_fd().as_raw_fd();
        // It fails only for a file that is not watched, which is the goal.
        let _ = self.shared.registry.deregister(&mut SourceFd(&fd));
    }

    /// Has [`EventHandler::woken`] called soon on the loop's thread; several
    /// calls may become one.
    pub fn wake(&self, id: HandlerId) {
        let mut handlers = self.shared.lock();
        if !handlers.woken.contains(&id.0) {
            handlers.woken.push(id.0);
        }
        drop(handlers);
        self.wake_loop();
    }

    fn wake_loop(&self) {
        // It fails only when the kernel's counter is full, and then the loop
        // is awake anyhow.
        let _ = self.shared.waker.wake();
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
    let mut events = Events::with_capacity(EVENTS_PER_POLL);
    while !shared.stop.load(Ordering::SeqCst) {
        match poll.poll(&mut events, None) {
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
            let handler = shared.lock().by_id.get(&id).cloned();
            if let Some(handler) = handler {
                let closed = event.is_error();
                handler.ready(
                    key,
                    Readiness {
                        readable: event.is_readable() || event.is_read_closed() || closed,
                        writable: event.is_writable() || event.is_write_closed() || closed,
                        write_closed: event.is_write_closed(),
                    },
                );
            }
        }
    }
}

fn run_woken(shared: &Shared) {
    let handlers: Vec<_> = {
        let mut handlers = shared.lock();
        let woken = std::mem::take(&mut handlers.woken);
        let find = |id| handlers.by_id.get(&id).cloned();
        woken.into_iter().filter_map(find).collect()
    };
    for handler in handlers {
        handler.woken();
    }
}

#[cfg(test)]
mod tests;
