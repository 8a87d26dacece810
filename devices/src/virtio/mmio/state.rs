//! Saving and restoring the transport with its device.

use std::sync::atomic::Ordering;

use super::regs::Regs;
use super::{INT_CONFIG, INT_USED, VirtioMmio, status};
use crate::DeviceMemory;
use crate::virtio::{RestoreError, SavedState};

/// Saved registers and ring positions of one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MmioQueueState {
    /// QueueNum as the driver wrote it.
    pub size: u32,
    /// QueueReady.
    pub ready: bool,
    /// Guest physical address of the descriptor table.
    pub desc_table: u64,
    /// Guest physical address of the available ring.
    pub avail_ring: u64,
    /// Guest physical address of the used ring.
    pub used_ring: u64,
    /// Next entry of the available ring to take.
    pub next_avail: u16,
    /// Next entry of the used ring to fill.
    pub next_used: u16,
}

/// Saved state of a [`VirtioMmio`] and the device behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MmioState {
    /// Device type the state belongs to.
    pub device_id: u32,
    /// Device status without `NEEDS_RESET`.
    pub status: u32,
    /// The device gave up (`NEEDS_RESET`).
    pub needs_reset: bool,
    /// The device had its queues.
    pub active: bool,
    /// InterruptStatus.
    pub interrupt_status: u32,
    /// ConfigGeneration.
    pub config_generation: u32,
    /// DeviceFeaturesSel.
    pub device_features_sel: u32,
    /// DriverFeaturesSel.
    pub driver_features_sel: u32,
    /// Features the driver chose.
    pub driver_features: u64,
    /// QueueSel.
    pub queue_sel: u32,
    /// SHMSel.
    pub shm_sel: u32,
    /// One entry per queue of the device.
    pub queues: Vec<MmioQueueState>,
    /// The device's own part.
    pub device: SavedState,
}

impl<M: DeviceMemory> VirtioMmio<M> {
    /// The state to save. The caller has stopped the vCPUs; requests in
    /// flight are waited for.
    pub fn state(&self) -> MmioState {
        let regs = self.lock();
        let positions = self.device.queue_states();
        let queues = regs.queues.iter().enumerate().map(|(index, queue)| {
            let position = positions.get(index);
            MmioQueueState {
                size: queue.size,
                ready: queue.ready,
                desc_table: queue.desc_table,
                avail_ring: queue.avail_ring,
                used_ring: queue.used_ring,
                next_avail: position.map_or(queue.next_avail, |p| p.next_avail),
                next_used: position.map_or(queue.next_used, |p| p.next_used),
            }
        });
        MmioState {
            device_id: self.device.device_id(),
            status: regs.status,
            needs_reset: self.irq.needs_reset.load(Ordering::SeqCst),
            active: regs.active,
            interrupt_status: self.irq.pending.load(Ordering::SeqCst),
            config_generation: self.irq.generation.load(Ordering::SeqCst),
            device_features_sel: regs.device_features_sel,
            driver_features_sel: regs.driver_features_sel,
            driver_features: regs.driver_features,
            queue_sel: regs.queue_sel,
            shm_sel: regs.shm_sel,
            queues: queues.collect(),
            device: self.device.state(),
        }
    }

    /// Makes an idle transport continue from `state`, which is not trusted:
    /// it passes the checks a driver's own writes would have to.
    ///
    /// RAM must hold what it held when the state was saved: the device may
    /// start on its queues at once.
    pub fn restore(&self, state: &MmioState) -> Result<(), RestoreError> {
        let mut regs = self.lock();
        if regs.active || regs.status != 0 {
            return Err(RestoreError::Active);
        }
        let restored = self.checked_regs(state)?;
        self.take_over(&mut regs, restored, state)
    }

    /// Brings a transport back to `state`, whatever its driver has done since,
    /// as often as wanted. The state is checked as by [`VirtioMmio::restore`];
    /// one that does not pass leaves everything as it is, and one that the
    /// device refuses leaves the transport reset.
    ///
    /// The caller has stopped the vCPUs, paused the device (see
    /// [`VirtioMmio::pause`]) and only then put RAM back: without the pause a
    /// request in flight could still write to it. It stays paused until
    /// [`VirtioMmio::resume`].
    pub fn reset_to(&self, state: &MmioState) -> Result<(), RestoreError> {
        let mut regs = self.lock();
        let restored = self.checked_regs(state)?;
        self.reset(&mut regs);
        self.take_over(&mut regs, restored, state)
    }

