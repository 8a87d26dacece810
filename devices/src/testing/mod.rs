//! Fakes for the seams and the driver's side of virtio, for tests of these
//! devices and of whoever embeds them. Panics on misuse, as tests want.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vm_memory::GuestAddress;

use crate::{Clock, GuestRam, HotMemory, IrqLine, Ram, RamAdvisor};

mod driver;
mod memory;
#[cfg(feature = "fs")]
mod window;

pub use driver::{Buffer, Driver, DriverQueue};
pub use memory::{ProbedMemory, ProbedRegion};
#[cfg(feature = "fs")]
pub use window::RecordingWindow;

/// Guest RAM of `len` bytes at address 0.
pub fn guest_ram(len: usize) -> GuestRam {
    memory_at(0, len)
}

/// Memory of `len` bytes at a guest physical address.
pub fn memory_at(address: u64, len: usize) -> GuestRam {
    let ram = Ram::from_ranges(&[(GuestAddress(address), len)]);
    Arc::new(ram.expect("test memory can be mapped"))
}

/// An interrupt line that remembers what was done to it.
#[derive(Debug, Default)]
pub struct CountingIrq {
    level: AtomicBool,
    changes: AtomicUsize,
    pulses: Mutex<usize>,
    pulsed: Condvar,
}

impl CountingIrq {
    /// Edges signalled so far.
    pub fn pulses(&self) -> usize {
        *self.pulses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The level last driven.
    pub fn level(&self) -> bool {
        self.level.load(Ordering::SeqCst)
    }

    /// How often a level was driven.
    pub fn level_calls(&self) -> usize {
        self.changes.load(Ordering::SeqCst)
    }

    /// Waits until there were more than `seen` edges, at most `timeout`;
    /// returns how many there were.
    pub fn wait_beyond(&self, seen: usize, timeout: Duration) -> usize {
        let deadline = Instant::now() + timeout;
        let mut pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        while *pulses <= seen {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            pulses = self
                .pulsed
                .wait_timeout(pulses, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *pulses
    }
}

impl IrqLine for CountingIrq {
    fn set_level(&self, high: bool) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.level.store(high, Ordering::SeqCst);
    }

    fn pulse(&self) {
        *self.pulses.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.pulsed.notify_all();
    }
}

/// Host memory that remembers what was discarded, plugged and unplugged, each
/// as an address and a number of bytes.
#[derive(Debug)]
pub struct RecordingMemory {
    /// The page size it claims.
    pub page_bytes: u64,
    /// Whether there is memory to plug.
    pub has_room: AtomicBool,
    /// What was discarded, in order.
    pub discarded: Mutex<Vec<(u64, u64)>>,
    /// What was plugged, in order.
    pub plugged: Mutex<Vec<(u64, u64)>>,
    /// What was unplugged, in order.
    pub unplugged: Mutex<Vec<(u64, u64)>>,
}

impl RecordingMemory {
    /// Memory in pages of `page_bytes`, with room.
    pub fn new(page_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            page_bytes,
            has_room: AtomicBool::new(true),
            discarded: Mutex::default(),
            plugged: Mutex::default(),
            unplugged: Mutex::default(),
        })
    }
}

fn record(list: &Mutex<Vec<(u64, u64)>>, range: (u64, u64)) {
    list.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(range);
}

impl RamAdvisor for RecordingMemory {
    fn page_bytes(&self) -> u64 {
        self.page_bytes
    }

    fn discard(&self, address: u64, bytes: u64) {
        record(&self.discarded, (address, bytes));
    }
}

impl HotMemory for RecordingMemory {
    fn plug(&self, address: u64, bytes: u64) -> bool {
        let has_room = self.has_room.load(Ordering::SeqCst);
        if has_room {
            record(&self.plugged, (address, bytes));
        }
        has_room
    }

    fn unplug(&self, address: u64, bytes: u64) {
        record(&self.unplugged, (address, bytes));
    }
}

/// A clock that shows what the test says.
#[derive(Debug, Default)]
pub struct FixedClock(AtomicU64);

impl FixedClock {
    /// A clock at `seconds` since the Unix epoch.
    pub fn new(seconds: u64) -> Self {
        Self(AtomicU64::new(seconds))
    }

    /// Moves the clock.
    pub fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for FixedClock {
    fn now_unix_seconds(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
