//! Virtio over MMIO, version 2 (virtio 1.2 §4.2).
//!
//! The transport owns the registers and enforces the order of §3.1.1: what
//! the driver negotiated or configured cannot change once the device may act
//! on it, and only a reset opens it again. The interrupt is edge-triggered:
//! one pulse each time an interrupt status bit goes from 0 to 1.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use self::events::NoEvents;
use self::regs::{QueueRegs, Regs, set_high, set_low};
use super::chain::{QueueError, rings_in_ram};
use super::{
    ActivateError, Activation, F_RING_EVENT_IDX, F_VERSION_1, Interrupt, SharedMemory, StateFormat,
    Traffic, VirtioDevice,
};
use crate::{DeviceMemory, IrqLine, MmioDevice, Ram};

mod events;
mod regs;
mod state;

pub use events::{MmioCounters, VirtioEvents};
pub use state::{MmioQueueState, MmioState};

/// Length of the register window in bytes.
pub const WINDOW_BYTES: u64 = 0x200;

/// Device status bits (virtio 1.2 §2.1).
pub mod status {
    /// The guest found the device.
    pub const ACKNOWLEDGE: u32 = 1;
    /// The guest has a driver for it.
    pub const DRIVER: u32 = 2;
    /// The driver is set up.
    pub const DRIVER_OK: u32 = 4;
    /// Feature negotiation is complete.
    pub const FEATURES_OK: u32 = 8;
    /// The device gave up until it is reset.
    pub const NEEDS_RESET: u32 = 64;
    /// The driver gave up.
    pub const FAILED: u32 = 128;
}

/// "virt", little-endian (virtio 1.2 §4.2.2).
const MAGIC: u32 = 0x7472_6976;
/// Register layout version: not legacy.
const VERSION: u32 = 2;
/// "smvm", little-endian; any value will do, drivers do not match on it.
const VENDOR: u32 = 0x6d76_6d73;
/// Offset of the device's configuration space.
const CONFIG: u64 = 0x100;

/// Interrupt status: buffers were used.
const INT_USED: u32 = 1;
/// Interrupt status: configuration (or the status register) changed.
const INT_CONFIG: u32 = 2;

/// A virtio device behind MMIO registers.
pub struct VirtioMmio<M: DeviceMemory = Ram> {
    ram: Arc<M>,
    device: Box<dyn VirtioDevice<M>>,
    irq: Arc<MmioInterrupt>,
    regs: Mutex<Regs>,
    /// The owner paused the device. Changed with `regs` locked.
    paused: AtomicBool,
}

/// The interrupt side: shared with the device's threads, so free of locks.
struct MmioInterrupt {
    line: Arc<dyn IrqLine>,
    /// InterruptStatus register.
    pending: AtomicU32,
    /// ConfigGeneration register.
    generation: AtomicU32,
    /// The device's half of the status register.
    needs_reset: AtomicBool,
    /// Queues in which the device left work, one bit for those whose number
    /// is the bit's modulo 64.
    work_left: AtomicU64,
    /// Interrupts sent so far.
    interrupts: AtomicU64,
    /// Mistakes of the driver so far.
    mistakes: AtomicU64,
    /// Failures of the host so far.
    host_failures: AtomicU64,
    events: Box<dyn VirtioEvents>,
}

impl MmioInterrupt {
    fn raise(&self, bit: u32) {
        // A bit that is still set will be acknowledged before the driver
        // looks at the ring, so it needs no second edge.
        if self.pending.fetch_or(bit, Ordering::SeqCst) & bit == 0 {
            self.interrupts.fetch_add(1, Ordering::Relaxed);
            self.line.pulse();
        }
    }

    fn give_up(&self) {
        if !self.needs_reset.swap(true, Ordering::SeqCst) {
            self.raise(INT_CONFIG);
        }
    }
}

impl Interrupt for MmioInterrupt {
    fn used_buffers(&self, _queue: u16) {
        self.raise(INT_USED);
    }

    fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.raise(INT_CONFIG);
    }

    /// The guest acknowledges every interrupt, whether it finds buffers or
    /// not, and the device is called again by that access.
    fn work_left(&self, queue: u16) {
        // First the note: the acknowledgement may come at once.
        self.work_left.fetch_or(queue_bit(queue), Ordering::SeqCst);
        self.raise(INT_USED);
    }

    fn needs_reset(&self, mistake: &QueueError) {
        self.mistakes.fetch_add(1, Ordering::Relaxed);
        self.events.driver_mistake(mistake);
        self.give_up();
    }

    fn host_failed(&self, error: &std::io::Error) {
        self.host_failures.fetch_add(1, Ordering::Relaxed);
        self.events.host_failed(error);
    }
}

impl<M: DeviceMemory> VirtioMmio<M> {
    /// Puts `device` behind registers. `irq` is edge-triggered.
    pub fn new(ram: Arc<M>, irq: Arc<dyn IrqLine>, device: Box<dyn VirtioDevice<M>>) -> Self {
        Self::with_events(ram, irq, device, Box::new(NoEvents))
    }

    /// As [`VirtioMmio::new`]; `events` hears of what goes wrong.
    pub fn with_events(
        ram: Arc<M>,
        irq: Arc<dyn IrqLine>,
        device: Box<dyn VirtioDevice<M>>,
        events: Box<dyn VirtioEvents>,
    ) -> Self {
        let regs = Regs::new(device.queue_max_sizes());
        Self {
            ram,
            device,
            irq: Arc::new(MmioInterrupt {
                line: irq,
                pending: AtomicU32::new(0),
                generation: AtomicU32::new(0),
                needs_reset: AtomicBool::new(false),
                work_left: AtomicU64::new(0),
                interrupts: AtomicU64::new(0),
                mistakes: AtomicU64::new(0),
                host_failures: AtomicU64::new(0),
                events,
            }),
            regs: Mutex::new(regs),
            paused: AtomicBool::new(false),
        }
    }

    /// How often things happened since this transport was made, over all
    /// drivers it had.
    pub fn counters(&self) -> MmioCounters {
        let regs = self.lock();
        MmioCounters {
            notifications: regs.notifications,
            interrupts: self.irq.interrupts.load(Ordering::Relaxed),
            resets: regs.resets,
            mistakes: self.irq.mistakes.load(Ordering::Relaxed),
            host_failures: self.irq.host_failures.load(Ordering::Relaxed),
        }
    }

    /// Which saved states its device takes.
    pub fn state_format(&self) -> StateFormat {
        self.device.state_format()
    }

    /// How much the device behind it has moved; `None` if it does not count that.
    pub fn traffic(&self) -> Option<Traffic> {
        self.device.traffic()
    }

    /// Has its device look at what is behind it on the host.
    pub fn backing_changed(&self) {
        self.device.backing_changed();
    }

    fn lock(&self) -> MutexGuard<'_, Regs> {
        self.regs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_register(&self, offset: u64) -> u32 {
        let regs = self.lock();
        match offset {
            0x000 => MAGIC,
            0x004 => VERSION,
            0x008 => self.device.device_id(),
            0x00c => VENDOR,
            0x010 => regs.device_features_half(self.device.features()),
            0x034 => regs.selected().map_or(0, |q| u32::from(q.max_size)),
            0x044 => regs.selected().map_or(0, |q| u32::from(q.ready)),
            0x060 => self.irq.pending.load(Ordering::SeqCst),
            0x070 => regs.status | self.needs_reset_bit(),
            0x0b0 => low(self.shared_memory(&regs).bytes),
            0x0b4 => high(self.shared_memory(&regs).bytes),
            0x0b8 => low(self.shared_memory(&regs).address),
            0x0bc => high(self.shared_memory(&regs).address),
            0x0fc => self.irq.generation.load(Ordering::SeqCst),
            _ => 0,
        }
    }