    /// Makes the device leave guest RAM and its interrupt alone once what it
    /// works on is done, so that both can be saved or replaced. The caller
    /// has stopped the vCPUs.
    pub fn pause(&self) {
        let _regs = self.lock();
        self.paused.store(true, Ordering::SeqCst);
        self.device.pause();
    }

    /// Ends a [`VirtioMmio::pause`]; the device catches up.
    pub fn resume(&self) {
        let _regs = self.lock();
        self.paused.store(false, Ordering::SeqCst);
        self.device.resume();
    }

    fn take_over(
        &self,
        regs: &mut Regs,
        restored: Regs,
        state: &MmioState,
    ) -> Result<(), RestoreError> {
        self.irq
            .needs_reset
            .store(state.needs_reset, Ordering::SeqCst);
        self.irq
            .generation
            .store(state.config_generation, Ordering::SeqCst);
        self.irq
            .pending
            .store(state.interrupt_status, Ordering::SeqCst);
        *regs = Regs {
            notifications: regs.notifications,
            resets: regs.resets,
            ..restored
        };
        // Between its start and the rest of its state the device must not act.
        self.device.pause();
        let outcome = if state.active && self.activate(regs).is_err() {
            Err(RestoreError::Refused)
        } else {
            self.device.restore(&state.device)
        };
        if outcome.is_err() {
            self.reset(regs);
        } else if state.interrupt_status != 0 {
            // The edge may have been lost with the old machine; one too many
            // only makes the driver look once more.
            self.irq.line.pulse();
        }
        if !self.paused.load(Ordering::SeqCst) {
            self.device.resume();
        }
        outcome
    }

    fn checked_regs(&self, state: &MmioState) -> Result<Regs, RestoreError> {
        let expected = self.device.device_id();
        if state.device_id != expected {
            return Err(RestoreError::WrongDevice {
                expected,
                found: state.device_id,
            });
        }
        state.device.check(self.device.state_format())?;
        if !is_reachable_status(state.status) {
            return Err(RestoreError::Invalid("status"));
        }
        let has = |bit| state.status & bit != 0;
        if has(status::FEATURES_OK) && !self.accepts(state.driver_features) {
            return Err(RestoreError::Invalid("driver_features"));
        }
        if state.active && !has(status::DRIVER_OK) {
            return Err(RestoreError::Invalid("active"));
        }
        if state.interrupt_status & !(INT_USED | INT_CONFIG) != 0 {
            return Err(RestoreError::Invalid("interrupt_status"));
        }
        let mut regs = Regs::new(self.device.queue_max_sizes());
        if state.queues.len() != regs.queues.len() {
            return Err(RestoreError::Invalid("queues"));
        }
        for (queue, saved) in regs.queues.iter_mut().zip(&state.queues) {
            queue.size = saved.size;
            queue.ready = saved.ready;
            queue.desc_table = saved.desc_table;
            queue.avail_ring = saved.avail_ring;
            queue.used_ring = saved.used_ring;
            queue.next_avail = saved.next_avail;
            queue.next_used = saved.next_used;
            if queue.ready && !(queue.is_usable() && has(status::FEATURES_OK)) {
                return Err(RestoreError::Invalid("queues"));
            }
            // What a device took off a queue it has given back when it is
            // saved, unless it gave up in between.
            let moved = saved.next_avail != 0 || saved.next_used != 0;
            let in_hand = saved.next_avail != saved.next_used && !state.needs_reset;
            if in_hand || moved && !(state.active && queue.ready) {
                return Err(RestoreError::Invalid("ring positions"));
            }
        }
        regs.status = state.status;
        regs.device_features_sel = state.device_features_sel;
        regs.driver_features_sel = state.driver_features_sel;
        regs.driver_features = state.driver_features;
        regs.queue_sel = state.queue_sel;
        regs.shm_sel = state.shm_sel;
        Ok(regs)
    }
}

/// Each step needs the one before it; `FAILED` may come on top of any.
fn is_reachable_status(value: u32) -> bool {
    use status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK};
    let steps = [0, ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK];
    let mut reached = 0;
    steps.iter().any(|step| {
        reached |= step;
        reached == value & !FAILED
    })
}

#[cfg(all(test, feature = "default"))]
mod tests;
