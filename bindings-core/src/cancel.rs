//! Calls that somebody may not want any more.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use supermachine::async_::ExecStop;
use tokio::sync::watch;

use crate::{BindingError, Result};

/// Ends the calls that were made with it. Clones are the same.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    is_cancelled: watch::Sender<bool>,
    stops: Mutex<Stops>,
}

/// Commands that end with it.
#[derive(Debug, Default)]
struct Stops {
    next: u64,
    all: BTreeMap<u64, ExecStop>,
}

/// Has a command end with a [`Cancel`] for as long as this is there.
#[derive(Debug)]
pub(crate) struct Hook {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.shared.stops().all.remove(&self.number);
    }
}

impl Shared {
    fn stops(&self) -> MutexGuard<'_, Stops> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self(Arc::new(Shared {
            is_cancelled: watch::channel(false).0,
            stops: Mutex::default(),
        }))
    }
}

impl Cancel {
    /// One that nothing has been made with.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends all calls, those of later included.
    pub fn cancel(&self) {
        self.0.is_cancelled.send_replace(true);
        // Outside of the lock, which who is stopped wants.
        let all = std::mem::take(&mut self.0.stops().all);
        for stop in all.values() {
            stop.stop();
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        *self.0.is_cancelled.borrow()
    }

    /// Has a command end with this.
    pub(crate) fn stops(&self, stop: ExecStop) -> Hook {
        let mut stops = self.0.stops();
        let number = stops.next;
        stops.next += 1;
        stops.all.insert(number, stop.clone());
        drop(stops);
        // Whoever cancelled before that did not see it.
        if self.is_cancelled() {
            stop.stop();
        }
        Hook {
            shared: self.0.clone(),
            number,
        }
    }

    /// What `call` gives, unless it is cancelled before.
    ///
    /// # Errors
    /// [`BindingError::aborted`], or what `call` says.
    pub async fn or<T>(
        cancel: Option<Self>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let Some(cancel) = cancel else {
            return call.await;
        };
        let mut wanted = cancel.0.is_cancelled.subscribe();
        let aborted = async move {
            // The sender lives as long as `cancel`.
            let _ = wanted.wait_for(|is_cancelled| *is_cancelled).await;
        };
        tokio::select! {
            biased;
            () = aborted => Err(BindingError::aborted()),
            result = call => result,
        }
    }

    /// What `call` gives, unless it is cancelled before; it goes on to its end then, for
    /// nobody.
    ///
    /// # Errors
    /// As [`Cancel::or`].
    pub async fn or_go_on<T: Send + 'static>(
        cancel: Option<Self>,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        if cancel.is_none() {
            return call.await;
        }
        let task = tokio::spawn(call);
        // The runtime is shutting down, if a task has no result.
        let ended = async move { task.await.map_err(|_| BindingError::aborted())? };
        Self::or(cancel, ended).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_end_when_they_are_cancelled_before_or_meanwhile() {
        let cancel = Cancel::new();
        assert_eq!(
            Cancel::or(Some(cancel.clone()), async { Ok(1) }).await,
            Ok(1)
        );
        let waits = Cancel::or::<()>(Some(cancel.clone()), std::future::pending());
        let other = cancel.clone();
        let task = tokio::spawn(async move { other.cancel() });
        assert_eq!(waits.await, Err(BindingError::aborted()));
        task.await.unwrap();
        let late = Cancel::or(Some(cancel), async { Ok(1) });
        assert_eq!(late.await, Err(BindingError::aborted()));
        assert_eq!(Cancel::or(None, async { Ok(2) }).await, Ok(2));
    }
}
