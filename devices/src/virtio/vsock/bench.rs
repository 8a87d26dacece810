//! A device whose socket events are given by hand, for fuzzing.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::{Shared, Vsock, VsockConfig, VsockError};
use crate::Ram;
use crate::reactor::{EventHandler, Reactor, Readiness};

/// The host's side of such a device.
pub(crate) struct Bench {
    shared: Arc<Shared<Ram>>,
}

/// A handler that is not told what really happens.
struct Deaf;

impl EventHandler for Deaf {
    fn ready(&self, _key: u32, _readiness: Readiness) {}
}

impl Vsock<Ram> {
    /// A device without listeners, and the hand on its sockets.
    pub(crate) fn bench(
        guest_cid: u64,
        reactor: Arc<dyn Reactor>,
    ) -> Result<(Self, Bench), VsockError> {
        let config = VsockConfig {
            guest_cid,
            ..VsockConfig::default()
        };
        let mut vsock = Self::new(config, reactor)?;
        // From now on the loop's events go nowhere.
        vsock.reactor.remove_handler(vsock.handler);
        vsock.handler = vsock.reactor.add_handler(Arc::new(Deaf));
        let shared = vsock.shared.clone();
        shared.lock().use_handler(vsock.handler);
        Ok((vsock, Bench { shared }))
    }
}

impl Bench {
    /// A client comes in, for a port or to choose one.
    pub(crate) fn admit(&self, stream: UnixStream, guest_port: Option<u32>) {
        let mut mux = self.shared.lock();
        mux.admit(stream, guest_port);
        mux.process();
    }

    /// Reports the readiness in the low bits of `what` for a slot.
    pub(crate) fn event(&self, slot: u32, what: u8) {
        let mut mux = self.shared.lock();
        let Some(key) = mux.key_of(slot) else { return };
        mux.ready(
            key,
            Readiness {
                readable: what & 1 != 0,
                writable: what & 2 != 0,
                write_closed: what & 4 != 0,
            },
        );
    }

    /// Reports that every socket may be read and written.
    pub(crate) fn event_for_all(&self) {
        for slot in 0..64 {
            self.event(slot, 3);
        }
    }

    /// Panics if the tables disagree with each other.
    pub(crate) fn check(&self) {
        self.shared.lock().check();
    }
}