    /// The region that SHMSel names. Length and base of one that is not there
    /// read as all ones (virtio 1.2 §4.2.2.1).
    fn shared_memory(&self, regs: &Regs) -> SharedMemory {
        let id = u8::try_from(regs.shm_sel).ok();
        id.and_then(|id| self.device.shared_memory(id))
            .unwrap_or(SharedMemory {
                address: u64::MAX,
                bytes: u64::MAX,
            })
    }

    fn write_register(&self, offset: u64, value: u32) {
        match offset {
            0x050 => return self.notify(value),
            0x064 => return self.acknowledge(value),
            _ => {}
        }
        let mut regs = self.lock();
        match offset {
            0x014 => regs.device_features_sel = value,
            0x020 => regs.set_driver_features(value),
            0x024 => regs.driver_features_sel = value,
            0x030 => regs.queue_sel = value,
            0x038 => regs.configure(|queue| queue.size = value),
            0x044 => regs.set_queue_ready(value),
            0x070 => self.write_status(&mut regs, value),
            0x080 => regs.configure(|queue| set_low(&mut queue.desc_table, value)),
            0x084 => regs.configure(|queue| set_high(&mut queue.desc_table, value)),
            0x090 => regs.configure(|queue| set_low(&mut queue.avail_ring, value)),
            0x094 => regs.configure(|queue| set_high(&mut queue.avail_ring, value)),
            0x0a0 => regs.configure(|queue| set_low(&mut queue.used_ring, value)),
            0x0a4 => regs.configure(|queue| set_high(&mut queue.used_ring, value)),
            0x0ac => regs.shm_sel = value,
            _ => self.irq.events.invalid_access(offset),
        }
    }

    fn notify(&self, value: u32) {
        let Ok(index) = u16::try_from(value) else {
            return;
        };
        let ready = {
            let mut regs = self.lock();
            regs.notifications = regs.notifications.wrapping_add(1);
            regs.active
                && regs
                    .queues
                    .get(usize::from(index))
                    .is_some_and(|queue| queue.ready)
        };
        if ready && !self.irq.needs_reset.load(Ordering::SeqCst) {
            self.device.notify(index);
        }
    }

    fn acknowledge(&self, value: u32) {
        self.irq.pending.fetch_and(!value, Ordering::SeqCst);
        let left = self.irq.work_left.swap(0, Ordering::SeqCst);
        if left != 0 {
            let queues = self.device.queue_max_sizes().len();
            (0..=u16::MAX)
                .take(queues)
                .filter(|queue| left & queue_bit(*queue) != 0)
                .for_each(|queue| self.notify(u32::from(queue)));
        }
    }

    fn needs_reset_bit(&self) -> u32 {
        if self.irq.needs_reset.load(Ordering::SeqCst) {
            status::NEEDS_RESET
        } else {
            0
        }
    }

    /// Moves the status register on by the bits `value` adds, in the order of
    /// virtio 1.2 §3.1.1. Bits cannot be taken back other than by a reset.
    fn write_status(&self, regs: &mut Regs, value: u32) {
        if value == 0 {
            return self.reset(regs);
        }
        if regs.status & !value != 0 || regs.status & status::FAILED != 0 {
            return;
        }
        let added = value & !regs.status;
        if added & status::FAILED != 0 {
            regs.status |= status::FAILED;
            return;
        }
        if added & status::ACKNOWLEDGE != 0 {
            regs.status |= status::ACKNOWLEDGE;
        }
        if added & status::DRIVER != 0 && regs.has(status::ACKNOWLEDGE) {
            regs.status |= status::DRIVER;
        }
        if added & status::FEATURES_OK != 0
            && regs.has(status::DRIVER)
            && self.accepts(regs.driver_features)
        {
            regs.status |= status::FEATURES_OK;
        }
        if added & status::DRIVER_OK != 0 && regs.has(status::FEATURES_OK) {
            regs.status |= status::DRIVER_OK;
            if let Err(error) = self.activate(regs) {
                self.irq.events.not_started(&error);
                self.irq.give_up();
            }
        }
    }

