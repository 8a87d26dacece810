//! A virtio driver: registers and queues as a guest would use them.
//!
//! `virtio-queue`'s mock wipes its rings each time it is created over them and
//! lays them out overlapping, so it cannot play a driver that goes on; the
//! rings are written here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::CountingIrq;
use crate::virtio::mmio::{VirtioMmio, status};
use crate::virtio::{F_RING_EVENT_IDX, F_VERSION_1};
use crate::{DeviceMemory, GuestRam, MmioDevice, Ram};

/// Descriptor flag: the chain goes on (virtio 1.2 §2.7.5).
const NEXT: u16 = 1;
/// Descriptor flag: the device writes.
const WRITE: u16 = 2;
/// Descriptor flag: it points to a table of descriptors.
const INDIRECT: u16 = 4;
/// How long the driver waits for the device before it calls a test failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// One descriptor of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// The device reads these bytes.
    Readable {
        /// Guest physical address.
        addr: u64,
        /// Length in bytes.
        len: u32,
    },
    /// The device may write these bytes.
    Writable {
        /// Guest physical address.
        addr: u64,
        /// Length in bytes.
        len: u32,
    },
}

/// The driver's side of one split virtqueue. A clone is what a machine that is
/// put back to an earlier moment, RAM included, remembers of it.
#[derive(Clone)]
pub struct DriverQueue {
    ram: GuestRam,
    base: u64,
    size: u16,
    free: Vec<u16>,
    /// Descriptors of each chain in flight, by head.
    chains: Vec<Vec<u16>>,
    next_used: u16,
}

impl DriverQueue {
    /// A queue of `size` entries whose rings start at `base`, a multiple of
    /// 4096, and take at most [`DriverQueue::RING_BYTES`], which are wiped.
    pub fn new(ram: GuestRam, base: u64, size: u16) -> Self {
        let zeroes = vec![0; 0x4000];
        ram.write_slice(&zeroes, GuestAddress(base))
            .expect("rings are in guest memory");
        Self {
            ram,
            base,
            size,
            free: (0..size).rev().collect(),
            chains: vec![Vec::new(); usize::from(size)],
            next_used: 0,
        }
    }

    /// Room to leave for the rings of one queue of up to 256 entries.
    pub const RING_BYTES: u64 = 0x4000;

    /// Addresses of descriptor table, available ring and used ring.
    pub fn addresses(&self) -> [u64; 3] {
        [self.base, self.base + 0x1000, self.base + 0x2000]
    }

    fn get<T: ByteValued>(&self, addr: u64) -> T {
        let value = self.ram.read_obj(GuestAddress(addr));
        value.expect("ring is in guest memory")
    }

    fn put<T: ByteValued>(&self, addr: u64, value: T) {
        let outcome = self.ram.write_obj(value, GuestAddress(addr));
        outcome.expect("ring is in guest memory");
    }

    fn load_index(&self, addr: u64) -> u16 {
        let value = self.ram.load(GuestAddress(addr), Ordering::Acquire);
        u16::from_le(value.expect("ring is in guest memory"))
    }

    /// The memory the rings are in.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Descriptors not in use.
    pub fn free_descriptors(&self) -> usize {
        self.free.len()
    }

    /// The descriptors that the next chain of so many takes, in its order.
    pub fn next_descriptors(&self, count: usize) -> Vec<u16> {
        self.free.iter().rev().take(count).copied().collect()
    }

    /// Makes a chain available; returns its head.
    pub fn push(&mut self, buffers: &[Buffer]) -> u16 {
        assert!(!buffers.is_empty() && buffers.len() <= self.free.len());
        let indices: Vec<u16> = buffers.iter().filter_map(|_| self.free.pop()).collect();
        for (position, buffer) in buffers.iter().enumerate() {
            let (addr, len, write) = match *buffer {
                Buffer::Readable { addr, len } => (addr, len, 0),
                Buffer::Writable { addr, len } => (addr, len, WRITE),
            };
            let (next, flags) = match indices.get(position + 1) {
                Some(&next) => (next, write | NEXT),
                None => (0, write),
            };
            self.set_descriptor(indices[position], addr, len, flags, next);
        }
        let head = indices[0];
        self.make_available(head);
        self.chains[usize::from(head)] = indices;
        head
    }

