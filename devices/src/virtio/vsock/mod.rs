//! Socket device (virtio 1.2 §5.10) whose host side is Unix sockets.
//!
//! Three ways connect the two sides:
//! - a [`VsockListener`] bridges every client of its socket to one guest port;
//! - a client of the mux socket writes `CONNECT <port>\n` and reads
//!   `OK <host port>\n` once the guest accepted; if the guest refuses, the
//!   client's connection is closed;
//! - a guest that connects to the host (context id 2) on port P reaches the
//!   Unix socket at `<stem>_<P>`, or gets a reset. Where P is one of
//!   [`VsockConfig::privileged_ports`], a reset is all that a guest port above
//!   [`LAST_PRIVILEGED_PORT`] gets.
//!
//! Clients that come before the guest's driver is ready wait in the listening
//! sockets' backlogs (128 each). At most [`MAX_CONNECTIONS`] exist at a time,
//! each holding at most 256 KiB for a slow reader, all together at most
//! [`MAX_BUFFERED_BYTES`]. [`RESERVED_CONNECTIONS`] of them are kept for what
//! the host opens and for privileged ports.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_queue::{Queue, QueueState, QueueT};

use self::mux::Mux;
use self::socket::Listener;
use super::state::StateFields;
use super::{
    ActivateError, Activation, DeviceState, F_RING_EVENT_IDX, F_RING_INDIRECT_DESC, F_VERSION_1,
    RestoreError, SavedState, StateFormat, VirtioDevice, read_config_space,
};
use crate::reactor::{EventHandler, HandlerId, Reactor, ReactorError, Readiness};
use crate::{DeviceMemory, Ram};

#[cfg(any(all(test, feature = "default"), feature = "fuzzing"))]
mod bench;
mod connection;
mod credit;
mod host;
mod mux;
mod packet;
mod queues;
mod socket;

#[cfg(any(all(test, feature = "default"), feature = "fuzzing"))]
pub(crate) use bench::Bench;
pub use mux::{MAX_BUFFERED_BYTES, MAX_CONNECTIONS, RESERVED_CONNECTIONS};

/// Device type of a socket device.
const DEVICE_ID: u32 = 19;
/// Receive, transmit and event queue (virtio 1.2 §5.10.2).
const QUEUE_SIZES: [u16; 3] = [64, 256, 16];
/// First context id a guest may have (virtio 1.2 §5.10.4).
const MIN_GUEST_CID: u64 = 3;

/// Last port that a guest gives only to processes which may have it: Linux asks
/// for `CAP_NET_BIND_SERVICE` in the first user namespace (`LAST_RESERVED_PORT`
/// of `net/vmw_vsock/af_vsock.c`), and gives no such port unasked.
pub const LAST_PRIVILEGED_PORT: u32 = 1023;

/// Where clients of the host come in.
#[derive(Debug, Clone)]
pub enum VsockSocket {
    /// A path to listen at, which must not exist. It is removed with the device.
    Path(PathBuf),
    /// A socket that listens already. Its path is left to whoever made it, with
    /// [`VsockSocket::listen`] or in another way: a backlog longer than that gives is
    /// not emptied by a reset.
    Open(Arc<UnixListener>),
}

impl PartialEq for VsockSocket {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Path(one), Self::Path(other)) => one == other,
            (Self::Open(one), Self::Open(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for VsockSocket {}

impl<P: Into<PathBuf>> From<P> for VsockSocket {
    fn from(path: P) -> Self {
        Self::Path(path.into())
    }
}

/// A socket whose clients are bridged to one port of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockListener {
    /// Where they come in.
    pub socket: VsockSocket,
    /// Guest port every client is connected to.
    pub guest_port: u32,
}

/// What a socket device is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VsockConfig {
    /// The guest's context id: at least 3, below 2³² − 1.
    pub guest_cid: u64,
    /// Socket on which clients choose the guest port.
    pub mux: Option<VsockSocket>,
    /// The guest reaches the sockets whose paths are this one, `_` and a port, and
    /// none without it.
    pub stem: Option<PathBuf>,
    /// Sockets bound to one guest port each.
    pub listeners: Vec<VsockListener>,
    /// Host ports that only a privileged process of the guest may reach: one
    /// whose own port is at most [`LAST_PRIVILEGED_PORT`]. All others get a
    /// reset before anything of the host is touched.
    pub privileged_ports: Vec<u32>,
}

