//! The interrupt controller: a GICv3 with what `hv_gic` has.
//!
//! One security state, affinity routing always on, Group 1 only, 5 priority
//! bits, no LPIs. State is split by who touches it: each vCPU's SGIs, PPIs and
//! CPU interface behind a lock of its own, all SPIs behind another. Whether a
//! vCPU has anything to take is one atomic flag, kept current at each change, so
//! that the run loop reads nothing else. Locks are taken in the order
//! distributor, then one vCPU; nothing is called with a lock held.

mod bank;
mod cpu_interface;
mod distributor;
mod frames;
mod icc;
mod redistributor;
mod state;
#[cfg(test)]
mod tests;

pub use distributor::{SPI_BASE, SPI_COUNT};
pub use icc::IccReg;
pub use state::StateError;
pub(crate) use state::fix_checksum;

use crate::link::VcpuShared;
use crate::vm::MAX_VCPUS;
use cpu_interface::{SPURIOUS, Slot};
use distributor::{Distributor, NOWHERE};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Size of the distributor frame in bytes; also the alignment of every base.
pub const DISTRIBUTOR_BYTES: u64 = 0x1_0000;
/// Size of the two frames of one redistributor in bytes.
pub const REDISTRIBUTOR_BYTES: u64 = 0x2_0000;
/// Size reserved for redistributors: 256 of them, as on Apple silicon.
pub const REDISTRIBUTOR_REGION_BYTES: u64 = 256 * REDISTRIBUTOR_BYTES;
/// Size of the MSI frame in bytes.
pub const MSI_REGION_BYTES: u64 = 0x1_0000;

/// Offset of MSI_TYPER in the MSI frame (GICv2m).
const MSI_TYPER: u64 = 0x8;
/// Offset of MSI_SETSPI_NS in the MSI frame (GICv2m).
pub const MSI_SET_SPI: u64 = 0x40;

/// A GICv2m-style frame that turns stores into SPIs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsiConfig {
    /// First address.
    pub base: u64,
    /// First INTID.
    pub first: u32,
    /// Number of INTIDs.
    pub count: u32,
}

impl MsiConfig {
    fn holds(&self, intid: u32) -> bool {
        intid
            .checked_sub(self.first)
            .is_some_and(|n| n < self.count)
    }
}

/// Where the controller is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GicConfig {
    /// Address of the distributor.
    pub distributor: u64,
    /// Address of the redistributor of vCPU 0; the others follow.
    pub redistributor: u64,
    /// The MSI frame, if there is one.
    pub msi: Option<MsiConfig>,
}

/// An INTID that is no SPI of this controller, or one reserved for MSIs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("interrupt {intid} cannot be set this way")]
pub struct BadInterrupt {
    /// The INTID.
    pub intid: u32,
}

/// The interrupt controller of one VM.
#[derive(Debug)]
pub struct Gic {
    config: GicConfig,
    distributor: Mutex<Distributor>,
    slots: Box<[Slot]>,
    /// One more than the highest index attached so far.
    slots_used: AtomicUsize,
}

impl Gic {
    /// A controller in reset state without vCPUs.
    pub fn new(config: GicConfig) -> Self {
        Self {
            config,
            distributor: Mutex::new(Distributor::new()),
            slots: (0..MAX_VCPUS).map(|_| Slot::new()).collect(),
            slots_used: AtomicUsize::new(0),
        }
    }

    /// Where the controller is.
    pub fn config(&self) -> GicConfig {
        self.config
    }

    /// Connects a new vCPU, with affinity Aff1 = index / 16, Aff0 = index % 16
    /// until [`Self::set_affinity`].
    pub fn attach(&self, link: &Arc<VcpuShared>) {
        let index = link.index();
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        slot.attach(link, self.lock().forwarding());
        self.slots_used.fetch_max(index + 1, Ordering::Relaxed);
        self.set_affinity(index, (((index / 16) << 8) | (index % 16)) as u64);
    }

    /// Disconnects a vCPU.
    pub fn detach(&self, vcpu: usize) {
        let Some(slot) = self.slots.get(vcpu) else {
            return;
        };
        slot.detach();
        self.reroute();
    }