    /// Makes a chain available whose descriptors are in a table of their own,
    /// which is written to `table`; returns its head.
    pub fn push_indirect(&mut self, table: u64, buffers: &[Buffer]) -> u16 {
        let last = buffers.len() - 1;
        for (n, buffer) in (0..).zip(buffers) {
            let (addr, len, write) = match *buffer {
                Buffer::Readable { addr, len } => (addr, len, 0),
                Buffer::Writable { addr, len } => (addr, len, WRITE),
            };
            let (flags, next) = match usize::from(n) < last {
                true => (write | NEXT, n + 1),
                false => (write, 0),
            };
            self.write_descriptor(table + 16 * u64::from(n), addr, len, flags, next);
        }
        let bytes = u32::try_from(16 * buffers.len()).expect("a table is short");
        let head = self.free.pop().expect("a descriptor is free");
        self.set_descriptor(head, table, bytes, INDIRECT, 0);
        self.make_available(head);
        self.chains[usize::from(head)] = vec![head];
        head
    }

    /// Writes one descriptor as it is, valid or not.
    pub fn set_descriptor(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let [table, ..] = self.addresses();
        self.write_descriptor(table + 16 * u64::from(index), addr, len, flags, next);
    }

    fn write_descriptor(&self, at: u64, addr: u64, len: u32, flags: u16, next: u16) {
        self.put(at, addr.to_le());
        self.put(at + 8, len.to_le());
        self.put(at + 12, flags.to_le());
        self.put(at + 14, next.to_le());
    }

    /// Puts `head` into the available ring, whatever stands there.
    pub fn make_available(&self, head: u16) {
        let [_, avail, _] = self.addresses();
        let index = self.load_index(avail + 2);
        self.put(avail + 4 + 2 * u64::from(index % self.size), head.to_le());
        self.set_avail_index(index.wrapping_add(1));
    }

    /// Sets the index of the available ring, whatever it was.
    pub fn set_avail_index(&self, index: u16) {
        let [_, avail, _] = self.addresses();
        self.ram
            .store(index.to_le(), GuestAddress(avail + 2), Ordering::SeqCst)
            .expect("ring is in guest memory");
    }

    /// The index of the available ring.
    pub fn avail_index(&self) -> u16 {
        let [_, avail, _] = self.addresses();
        self.load_index(avail + 2)
    }

    /// The index of the used ring.
    pub fn used_index(&self) -> u16 {
        let [_, _, used] = self.addresses();
        self.load_index(used + 2)
    }

    /// The same queue in other memory, which holds the same.
    #[must_use]
    pub fn in_ram(&self, ram: GuestRam) -> Self {
        Self {
            ram,
            ..self.clone()
        }
    }

    /// Moves an idle queue's rings on, all indices to `position`, as after
    /// that many requests. The device has to be told in some other way.
    pub fn set_position(&mut self, position: u16) {
        let [_, _, used] = self.addresses();
        self.set_avail_index(position);
        self.put(used + 2, position.to_le());
        self.put(used + 4 + 8 * u64::from(self.size), position.to_le());
        self.set_used_event(position);
        self.next_used = position;
    }

    /// Asks for an interrupt when used buffer number `value` is there
    /// (`used_event`, virtio 1.2 §2.7.7.1).
    pub fn set_used_event(&self, value: u16) {
        let [_, avail, _] = self.addresses();
        self.ram
            .store(
                value.to_le(),
                GuestAddress(avail + 4 + 2 * u64::from(self.size)),
                Ordering::SeqCst,
            )
            .expect("ring is in guest memory");
    }

    /// Whether the device wants to hear of buffers from `old` up to now
    /// (`avail_event`, virtio 1.2 §2.7.10).
    pub fn wants_notification(&self, old: u16) -> bool {
        let [_, avail, used] = self.addresses();
        let new = self.load_index(avail + 2);
        let event = self.load_index(used + 4 + 8 * u64::from(self.size));
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }

    /// Whether the device wants to hear of the next buffer, so that nothing more
    /// happens before that.
    pub fn is_awaited(&self) -> bool {
        let [_, avail, used] = self.addresses();
        let event = self.load_index(used + 4 + 8 * u64::from(self.size));
        event == self.load_index(avail + 2)
    }

    /// The next used chain: its head and the bytes the device wrote.
    pub fn poll(&mut self) -> Option<(u16, u32)> {
        let [_, _, used] = self.addresses();
        if self.load_index(used + 2) == self.next_used {
            return None;
        }
        let at = used + 4 + 8 * u64::from(self.next_used % self.size);
        let head = u16::try_from(u32::from_le(self.get(at))).expect("head is an index");
        let len = u32::from_le(self.get(at + 4));
        self.next_used = self.next_used.wrapping_add(1);
        self.set_used_event(self.next_used);
        let chain = std::mem::take(&mut self.chains[usize::from(head)]);
        self.free.extend(chain);
        Some((head, len))
    }
}

