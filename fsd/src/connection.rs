//! A client's connection: its messages, and the events of its rings, on one thread.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use vhost::vhost_user::{BackendReqHandler, Error};

use crate::front::{Front, RINGS};

/// What the connection's own events are marked with; those of rings have their numbers.
const MESSAGES: u32 = u32::MAX;

/// Why a client was given up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The client said what it must not, or the host could not do it.
    #[error("the client was given up: start it again; if it comes back, it does not fit")]
    Client(#[source] Error),
    /// The host has no events to give, or the client's cannot be waited for.
    #[error("cannot wait for the client's events")]
    Events(#[source] event_manager::Error),
}

struct Connection {
    messages: BackendReqHandler<Mutex<Front>>,
    socket: RawFd,
    front: Arc<Mutex<Front>>,
    /// The events that are waited for.
    kicks: Vec<Option<Arc<File>>>,
    outcome: Option<Result<(), ServeError>>,
}

/// Serves a client until it goes away.
///
/// # Errors
/// [`ServeError`], after which the client is gone as well.
pub fn serve(client: UnixStream, front: Front) -> Result<(), ServeError> {
    let front = Arc::new(Mutex::new(front));
    let connection = Connection {
        socket: client.as_raw_fd(),
        messages: BackendReqHandler::from_stream(client, front.clone()),
        front,
        kicks: vec![None; RINGS],
        outcome: None,
    };
    let mut events = EventManager::new().map_err(ServeError::Events)?;
    let id = events.add_subscriber(connection);
    loop {
        let connection = events.subscriber_mut(id).map_err(ServeError::Events)?;
        if let Some(outcome) = connection.outcome.take() {
            return outcome;
        }
        events.run().map_err(ServeError::Events)?;
    }
}

impl Connection {
    fn front(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn message(&mut self) -> Result<(), Error> {
        match self.messages.handle_request() {
            Err(Error::SocketRetry(_)) => Ok(()),
            handled => handled,
        }
    }

    /// Waits for the events of the rings that are live now.
    fn follow(&mut self, ops: &mut EventOps<'_>) -> event_manager::Result<()> {
        let now: Vec<_> = self.front().kicks().map(|kick| kick.cloned()).collect();
        for (index, (kick, now)) in (0..).zip(self.kicks.iter_mut().zip(now)) {
            let is_same = match (&*kick, &now) {
                (Some(kick), Some(now)) => Arc::ptr_eq(kick, now),
                (None, None) => true,
                _ => false,
            };
            if is_same {
                continue;
            }
            if let Some(old) = kick.take() {
                ops.remove(Events::empty(&*old))?;
            }
            if let Some(new) = now {
                ops.add(Events::with_data(&*new, index, EventSet::IN))?;
                *kick = Some(new);
            }
        }
        Ok(())
    }
}

/// Whether a client that is no longer there has just gone.
fn has_gone(error: &Error) -> bool {
    matches!(
        error,
        Error::Disconnected | Error::PartialMessage | Error::SocketBroken(_)
    )
}

impl MutEventSubscriber for Connection {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if self.outcome.is_some() {
            return;
        }
        let done = match events.data() {
            MESSAGES => self.message(),
            ring => {
                let ring = usize::try_from(ring).unwrap_or(usize::MAX);
                self.front().kicked(ring)
            }
        };
        let done = match done {
            Err(error) if has_gone(&error) => {
                self.outcome = Some(Ok(()));
                return;
            }
            done => done.map_err(ServeError::Client),
        };
        let followed = done.and_then(|()| self.follow(ops).map_err(ServeError::Events));
        if let Err(error) = followed {
            self.outcome = Some(Err(error));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let events = Events::with_data_raw(self.socket, MESSAGES, EventSet::IN);
        if let Err(error) = ops.add(events) {
            self.outcome = Some(Err(ServeError::Events(error)));
        }
    }
}