    /// Whether the driver chose features that are all on offer, and did not
    /// leave out the one that this register layout is for.
    fn accepts(&self, driver_features: u64) -> bool {
        driver_features & !self.device.features() == 0 && driver_features & F_VERSION_1 != 0
    }

    fn activate(&self, regs: &mut Regs) -> Result<(), ActivateError> {
        let event_idx = regs.driver_features & F_RING_EVENT_IDX != 0;
        let queues: Result<Vec<Queue>, ActivateError> = (0..)
            .zip(&regs.queues)
            .map(|(index, queue)| {
                self.build_queue(queue, event_idx)
                    .ok_or(ActivateError::BadQueue(index))
            })
            .collect();
        self.device.activate(Activation {
            ram: self.ram.clone(),
            queues: queues?,
            irq: self.irq.clone(),
            features: regs.driver_features,
        })?;
        regs.active = true;
        Ok(())
    }

    /// A queue from its registers; `None` if it is ready but unusable.
    fn build_queue(&self, regs: &QueueRegs, event_idx: bool) -> Option<Queue> {
        let mut queue = Queue::new(regs.max_size).ok()?;
        if !regs.ready {
            return Some(queue);
        }
        queue.try_set_size(u16::try_from(regs.size).ok()?).ok()?;
        queue
            .try_set_desc_table_address(GuestAddress(regs.desc_table))
            .ok()?;
        queue
            .try_set_avail_ring_address(GuestAddress(regs.avail_ring))
            .ok()?;
        queue
            .try_set_used_ring_address(GuestAddress(regs.used_ring))
            .ok()?;
        queue.set_event_idx(event_idx);
        queue.set_next_avail(regs.next_avail);
        queue.set_next_used(regs.next_used);
        queue.set_ready(true);
        rings_in_ram(&queue, &*self.ram).then_some(queue)
    }

    /// Holds the register lock throughout, so a read of the status register
    /// sees 0 only when the device is quiet (virtio 1.2 §4.2.2.2).
    fn reset(&self, regs: &mut Regs) {
        drop(self.device.reset());
        regs.reset(self.device.queue_max_sizes());
        self.irq.pending.store(0, Ordering::SeqCst);
        self.irq.needs_reset.store(false, Ordering::SeqCst);
        self.irq.work_left.store(0, Ordering::SeqCst);
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        // The driver may look at the configuration before features are
        // agreed on, but may change it only as a driver.
        if self.lock().has(status::DRIVER) {
            self.device.write_config(offset, data);
        }
    }
}

impl<M: DeviceMemory> MmioDevice for VirtioMmio<M> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match (offset.checked_sub(CONFIG), data.len()) {
            (Some(offset), 1 | 2 | 4 | 8) => self.device.read_config(offset, data),
            (None, 4) if offset.is_multiple_of(4) => {
                data.copy_from_slice(&self.read_register(offset).to_le_bytes());
            }
            _ => data.fill(0),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match (offset.checked_sub(CONFIG), data) {
            (Some(offset), data) if matches!(data.len(), 1 | 2 | 4 | 8) => {
                self.write_config(offset, data);
            }
            (None, &[a, b, c, d]) if offset.is_multiple_of(4) => {
                self.write_register(offset, u32::from_le_bytes([a, b, c, d]));
            }
            _ => {}
        }
    }
}

impl<M: DeviceMemory> Drop for VirtioMmio<M> {
    fn drop(&mut self) {
        // Device threads must not outlive the machine that drives them.
        drop(self.device.reset());
    }
}

fn queue_bit(queue: u16) -> u64 {
    1 << (queue % 64)
}

fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}

#[cfg(all(test, feature = "default"))]
mod tests;
