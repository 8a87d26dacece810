//! A place in the line, and what one gets at its end.

use crate::PoolError;
use crate::policy::{TicketId, WorkerId};
use crate::shared::Shared;
use crate::sync::thread::{self, Thread};
use crate::worker::{Factory, Worker};
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// A place in the line for a worker. It is a future that needs no particular
/// runtime; dropped, it leaves the line, and a worker already assigned to it
/// goes to the next.
#[must_use = "a dropped ticket leaves the line"]
pub struct Ticket<F: Factory> {
    shared: Arc<Shared<F>>,
    ticket: Option<TicketId>,
}

impl<F: Factory> Ticket<F> {
    pub(crate) fn new(shared: Arc<Shared<F>>, ticket: TicketId) -> Self {
        Self {
            shared,
            ticket: Some(ticket),
        }
    }

    /// Blocks the thread until there is an answer.
    ///
    /// # Errors
    /// See [`crate::Pool::acquire`].
    pub fn wait(self) -> Result<Lease<F>, PoolError> {
        let mut ticket = pin!(self);
        // An idle worker is there at once, without a waker to be made.
        let none = &mut Context::from_waker(Waker::noop());
        if let Poll::Ready(answer) = ticket.as_mut().poll(none) {
            return answer;
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(answer) = ticket.as_mut().poll(&mut context) {
                return answer;
            }
            thread::park();
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<F: Factory> Future for Ticket<F> {
    type Output = Result<Lease<F>, PoolError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticket) = self.ticket else {
            return Poll::Ready(Err(PoolError::Closed));
        };
        let Some(answer) = self.shared.poll(ticket, context.waker()) else {
            return Poll::Pending;
        };
        self.ticket = None;
        Poll::Ready(answer.map(|(id, worker)| Lease {
            shared: Arc::clone(&self.shared),
            id,
            worker,
            discard: false,
        }))
    }
}

impl<F: Factory> Drop for Ticket<F> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.forget(ticket);
        }
    }
}

impl<F: Factory> fmt::Debug for Ticket<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ticket").field(&self.ticket).finish()
    }
}

/// A worker that nobody else has. Dropped, it goes back to the pool.
pub struct Lease<F: Factory> {
    shared: Arc<Shared<F>>,
    id: WorkerId,
    worker: Arc<F::Worker>,
    discard: bool,
}

impl<F: Factory> Lease<F> {
    /// Which worker it is: no two of a pool have the same.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Ends the worker instead of giving it back.
    pub fn discard(mut self) {
        self.discard = true;
    }
}

impl<F: Factory> Deref for Lease<F> {
    type Target = F::Worker;

    fn deref(&self) -> &F::Worker {
        &self.worker
    }
}

impl<F: Factory> Drop for Lease<F> {
    fn drop(&mut self) {
        let usable = !self.discard && self.worker.is_alive();
        self.shared.release(self.id, usable);
    }
}

impl<F: Factory> fmt::Debug for Lease<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.id).finish()
    }
}
