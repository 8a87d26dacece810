//! The interrupt controller's windows, for engines that let accesses to them
//! through: some systems do for redistributors, and for reads of their
//! identification.

use std::sync::atomic::Ordering;

use hvf::sys::{GicDistributorReg, GicRedistributorReg};

use super::vcpu::TableVcpu;
use crate::arch::aarch64::affinity;
use crate::hypervisor::EngineError;

/// `PIDR2` with architecture revision 3, GICv3 (Arm IHI 0069 §12.9.24).
const PIDR2_GICV3: u64 = 0x3b;
const PIDR2: u32 = 0xffe8;
/// `GICR_TYPER`, 64 bits.
const TYPER: u32 = 0x8;
/// `GICD_IROUTER<n>`, 64 bits each.
const ROUTERS: std::ops::Range<u32> = 0x6100..0x7fe0;

/// A register of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Window {
    Distributor(u32),
    /// Of vCPU `index`.
    Redistributor {
        index: u32,
        offset: u32,
    },
}

impl TableVcpu {
    /// Reads the interrupt controller, if the address is its.
    pub(super) fn gic_read(&self, address: u64, bytes: u8) -> Result<Option<u64>, EngineError> {
        Ok(self.find(address).map(|window| {
            let (window, wide, shift) = split(window);
            let value = self.read_register(window, wide);
            let mask = u64::MAX >> (64 - 8 * u32::from(bytes));
            value >> shift & mask
        }))
    }

    /// Writes the interrupt controller; false if the address is not its.
    pub(super) fn gic_write(
        &mut self,
        address: u64,
        bytes: u8,
        value: u64,
    ) -> Result<bool, EngineError> {
        let Some(window) = self.find(address) else {
            return Ok(false);
        };
        let (window, wide, shift) = split(window);
        let mask = u64::MAX >> (64 - 8 * u32::from(bytes)) << shift;
        let whole = if wide { u64::MAX } else { 0xffff_ffff };
        let value = if mask & whole == whole {
            value << shift
        } else {
            self.read_register(window, wide) & !mask | value << shift & mask
        };
        match window {
            Window::Distributor(offset) => {
                if let Ok(offset) = u16::try_from(offset) {
                    // Registers the engine does not know ignore writes.
                    let _ = self
                        .shared
                        .gic
                        .set_distributor_reg(GicDistributorReg(offset), value);
                }
            }
            Window::Redistributor { index, offset } if index == self.index => {
                let _ = self
                    .vcpu
                    .set_redistributor_reg(GicRedistributorReg(offset), value);
            }
            // Engines let only its own vCPU's thread write these.
            Window::Redistributor { .. } => {}
        }
        Ok(true)
    }

    fn find(&self, address: u64) -> Option<Window> {
        let (spec, geometry) = (&self.shared.spec, &self.shared.geometry);
        let within = |base: u64, bytes: u64| address.checked_sub(base).filter(|at| *at < bytes);
        if let Some(at) = within(spec.distributor, geometry.distributor_bytes as u64) {
            return Some(Window::Distributor(u32::try_from(at).ok()?));
        }
        let frame = geometry.redistributor_bytes as u64;
        // The engine says where our own is; the others follow in order.
        if let Ok(own) = self.vcpu.redistributor_base()
            && let Some(at) = within(own, frame)
        {
            return Some(Window::Redistributor {
                index: self.index,
                offset: u32::try_from(at).ok()?,
            });
        }
        let at = within(
            spec.redistributors,
            frame.saturating_mul(u64::from(spec.vcpus)),
        )?;
        Some(Window::Redistributor {
            index: u32::try_from(at.checked_div(frame)?).ok()?,
            offset: u32::try_from(at.checked_rem(frame)?).ok()?,
        })
    }

    /// Unknown registers read as zero.
    fn read_register(&self, window: Window, wide: bool) -> u64 {
        let known = match window {
            Window::Distributor(offset) => u16::try_from(offset)
                .ok()
                .and_then(|at| self.shared.gic.distributor_reg(GicDistributorReg(at)).ok()),
            Window::Redistributor { index, offset } if index == self.index => self
                .vcpu
                .redistributor_reg(GicRedistributorReg(offset))
                .ok(),
            Window::Redistributor { index, offset } => {
                (offset == TYPER).then(|| self.typer_of(index))
            }
        };
        let value = known.unwrap_or(match window {
            Window::Distributor(PIDR2) | Window::Redistributor { offset: PIDR2, .. } => PIDR2_GICV3,
            _ => 0,
        });
        if wide { value } else { value & 0xffff_ffff }
    }

    /// `GICR_TYPER` of another vCPU (Arm IHI 0069 §12.11.38): its affinity,
    /// its number, and whether it is the last there is.
    fn typer_of(&self, index: u32) -> u64 {
        let last = u64::from(index + 1 == self.shared.created.load(Ordering::Relaxed));
        affinity(index) << 32 | u64::from(index) << 8 | last << 4
    }
}

/// The register an access falls into, whether it has 64 bits, and how many
/// bits into it the access starts.
fn split(window: Window) -> (Window, bool, u32) {
    let (wide, offset) = match window {
        Window::Distributor(offset) => (ROUTERS.contains(&offset), offset),
        Window::Redistributor { offset, .. } => (offset & !7 == TYPER, offset),
    };
    let width: u32 = if wide { 8 } else { 4 };
    let (start, shift) = (offset & !(width - 1), offset % width * 8);
    let register = match window {
        Window::Distributor(_) => Window::Distributor(start),
        Window::Redistributor { index, .. } => Window::Redistributor {
            index,
            offset: start,
        },
    };
    (register, wide, shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_fall_into_whole_registers() {
        // A priority byte, the upper half of a route, the upper half of TYPER.
        assert_eq!(
            split(Window::Distributor(0x423)),
            (Window::Distributor(0x420), false, 24)
        );
        assert_eq!(
            split(Window::Distributor(0x610c)),
            (Window::Distributor(0x6108), true, 32)
        );
        let typer = |offset| Window::Redistributor { index: 1, offset };
        assert_eq!(split(typer(0xc)), (typer(8), true, 32));
        assert_eq!(split(typer(0x1_0104)), (typer(0x1_0104), false, 0));
    }
}
