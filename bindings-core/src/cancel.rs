//! Calls that somebody may not want any more.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

use crate::{BindingError, Result};

/// Ends the calls that were made with it. Clones are the same.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<watch::Sender<bool>>);

impl Default for Cancel {
    fn default() -> Self {
        Self(Arc::new(watch::channel(false).0))
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
        self.0.send_replace(true);
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
        let mut wanted = cancel.0.subscribe();
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
