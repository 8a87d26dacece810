//! The register file and which writes it takes when.

use super::status;

/// Registers of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueueRegs {
    /// Largest size the device takes; read only.
    pub(super) max_size: u16,
    /// As written; checked when the queue becomes ready.
    pub(super) size: u32,
    pub(super) ready: bool,
    pub(super) desc_table: u64,
    pub(super) avail_ring: u64,
    pub(super) used_ring: u64,
    /// Ring positions to start from; not 0 only after a restore.
    pub(super) next_avail: u16,
    pub(super) next_used: u16,
}

impl QueueRegs {
    fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: u32::from(max_size),
            ready: false,
            desc_table: 0,
            avail_ring: 0,
            used_ring: 0,
            next_avail: 0,
            next_used: 0,
        }
    }

    /// Whether size and alignments are as virtio 1.2 §2.7 demands.
    pub(super) fn is_usable(&self) -> bool {
        self.size.is_power_of_two()
            && self.size <= u32::from(self.max_size)
            && self.desc_table.is_multiple_of(16)
            && self.avail_ring.is_multiple_of(2)
            && self.used_ring.is_multiple_of(4)
            && self.avail_ring != 0
    }
}

/// All registers the driver can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Regs {
    /// The driver's half of the status register.
    pub(super) status: u32,
    pub(super) device_features_sel: u32,
    pub(super) driver_features_sel: u32,
    pub(super) driver_features: u64,
    pub(super) queue_sel: u32,
    pub(super) shm_sel: u32,
    pub(super) queues: Vec<QueueRegs>,
    /// The device has been given its queues.
    pub(super) active: bool,
    /// Writes to QueueNotify, and resets, of this and earlier drivers.
    pub(super) notifications: u64,
    pub(super) resets: u64,
}

impl Regs {
    pub(super) fn new(queue_max_sizes: &[u16]) -> Self {
        Self {
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            shm_sel: 0,
            queues: queue_max_sizes
                .iter()
                .copied()
                .map(QueueRegs::new)
                .collect(),
            active: false,
            notifications: 0,
            resets: 0,
        }
    }

    /// Back to how it was made, but for what is counted.
    pub(super) fn reset(&mut self, queue_max_sizes: &[u16]) {
        *self = Self {
            notifications: self.notifications,
            resets: self.resets.wrapping_add(1),
            ..Self::new(queue_max_sizes)
        };
    }

    pub(super) fn has(&self, bits: u32) -> bool {
        self.status & bits == bits
    }

    pub(super) fn device_features_half(&self, features: u64) -> u32 {
        let bytes = features.to_le_bytes();
        let half = match self.device_features_sel {
            0 => [bytes[0], bytes[1], bytes[2], bytes[3]],
            1 => [bytes[4], bytes[5], bytes[6], bytes[7]],
            _ => [0; 4],
        };
        u32::from_le_bytes(half)
    }

    /// Features may be chosen between `DRIVER` and `FEATURES_OK` only.
    pub(super) fn set_driver_features(&mut self, value: u32) {
        let negotiating =
            self.has(status::DRIVER) && self.status & (status::FEATURES_OK | status::FAILED) == 0;
        match self.driver_features_sel {
            0 if negotiating => set_low(&mut self.driver_features, value),
            1 if negotiating => set_high(&mut self.driver_features, value),
            _ => {}
        }
    }

    fn selected_index(&self) -> Option<usize> {
        let index = usize::try_from(self.queue_sel).ok()?;
        (index < self.queues.len()).then_some(index)
    }

    pub(super) fn selected(&self) -> Option<&QueueRegs> {
        self.queues.get(self.selected_index()?)
    }

    /// Queues are set up between `FEATURES_OK` and `DRIVER_OK` only.
    fn may_set_up_queues(&self) -> bool {
        self.has(status::FEATURES_OK) && self.status & (status::DRIVER_OK | status::FAILED) == 0
    }

    /// Changes the selected queue, if it is not in the device's hands.
    pub(super) fn configure(&mut self, change: impl FnOnce(&mut QueueRegs)) {
        if !self.may_set_up_queues() {
            return;
        }
        if let Some(index) = self.selected_index()
            && !self.queues[index].ready
        {
            change(&mut self.queues[index]);
        }
    }

    /// Takes QueueReady; a queue that could never work does not get ready.
    pub(super) fn set_queue_ready(&mut self, value: u32) {
        if !self.may_set_up_queues() {
            return;
        }
        if let Some(index) = self.selected_index() {
            let queue = &mut self.queues[index];
            queue.ready = value == 1 && queue.is_usable();
        }
    }
}

/// Writes the low half of an address.
pub(super) fn set_low(address: &mut u64, value: u32) {
    *address = (*address & !0xffff_ffff) | u64::from(value);
}

/// Writes the high half of an address.
pub(super) fn set_high(address: &mut u64, value: u32) {
    *address = (*address & 0xffff_ffff) | (u64::from(value) << 32);
}
