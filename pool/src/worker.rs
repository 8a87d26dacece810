//! What a pool needs of its workers.

use crate::Failure;

/// Something that can be used by one at a time and brought back to its
/// beginning: a process with a virtual machine.
///
/// The pool calls [`Worker::restore`] and [`Worker::reset`] on threads of its
/// own, never two of them at once for one worker, and [`Worker::kill`] at any
/// time from any thread.
pub trait Worker: Send + Sync + 'static {
    /// Makes a started worker usable. May block.
    ///
    /// # Errors
    /// When the worker is of no use; it is killed then.
    fn restore(&self) -> Result<(), Failure>;

    /// Brings a used worker back to what it was after [`Worker::restore`]. May
    /// block.
    ///
    /// # Errors
    /// When the worker is of no use; it is killed then.
    fn reset(&self) -> Result<(), Failure>;

    /// Ends the worker, without waiting for it. What blocks in a method of the
    /// worker must come back soon after, with an error.
    fn kill(&self);

    /// Whether the worker lives, as far as is known without waiting. Asked on
    /// each acquire.
    fn is_alive(&self) -> bool;

    /// Memory that would be free without this worker, in bytes; 0 if unknown.
    fn memory_bytes(&self) -> u64;
}

/// Starts workers.
pub trait Factory: Send + Sync + 'static {
    /// What is started.
    type Worker: Worker;

    /// Starts a worker. May block, and must come back at some time: one that
    /// comes after the pool's spawn timeout is killed at once.
    ///
    /// # Errors
    /// With the reason, and the last lines of the worker's log if there are any.
    fn spawn(&self) -> Result<Self::Worker, Failure>;
}
