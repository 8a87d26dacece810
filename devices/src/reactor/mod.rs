//! Waiting on host files and for moments in time, for devices.
//!
//! A device gets a [`Reactor`] and gives it an [`EventHandler`]. Readiness is
//! edge-triggered: a source is told once that it became ready and must read or
//! write until the operation would block. [`MioReactor`] is one on a thread of
//! its own; a monitor that has an event loop already implements the trait on
//! that.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

#[cfg(feature = "reactor")]
mod mio;

#[cfg(feature = "reactor")]
pub use self::mio::{MioReactor, ReactorCounters};

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
    /// Somebody called [`Reactor::wake`] for this handler.
    fn woken(&self) {}
    /// The moment of [`Reactor::wake_at`] has come.
    fn deadline_passed(&self) {}
}

/// Names a handler within its reactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandlerId(
    /// The reactor's number of it.
    pub u32,
);

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

/// An event loop, as devices see it. All of it may be called from any thread,
/// the loop's own included, and stays harmless after the loop has ended.
pub trait Reactor: Send + Sync {
    /// Adds a handler, which is kept until [`Reactor::remove_handler`] or the
    /// loop's end.
    fn add_handler(&self, handler: Arc<dyn EventHandler>) -> HandlerId;

    /// Forgets a handler. A call that is running on the loop's thread may
    /// still finish after this returns.
    fn remove_handler(&self, id: HandlerId);

    /// Watches a file for reading and writing, edge-triggered, and reports to
    /// handler `id` under `key`. The caller deregisters before closing it.
    fn register(&self, id: HandlerId, key: u32, fd: BorrowedFd<'_>) -> Result<(), ReactorError>;

    /// Stops watching a file.
    fn deregister(&self, fd: BorrowedFd<'_>);

    /// Has [`EventHandler::woken`] called soon; several calls may become one.
    fn wake(&self, id: HandlerId);

    /// Has [`EventHandler::deadline_passed`] called once, as soon as `deadline`
    /// is there. A handler has one deadline: the last one set counts, and
    /// `None` takes it back. Without deadlines a reactor never wakes up to look
    /// at the time.
    fn wake_at(&self, id: HandlerId, deadline: Option<Instant>);
}
