//! Ending what waits for a network when somebody cancels.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use supermachine_oci_bake::Cancel;

use crate::network::Network;

/// How long it may take to notice.
const PERIOD: Duration = Duration::from_millis(100);

/// Looks at some [`Cancel`] as long as it lives, and ends all connections once that is
/// asked for: a read of a network knows nothing of it.
pub(crate) struct Watch {
    /// Dropped to end the thread.
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn new(network: &Arc<Network>, other: &Cancel) -> Self {
        let (alive, ended) = mpsc::channel();
        let (network, other) = (Arc::clone(network), other.clone());
        let watch = move || {
            let own = &network.config().cancel;
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                if own.is_cancelled() || other.is_cancelled() {
                    network.shut_down();
                    return;
                }
            }
        };
        // Without a thread it takes as long as the network is waited for.
        let thread = std::thread::Builder::new()
            .name("pull-watch".into())
            .spawn(watch);
        Self {
            alive: Some(alive),
            thread: thread.ok(),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.alive = None;
        if let Some(thread) = self.thread.take() {
            // It cannot panic; there would be nothing to do about it.
            let _ = thread.join();
        }
    }
}