/// A driver that has found its device.
pub struct Driver<M: DeviceMemory = Ram> {
    /// The device's registers.
    pub device: Arc<VirtioMmio<M>>,
    /// Its interrupt line.
    pub irq: Arc<CountingIrq>,
    /// Its queues, in order.
    pub queues: Vec<DriverQueue>,
}

impl<M: DeviceMemory> Driver<M> {
    /// Goes through the whole start of virtio 1.2 §3.1.1 with all features on
    /// offer, putting the rings of each queue at `base` and onwards.
    pub fn start(
        ram: &GuestRam,
        device: Arc<VirtioMmio<M>>,
        irq: Arc<CountingIrq>,
        base: u64,
        sizes: &[u16],
    ) -> Self {
        Self::start_without(ram, device, irq, base, sizes, 0)
    }

    /// As [`Driver::start`], leaving out some features.
    pub fn start_without(
        ram: &GuestRam,
        device: Arc<VirtioMmio<M>>,
        irq: Arc<CountingIrq>,
        base: u64,
        sizes: &[u16],
        unwanted: u64,
    ) -> Self {
        let mut driver = Self {
            device,
            irq,
            queues: Vec::new(),
        };
        driver.negotiate(unwanted);
        for (index, &size) in (0u32..).zip(sizes) {
            let at = base + u64::from(index) * DriverQueue::RING_BYTES;
            let queue = DriverQueue::new(ram.clone(), at, size);
            driver.set_up_queue(index, &queue);
            driver.queues.push(queue);
        }
        driver.set_status(status::DRIVER_OK);
        driver
    }

    /// Reads a 32-bit register.
    pub fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.device.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Writes a 32-bit register.
    pub fn write(&self, offset: u64, value: u32) {
        self.device.write(offset, &value.to_le_bytes());
    }

    /// The status register.
    pub fn status(&self) -> u32 {
        self.read(0x070)
    }

    /// Adds bits to the status register.
    pub fn set_status(&self, bits: u32) {
        self.write(0x070, self.status() | bits);
    }

    /// Features on offer.
    pub fn offered(&self) -> u64 {
        self.write(0x014, 0);
        let low = u64::from(self.read(0x010));
        self.write(0x014, 1);
        low | u64::from(self.read(0x010)) << 32
    }

    /// Writes the driver's features.
    pub fn choose(&self, features: u64) {
        let [a, b, c, d, e, f, g, h] = features.to_le_bytes();
        self.write(0x024, 0);
        self.write(0x020, u32::from_le_bytes([a, b, c, d]));
        self.write(0x024, 1);
        self.write(0x020, u32::from_le_bytes([e, f, g, h]));
    }

    /// Resets the device and negotiates up to `FEATURES_OK`.
    pub fn negotiate(&self, unwanted: u64) {
        self.write(0x070, 0);
        self.set_status(status::ACKNOWLEDGE);
        self.set_status(status::DRIVER);
        self.choose(self.offered() & !unwanted | F_VERSION_1);
        self.set_status(status::FEATURES_OK);
        assert_eq!(
            self.status() & status::FEATURES_OK,
            status::FEATURES_OK,
            "device refused its own features"
        );
    }

    /// Gives a queue to the device.
    pub fn set_up_queue(&self, index: u32, queue: &DriverQueue) {
        self.write(0x030, index);
        self.write(0x038, u32::from(queue.size()));
        for (offset, address) in [0x080, 0x090, 0x0a0].into_iter().zip(queue.addresses()) {
            let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
            self.write(offset, u32::from_le_bytes([a, b, c, d]));
            self.write(offset + 4, u32::from_le_bytes([e, f, g, h]));
        }
        self.write(0x044, 1);
        assert_eq!(self.read(0x044), 1, "device refused queue {index}");
    }

    /// Tells the device of new buffers.
    pub fn notify(&self, queue: u32) {
        self.write(0x050, queue);
    }

    /// Acknowledges whatever interrupt is pending; the bits it had.
    pub fn acknowledge(&self) -> u32 {
        let pending = self.read(0x060);
        self.write(0x064, pending);
        pending
    }

    /// Waits for the next used chain of a queue, by interrupts alone: fails
    /// if the device forgets to send one.
    pub fn wait_used(&mut self, queue: usize) -> (u16, u32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.irq.pulses();
            self.acknowledge();
            if let Some(used) = self.queues[queue].poll() {
                return used;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no used buffer within {PATIENCE:?}");
            self.irq.wait_beyond(seen, left);
        }
    }

    /// Whether both sides agreed on event indices.
    pub fn has_event_idx(&self) -> bool {
        self.offered() & F_RING_EVENT_IDX != 0
    }
}