    /// Sets the affinity (`MPIDR_EL1`) that SGIs and SPIs find the vCPU by.
    pub fn set_affinity(&self, vcpu: usize, mpidr: u64) {
        if let Some(slot) = self.slots.get(vcpu) {
            slot.set_affinity(mpidr & 0xff_ffff | (mpidr >> 32 & 0xff) << 24);
            self.reroute();
        }
    }

    /// Address of the redistributor of a vCPU.
    pub fn redistributor_base(&self, vcpu: usize) -> u64 {
        self.config.redistributor + vcpu as u64 * REDISTRIBUTOR_BYTES
    }

    /// `MRS` of a CPU interface register.
    pub fn icc_read(&self, vcpu: usize, reg: IccReg) -> u64 {
        let Some(slot) = self.slots.get(vcpu) else {
            return 0;
        };
        match reg {
            IccReg::Iar1 => match slot.acknowledge() {
                Ok(intid) => intid,
                Err(_) => self.acknowledge_spi(vcpu, slot),
            },
            _ => slot.read(reg),
        }
    }

    /// `MSR` of a CPU interface register.
    pub fn icc_write(&self, vcpu: usize, reg: IccReg, value: u64) {
        let Some(slot) = self.slots.get(vcpu) else {
            return;
        };
        let intid = value & 0xff_ffff;
        match reg {
            IccReg::Eoir1 => {
                // Special INTIDs end nothing (IHI 0069, 12.2.10).
                if intid < SPURIOUS - 3 && slot.end_of_interrupt(intid) {
                    self.deactivate_spi(intid as u32);
                }
            }
            IccReg::Dir => {
                if slot.deactivate(intid) {
                    self.deactivate_spi(intid as u32);
                }
            }
            IccReg::Sgi1r => self.send_sgis(vcpu, value),
            _ => slot.write(reg, value),
        }
    }

    /// Whether the virtual IRQ line of the vCPU is high: a Group 1 interrupt is
    /// pending with sufficient priority. One relaxed load.
    #[inline]
    pub fn irq_line(&self, vcpu: usize) -> bool {
        self.slots.get(vcpu).is_some_and(Slot::line)
    }

    /// Whether WFI must not sleep. PSTATE.I does not matter.
    #[inline]
    pub fn wakes(&self, vcpu: usize) -> bool {
        self.irq_line(vcpu)
    }

    /// Sets the level of a private peripheral interrupt (16..=31).
    pub fn set_ppi(&self, vcpu: usize, intid: u32, level: bool) {
        if let (Some(slot), 16..32) = (self.slots.get(vcpu), intid) {
            slot.set_ppi(intid, level);
        }
    }

    /// Moves the line of an SPI: its level if it is level-sensitive; if it is
    /// edge-triggered, `true` is one edge and `false` nothing. From any thread.
    ///
    /// # Errors
    /// [`BadInterrupt`] if it is no SPI of this controller or reserved for MSIs.
    pub fn set_spi(&self, intid: u32, level: bool) -> Result<(), BadInterrupt> {
        if self.config.msi.is_some_and(|m| m.holds(intid)) {
            return Err(BadInterrupt { intid });
        }
        self.change_spi(intid, |bank, bit| bank.set_line(bit, level))
    }

    /// Delivers a message to address `pa`.
    ///
    /// # Errors
    /// [`BadInterrupt`] if there is no MSI frame, `pa` is not its doorbell or
    /// the INTID is not one of its.
    pub fn send_msi(&self, pa: u64, intid: u32) -> Result<(), BadInterrupt> {
        match self.config.msi {
            Some(msi) if pa == msi.base + MSI_SET_SPI && msi.holds(intid) => {
                self.change_spi(intid, |bank, bit| bank.latch |= 1 << bit)
            }
            _ => Err(BadInterrupt { intid }),
        }
    }

    /// Puts everything in reset state; input lines stay.
    pub fn reset(&self) {
        for slot in self.used() {
            slot.reset();
        }
        self.with_distributor(|distributor, affinities| {
            let levels = distributor.banks.each_ref().map(|b| b.level);
            *distributor = Distributor::new();
            for (bank, level) in distributor.banks.iter_mut().zip(levels) {
                bank.level = level;
            }
            distributor.route_all(affinities);
        });
    }

