//! Register frames: guest loads and stores, and the accesses of the ABI.

use super::cpu_interface::Slot;
use super::redistributor::{self, Position};
use super::{
    DISTRIBUTOR_BYTES, Gic, MSI_REGION_BYTES, MSI_SET_SPI, MSI_TYPER, REDISTRIBUTOR_BYTES,
    REDISTRIBUTOR_REGION_BYTES,
};
use crate::faults::FAULTS;
use std::sync::atomic::Ordering;

/// The register frame an address is in, with the offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Frame {
    Distributor(u64),
    Redistributor(usize, u64),
    Msi(u64),
}

impl Gic {
    /// Whether `pa` is a register of the distributor, of an existing
    /// redistributor or of the MSI frame.
    #[inline]
    pub fn contains(&self, pa: u64) -> bool {
        self.frame(pa).is_some()
    }

    /// Whether `pa` is in the redistributor of an existing vCPU.
    pub fn is_redistributor(&self, pa: u64) -> bool {
        matches!(self.frame(pa), Some(Frame::Redistributor(..)))
    }

    /// A guest load of `size` (1, 2, 4, 8) bytes. What is no register reads 0.
    pub fn mmio_read(&self, pa: u64, size: u32, _vcpu: usize) -> u64 {
        let Some(frame) = self.frame(pa) else {
            return 0;
        };
        match size {
            1 => u64::from(self.read_byte(frame)),
            4 if pa.is_multiple_of(4) => u64::from(self.read_word(frame)),
            8 if pa.is_multiple_of(8) => {
                let high = self.frame(pa + 4).map_or(0, |f| self.read_word(f));
                u64::from(self.read_word(frame)) | u64::from(high) << 32
            }
            _ => 0,
        }
    }

    /// A guest store of `size` (1, 2, 4, 8) bytes. What is no register ignores it.
    pub fn mmio_write(&self, pa: u64, size: u32, value: u64, _vcpu: usize) {
        let Some(frame) = self.frame(pa) else {
            return;
        };
        match size {
            1 => self.write_byte(frame, value as u8),
            4 if pa.is_multiple_of(4) => self.write_word(frame, value as u32),
            8 if pa.is_multiple_of(8) => {
                self.write_word(frame, value as u32);
                if let Some(high) = self.frame(pa + 4) {
                    self.write_word(high, (value >> 32) as u32);
                }
            }
            _ => {}
        }
    }

    /// A register of the distributor; unknown ones are 0.
    pub fn distributor_read(&self, offset: u64) -> u64 {
        let distributor = self.lock();
        if (0x6000..0x8000).contains(&offset) && offset.is_multiple_of(8) {
            u64::from(distributor.read(offset)) | u64::from(distributor.read(offset + 4)) << 32
        } else {
            u64::from(distributor.read(offset & !3))
        }
    }

    /// Writes a register of the distributor; unknown and read-only ones ignore it.
    pub fn distributor_write(&self, offset: u64, value: u64) {
        self.with_distributor(|distributor, affinities| {
            distributor.write(offset & !3, value as u32, affinities);
            if (0x6000..0x8000).contains(&offset) && offset.is_multiple_of(8) {
                distributor.write(offset + 4, (value >> 32) as u32, affinities);
            }
        });
    }

    /// A register of a redistributor; unknown ones are 0.
    pub fn redistributor_read(&self, vcpu: usize, offset: u64) -> u64 {
        let word = |at| u64::from(self.read_word(Frame::Redistributor(vcpu, at)));
        if offset == 0x8 {
            word(8) | word(12) << 32
        } else {
            word(offset & !3)
        }
    }

    /// Writes a register of a redistributor.
    pub fn redistributor_write(&self, vcpu: usize, offset: u64, value: u64) {
        self.write_word(Frame::Redistributor(vcpu, offset & !3), value as u32);
    }

    /// A register of the MSI frame; unknown ones are 0.
    pub fn msi_read(&self, offset: u64) -> u64 {
        match (self.config.msi, offset) {
            (Some(msi), MSI_TYPER) => u64::from(msi.first << 16 | msi.count),
            _ => 0,
        }
    }

    /// Writes a register of the MSI frame.
    pub fn msi_write(&self, offset: u64, value: u64) {
        if let (Some(msi), MSI_SET_SPI) = (self.config.msi, offset) {
            // A guest that names a foreign interrupt gets none.
            let _ignored = self.send_msi(msi.base + MSI_SET_SPI, value as u32);
        }
    }

    fn frame(&self, pa: u64) -> Option<Frame> {
        let offset = pa.wrapping_sub(self.config.distributor);
        if offset < DISTRIBUTOR_BYTES {
            return Some(Frame::Distributor(offset));
        }
        let offset = pa.wrapping_sub(self.config.redistributor);
        if offset < REDISTRIBUTOR_REGION_BYTES {
            let index = (offset / REDISTRIBUTOR_BYTES) as usize;
            return self
                .slots
                .get(index)
                .filter(|slot| slot.is_attached())
                .filter(|_| !FAULTS.redistributor_exits.load(Ordering::Relaxed))
                .map(|_| Frame::Redistributor(index, offset % REDISTRIBUTOR_BYTES));
        }
        let offset = pa.wrapping_sub(self.config.msi?.base);
        (offset < MSI_REGION_BYTES).then_some(Frame::Msi(offset))
    }

    fn read_word(&self, frame: Frame) -> u32 {
        match frame {
            Frame::Distributor(offset) => self.lock().read(offset),
            Frame::Redistributor(index, offset) => {
                let Some(slot) = self.slots.get(index) else {
                    return 0;
                };
                let position = Position {
                    number: index,
                    last: !self.used().iter().skip(index + 1).any(Slot::is_attached),
                };
                redistributor::read(slot, position, offset)
            }
            Frame::Msi(offset) => self.msi_read(offset) as u32,
        }
    }

    fn write_word(&self, frame: Frame, value: u32) {
        match frame {
            Frame::Distributor(offset) => self.with_distributor(|distributor, affinities| {
                distributor.write(offset, value, affinities);
            }),
            Frame::Redistributor(index, offset) => {
                if let Some(slot) = self.slots.get(index) {
                    redistributor::write(slot, offset, value);
                }
            }
            Frame::Msi(offset) => self.msi_write(offset, u64::from(value)),
        }
    }

    /// Only priorities can be accessed by bytes.
    fn read_byte(&self, frame: Frame) -> u8 {
        match frame {
            Frame::Distributor(offset @ 0x400..0x800) => self.lock().read_priority(offset),
            Frame::Redistributor(index, offset @ 0x1_0400..0x1_0420) => self
                .slots
                .get(index)
                .map_or(0, |slot| redistributor::read_priority(slot, offset)),
            _ => 0,
        }
    }

    fn write_byte(&self, frame: Frame, value: u8) {
        match frame {
            Frame::Distributor(offset @ 0x400..0x800) => {
                self.with_distributor(|distributor, _| distributor.write_priority(offset, value));
            }
            Frame::Redistributor(index, offset @ 0x1_0400..0x1_0420) => {
                if let Some(slot) = self.slots.get(index) {
                    redistributor::write_priority(slot, offset, value);
                }
            }
            _ => {}
        }
    }
}
