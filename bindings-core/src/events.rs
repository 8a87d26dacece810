//! What happens to a machine, one event after the other.

use supermachine::{VmEvent, VmEvents};
use tokio::sync::Mutex;

use crate::{Cancel, Result};

/// The events of one machine. Dropped or closed, it ends.
#[derive(Debug)]
pub struct Events {
    events: Mutex<Option<VmEvents>>,
    closed: Cancel,
    scope: Cancel,
}

impl Events {
    pub(crate) fn new(events: VmEvents, scope: Cancel) -> Self {
        Self {
            events: Mutex::new(Some(events)),
            closed: Cancel::new(),
            scope,
        }
    }

    /// Waits for the next event; none if there will be no more. A call that is given up
    /// has taken none.
    ///
    /// # Errors
    /// That the scope of its machine has ended.
    pub async fn next(&self) -> Result<Option<VmEvent>> {
        let event = async {
            let mut events = self.events.lock().await;
            Ok(match events.as_mut() {
                Some(events) => events.next_event().await,
                None => None,
            })
        };
        let event = Cancel::or(Some(self.closed.clone()), event);
        match Cancel::or(Some(self.scope.clone()), event).await {
            // Whoever waits while it is closed is told that there is no more.
            Err(_) if self.closed.is_cancelled() => Ok(None),
            event => event,
        }
    }

    /// Has it end, also for whoever waits. Again is no mistake.
    pub async fn close(&self) {
        self.closed.cancel();
        drop(self.events.lock().await.take());
    }
}