    /// Checks that every cached line is what the state says: what fuzzing calls
    /// after each step.
    pub(crate) fn check_lines(&self) {
        let distributor = self.lock();
        for (_, index) in self.affinities() {
            let slot = &self.slots[usize::from(index)];
            let interface = slot.lock();
            assert_eq!(interface.spi, distributor.best_for(index));
            assert_eq!(interface.forwarding, distributor.forwarding());
            assert_eq!(slot.line(), interface.signalled().is_some());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Distributor> {
        self.distributor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> &[Slot] {
        let used = self.slots_used.load(Ordering::Relaxed);
        self.slots.get(..used).unwrap_or_default()
    }

    /// (affinity, index) of every vCPU.
    fn affinities(&self) -> Vec<(u64, u8)> {
        let slots = self.used().iter().zip(0u8..);
        slots
            .filter(|(slot, _)| slot.is_attached())
            .map(|(slot, index)| (slot.affinity(), index))
            .collect()
    }

    /// Follows all routes again after affinities changed.
    fn reroute(&self) {
        self.with_distributor(|distributor, affinities| distributor.route_all(affinities));
    }

    /// Changes the distributor in ways that may concern any vCPU.
    fn with_distributor(&self, change: impl FnOnce(&mut Distributor, &[(u64, u8)])) {
        let affinities = self.affinities();
        let mut distributor = self.lock();
        change(&mut distributor, &affinities);
        let forwarding = distributor.forwarding();
        let mut notices = Vec::new();
        for (_, index) in affinities {
            let slot = &self.slots[usize::from(index)];
            let mut interface = slot.lock();
            interface.forwarding = forwarding;
            interface.spi = distributor.best_for(index);
            notices.push(slot.settle(&interface));
        }
        drop(distributor);
        for notice in notices {
            notice.send();
        }
    }

    /// Changes one SPI and tells the vCPU it leads to.
    fn change_spi(
        &self,
        intid: u32,
        change: impl FnOnce(&mut bank::Bank, u32),
    ) -> Result<(), BadInterrupt> {
        let mut distributor = self.lock();
        let (bank, bit) = distributor.spi(intid).ok_or(BadInterrupt { intid })?;
        change(bank, bit);
        let target = distributor.target(intid);
        let Some(slot) = self.slots.get(usize::from(target)) else {
            debug_assert_eq!(target, NOWHERE);
            return Ok(());
        };
        let mut interface = slot.lock();
        interface.spi = distributor.best_for(target);
        let notice = slot.settle(&interface);
        drop(interface);
        drop(distributor);
        notice.send();
        Ok(())
    }

    /// The part of IAR1 that needs the distributor. What was most urgent may
    /// have changed since the caller looked.
    fn acknowledge_spi(&self, vcpu: usize, slot: &Slot) -> u64 {
        let mut distributor = self.lock();
        let mut interface = slot.lock();
        let Some(taken) = interface.signalled() else {
            return SPURIOUS;
        };
        let intid = u32::from(taken.intid);
        match distributor.spi(intid) {
            Some((bank, bit)) => {
                bank.acknowledge(bit);
                interface.spi = distributor.best_for(vcpu as u8);
            }
            None => interface.bank.acknowledge(intid),
        }
        interface.activate_priority(taken);
        let notice = slot.settle(&interface);
        drop(interface);
        drop(distributor);
        notice.send();
        u64::from(intid)
    }

    fn deactivate_spi(&self, intid: u32) {
        // The guest may name what does not exist: nothing to deactivate.
        let _ignored = self.change_spi(intid, bank::Bank::deactivate);
    }

    /// ICC_SGI1R_EL1 (IHI 0069, 12.2.20).
    fn send_sgis(&self, sender: usize, value: u64) {
        let bit = (value >> 24 & 0xf) as u32;
        let all_others = value >> 40 & 1 != 0;
        let cluster =
            (value >> 48 & 0xff) << 24 | (value >> 32 & 0xff) << 16 | (value >> 16 & 0xff) << 8;
        let first = (value >> 44 & 0xf) << 4;
        for (index, slot) in self.used().iter().enumerate() {
            let affinity = slot.affinity();
            let offset = affinity.wrapping_sub(cluster | first);
            let chosen = if all_others {
                index != sender && slot.is_attached()
            } else {
                offset < 16 && value >> offset & 1 != 0
            };
            if chosen {
                slot.send_sgi(bit);
            }
        }
    }
}