/// Why a socket device could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VsockError {
    /// The context id is reserved.
    #[error("guest context id {0} is reserved")]
    BadCid(u64),
    /// A path cannot be listened on.
    #[error("could not listen on {}", path.display())]
    Bind {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A socket that was given cannot be used.
    #[error("could not use a socket that was given")]
    Socket(#[source] std::io::Error),
    /// The event loop does not take the sockets.
    #[error("could not watch the sockets")]
    Reactor(#[source] ReactorError),
}

/// Saved state of a [`Vsock`]. Connections are not part of it: they end with
/// the machine, and the restored guest is told so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockState {
    /// The guest's context id.
    pub guest_cid: u64,
    /// Port of the next connection that starts on the host. It goes on where
    /// it was, so that what the guest still sends to an old connection does
    /// not meet a new one.
    pub next_host_port: u32,
    /// The guest has been told of a reset and has not acknowledged it: it
    /// will have once its event queue's available index gets here.
    pub reset_acknowledged_at: Option<u16>,
    /// Host and guest ports of what the guest is owed a reset for, at most
    /// [`MAX_CONNECTIONS`]: its own calls on which it has said nothing yet, and
    /// packets that met no connection. Being told that all connections are gone
    /// does not end a call for which it still waits.
    pub owed_resets: Vec<(u32, u32)>,
}

impl DeviceState for VsockState {
    const FORMAT: StateFormat = StateFormat {
        kind: "vsock",
        version: 2,
    };

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.guest_cid.to_le_bytes().to_vec();
        bytes.extend(self.next_host_port.to_le_bytes());
        bytes.push(self.reset_acknowledged_at.is_some().into());
        bytes.extend(self.reset_acknowledged_at.unwrap_or(0).to_le_bytes());
        for (host_port, guest_port) in &self.owed_resets {
            bytes.extend(host_port.to_le_bytes());
            bytes.extend(guest_port.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = StateFields::new(bytes);
        let (guest_cid, next_host_port) = (fields.u64()?, fields.u32()?);
        let (told, index) = (fields.bool()?, fields.u16()?);
        let (numbers, []) = fields.rest().as_chunks() else {
            return None;
        };
        let (owed, []) = numbers.as_chunks() else {
            return None;
        };
        let ports = owed.iter().map(|pair: &[[u8; 4]; 2]| {
            let [host_port, guest_port] = pair.map(u32::from_le_bytes);
            (host_port, guest_port)
        });
        (owed.len() <= MAX_CONNECTIONS).then(|| Self {
            guest_cid,
            next_host_port,
            reset_acknowledged_at: told.then_some(index),
            owed_resets: ports.collect(),
        })
    }
}

/// A socket device.
pub struct Vsock<M: DeviceMemory = Ram> {
    guest_cid: u64,
    shared: Arc<Shared<M>>,
    reactor: Arc<dyn Reactor>,
    handler: HandlerId,
}

struct Shared<M> {
    mux: Mutex<Mux<M>>,
}

impl<M: DeviceMemory> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, Mux<M>> {
        self.mux.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: DeviceMemory> EventHandler for Shared<M> {
    fn ready(&self, key: u32, readiness: Readiness) {
        self.lock().ready(key, readiness);
    }

    fn woken(&self) {
        self.lock().start();
    }

    fn deadline_passed(&self) {
        self.lock().tell();
    }
}

impl<M: DeviceMemory> Vsock<M> {
    /// A device that listens from now on and serves its sockets on
    /// `reactor`'s thread.
    pub fn new(config: VsockConfig, reactor: Arc<dyn Reactor>) -> Result<Self, VsockError> {
        let guest_cid = config.guest_cid;
        if !(MIN_GUEST_CID..u64::from(u32::MAX)).contains(&guest_cid) {
            return Err(VsockError::BadCid(guest_cid));
        }
        let mut listeners = Vec::with_capacity(config.listeners.len() + 1);
        for VsockListener { socket, guest_port } in &config.listeners {
            listeners.push((Listener::new(socket)?, Some(*guest_port)));
        }
        if let Some(socket) = &config.mux {
            listeners.push((Listener::new(socket)?, None));
        }
        let shared = Arc::new(Shared {
            mux: Mutex::new(Mux::new(config, reactor.clone())),
        });
        let handler = reactor.add_handler(shared.clone());
        // From here on the drop of `vsock` undoes everything.
        let vsock = Self {
            guest_cid,
            shared,
            reactor,
            handler,
        };
        vsock
            .shared
            .lock()
            .listen(handler, listeners)
            .map_err(VsockError::Reactor)?;
        Ok(vsock)
    }

    /// Connections there are right now, those still being set up included.
    pub fn connection_count(&self) -> usize {
        self.shared.lock().connection_count()
    }
}

impl<M: DeviceMemory> Drop for Vsock<M> {
    fn drop(&mut self) {
        self.reactor.remove_handler(self.handler);
        self.shared.lock().close();
    }
}

impl<M: DeviceMemory> VirtioDevice<M> for Vsock<M> {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        F_VERSION_1 | F_RING_EVENT_IDX | F_RING_INDIRECT_DESC
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.guest_cid.to_le_bytes(), offset, data);
    }

    fn activate(&self, activation: Activation<M>) -> Result<(), ActivateError> {
        // Receive and transmit are needed; a driver may go without events.
        for (index, queue) in (0u16..).zip(&activation.queues).take(2) {
            if !queue.ready() {
                return Err(ActivateError::QueueNotReady(index));
            }
        }
        self.shared.lock().activate(activation);
        // Waiting clients are accepted on the loop's thread, not this vCPU's.
        self.reactor.wake(self.handler);
        Ok(())
    }

    fn reset(&self) -> Vec<Queue> {
        self.shared.lock().reset()
    }

    fn pause(&self) {
        self.shared.lock().pause();
    }

    fn resume(&self) {
        self.shared.lock().resume();
        self.reactor.wake(self.handler);
    }

    fn notify(&self, _queue: u16) {
        self.shared.lock().process();
    }

    fn queue_states(&self) -> Vec<QueueState> {
        self.shared.lock().queue_states()
    }

    fn state_format(&self) -> StateFormat {
        VsockState::FORMAT
    }

    fn state(&self) -> SavedState {
        SavedState::of(&self.shared.lock().state())
    }

    fn restore(&self, state: &SavedState) -> Result<(), RestoreError> {
        let state: VsockState = state.read()?;
        if state.guest_cid != self.guest_cid {
            return Err(RestoreError::Invalid("guest_cid"));
        }
        self.shared.lock().restore(&state)
    }
}

#[cfg(all(test, feature = "default"))]
mod tests;
