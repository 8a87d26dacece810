//! A ring as its client describes it, and the events that go both ways.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use devices::virtio::Interrupt;
use devices::virtio::chain::QueueError;
use rustix::fs::OFlags;
use vhost::vhost_user::{Error, Result};
use virtio_queue::{Queue, QueueT};

use crate::memory::Regions;

/// Most entries of a ring.
pub const MAX_ENTRIES: u16 = 1024;

/// Descriptor table, used ring and available ring, where the client has them.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub descriptors: u64,
    pub used: u64,
    pub available: u64,
}

/// What the client has said of a ring.
#[derive(Debug, Default)]
pub struct Ring {
    pub entries: u16,
    pub addresses: Option<Addresses>,
    /// The next entry of the available ring to look at.
    pub next_available: u16,
    /// By which the client says that there are new ones. The ring is started as long as
    /// it is there.
    pub kick: Option<Arc<File>>,
    pub is_enabled: bool,
}

impl Ring {
    /// Whether the device works on it.
    pub fn is_live(&self) -> bool {
        self.is_enabled && self.kick.is_some() && self.entries > 0 && self.addresses.is_some()
    }

    /// The ring for the device: one that it leaves alone if it is not live.
    pub fn queue(&self, regions: &Regions, has_event_index: bool) -> Result<Queue> {
        let mut queue = Queue::new(MAX_ENTRIES).map_err(|_| Error::BackendInternalError)?;
        let Some(at) = self.addresses.filter(|_| self.is_live()) else {
            return Ok(queue);
        };
        let places = [at.descriptors, at.available, at.used];
        let [Some(descriptors), Some(available), Some(used)] =
            places.map(|client| regions.to_guest(client))
        else {
            return Err(Error::InvalidParam);
        };
        let memory = &**regions.memory();
        queue
            .try_set_size(self.entries)
            .and_then(|()| queue.try_set_desc_table_address(descriptors))
            .and_then(|()| queue.try_set_avail_ring_address(available))
            .and_then(|()| queue.try_set_used_ring_address(used))
            .map_err(|_| Error::InvalidParam)?;
        queue.set_event_idx(has_event_index);
        queue.set_ready(true);
        if !queue.is_valid(memory) {
            return Err(Error::InvalidParam);
        }
        // The client says the one position, and the other is in the ring.
        let used = queue.used_idx(memory, Ordering::Acquire);
        queue.set_next_used(used.map_err(|_| Error::InvalidParam)?.0);
        queue.set_next_avail(self.next_available);
        Ok(queue)
    }
}

/// Takes a descriptor for events: an `eventfd`, or something else that is no file of
/// any file system, which never keeps a reader waiting.
pub fn event(file: File) -> Result<File> {
    let failed = |error: rustix::io::Errno| Error::ReqHandlerError(error.into());
    let mode = rustix::fs::fstat(&file).map_err(failed)?.st_mode;
    if mode & 0o170_000 != 0 {
        return Err(Error::InvalidParam);
    }
    let flags = rustix::fs::fcntl_getfl(&file).map_err(failed)?;
    rustix::fs::fcntl_setfl(&file, flags | OFlags::NONBLOCK).map_err(failed)?;
    Ok(file)
}

/// Takes what was signalled; false if nothing can come of it any more.
pub fn drain(mut event: &File) -> bool {
    match event.read(&mut [0; 8]) {
        Ok(bytes) => bytes > 0,
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

/// How the device tells the client's guest of what it has done.
#[derive(Debug)]
pub struct Calls {
    rings: Vec<Mutex<Ends>>,
}

#[derive(Debug, Default)]
struct Ends {
    call: Option<File>,
    error: Option<File>,
}

impl Calls {
    pub fn new(rings: usize) -> Self {
        Self {
            rings: (0..rings).map(|_| Mutex::default()).collect(),
        }
    }

    fn with(&self, ring: usize, act: impl FnOnce(&mut Ends)) {
        if let Some(ends) = self.rings.get(ring) {
            act(&mut ends.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// By what the guest hears of a ring.
    pub fn set_call(&self, ring: usize, call: Option<File>) {
        self.with(ring, |ends| ends.call = call);
    }

    /// By what the client hears that a ring is broken.
    pub fn set_error(&self, ring: usize, error: Option<File>) {
        self.with(ring, |ends| ends.error = error);
    }
}

/// One that is full has been signalled.
fn signal(event: Option<&File>) {
    if let Some(mut event) = event {
        let _ = event.write(&1u64.to_ne_bytes());
    }
}

impl Interrupt for Calls {
    fn used_buffers(&self, queue: u16) {
        self.with(queue.into(), |ends| signal(ends.call.as_ref()));
    }

    /// vhost-user has no word for it; the configuration space is the client's.
    fn config_changed(&self) {}

    /// The file system answers on threads of its own, and leaves nothing.
    fn work_left(&self, _queue: u16) {}

    fn needs_reset(&self, mistake: &QueueError) {
        eprintln!("supermachine-fsd: the guest broke a ring, which is left alone: {mistake}");
        for ring in 0..self.rings.len() {
            self.with(ring, |ends| signal(ends.error.as_ref()));
        }
    }
}
