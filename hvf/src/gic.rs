use std::fmt;
use std::sync::Arc;

use crate::error::{HvfError, check};
use crate::owner::VmInner;
use crate::sys::{Api, GicApi, GicConfig, GicDistributorReg, GicIntid, GicState};

/// Where the interrupt controller's frames are, as guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GicAddresses {
    /// The distributor.
    pub distributor: u64,
    /// The first redistributor; the others follow it.
    pub redistributors: u64,
}

/// Sizes and alignments that [`GicAddresses`] must respect, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GicGeometry {
    /// The distributor's window.
    pub distributor_bytes: usize,
    /// Alignment of the distributor.
    pub distributor_alignment: usize,
    /// One vCPU's redistributor.
    pub redistributor_bytes: usize,
    /// All redistributors the engine may claim.
    pub redistributor_region_bytes: usize,
    /// Alignment of the redistributors.
    pub redistributor_alignment: usize,
    /// First shared peripheral interrupt, normally 32.
    pub first_spi: u32,
    /// Number of shared peripheral interrupts.
    pub spi_count: u32,
}

impl GicGeometry {
    /// Asks the engine; no machine is needed.
    pub fn query(api: &Api) -> Result<Self, HvfError> {
        let gic = api.gic.as_ref().ok_or(HvfError::NoGic)?;
        let mut out = Self::default();
        // SAFETY: each call writes integers through valid pointers.
        unsafe {
            check(
                "gic.get_distributor_size",
                (gic.get_distributor_size)(&raw mut out.distributor_bytes),
            )?;
            check(
                "gic.get_distributor_base_alignment",
                (gic.get_distributor_base_alignment)(&raw mut out.distributor_alignment),
            )?;
            check(
                "gic.get_redistributor_size",
                (gic.get_redistributor_size)(&raw mut out.redistributor_bytes),
            )?;
            check(
                "gic.get_redistributor_region_size",
                (gic.get_redistributor_region_size)(&raw mut out.redistributor_region_bytes),
            )?;
            check(
                "gic.get_redistributor_base_alignment",
                (gic.get_redistributor_base_alignment)(&raw mut out.redistributor_alignment),
            )?;
            check(
                "gic.get_spi_interrupt_range",
                (gic.get_spi_interrupt_range)(&raw mut out.first_spi, &raw mut out.spi_count),
            )?;
        }
        Ok(out)
    }
}

/// The interrupt controller inside the engine.
#[derive(Clone)]
pub struct Gic {
    vm: Arc<VmInner>,
    api: Box<GicApi>,
}

impl fmt::Debug for Gic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gic").finish_non_exhaustive()
    }
}

impl Gic {
    pub(crate) fn new(vm: Arc<VmInner>, addresses: GicAddresses) -> Result<Self, HvfError> {
        let api = Box::new(vm.api.gic.ok_or(HvfError::NoGic)?);
        // SAFETY: creating a configuration has no precondition.
        let config = unsafe { (api.config_create)() };
        if config == GicConfig::NULL {
            return Err(HvfError::NoGic);
        }
        // SAFETY: `config` is live until it is released below.
        let created = unsafe {
            check(
                "gic.config_set_distributor_base",
                (api.config_set_distributor_base)(config, addresses.distributor),
            )
            .and_then(|()| {
                check(
                    "gic.config_set_redistributor_base",
                    (api.config_set_redistributor_base)(config, addresses.redistributors),
                )
            })
            .and_then(|()| check("gic.create", (api.create)(config)))
        };
        // SAFETY: we own the one reference and do not use it again.
        unsafe { (vm.api.os_release)(config.0) };
        created.map(|()| Self { vm, api })
    }

    /// Drives a shared peripheral interrupt, by absolute INTID (32 and up).
    /// On an edge line `true` is one edge and `false` is ignored.
    pub fn set_spi(&self, intid: u32, level: bool) -> Result<(), HvfError> {
        // SAFETY: no pointers; the engine checks the number.
        check("gic.set_spi", unsafe { (self.api.set_spi)(intid, level) })
    }

    /// Reads a distributor register.
    pub fn distributor_reg(&self, reg: GicDistributorReg) -> Result<u64, HvfError> {
        let mut value = 0;
        // SAFETY: `value` is valid for a write.
        check("gic.get_distributor_reg", unsafe {
            (self.api.get_distributor_reg)(reg, &raw mut value)
        })
        .map(|()| value)
    }

    /// Writes a distributor register.
    pub fn set_distributor_reg(&self, reg: GicDistributorReg, value: u64) -> Result<(), HvfError> {
        // SAFETY: no pointers.
        check("gic.set_distributor_reg", unsafe {
            (self.api.set_distributor_reg)(reg, value)
        })
    }

    /// INTID of an interrupt the engine itself raises.
    pub fn intid(&self, source: GicIntid) -> Result<u32, HvfError> {
        let mut intid = 0;
        // SAFETY: `intid` is valid for a write.
        check("gic.get_intid", unsafe {
            (self.api.get_intid)(source, &raw mut intid)
        })
        .map(|()| intid)
    }

    /// Captures distributor and redistributors, but not the CPU interfaces.
    /// No vCPU may be running.
    pub fn capture(&self) -> Result<Vec<u8>, HvfError> {
        // SAFETY: no precondition but a stopped machine, which the engine checks.
        let state = unsafe { (self.api.state_create)() };
        if state == GicState::NULL {
            return Err(HvfError::NoGic);
        }
        let copied = self.copy_out(state);
        // SAFETY: we own the one reference and do not use it again.
        unsafe { (self.vm.api.os_release)(state.0) };
        copied
    }

    fn copy_out(&self, state: GicState) -> Result<Vec<u8>, HvfError> {
        let mut bytes = 0;
        // SAFETY: `state` is live and `bytes` valid for a write.
        check("gic.state_get_size", unsafe {
            (self.api.state_get_size)(state, &raw mut bytes)
        })?;
        let mut data = vec![0; bytes];
        // SAFETY: the buffer has the size the engine asked for.
        check("gic.state_get_data", unsafe {
            (self.api.state_get_data)(state, data.as_mut_ptr().cast())
        })?;
        Ok(data)
    }

    /// Restores a capture: after all vCPUs have their `MPIDR_EL1`, before any
    /// runs. What another engine or version captured is refused.
    pub fn restore(&self, data: &[u8]) -> Result<(), HvfError> {
        // SAFETY: the pointer is valid for reads of the given length.
        check("gic.set_state", unsafe {
            (self.api.set_state)(data.as_ptr().cast(), data.len())
        })
    }

    /// Back to the state after creation.
    pub fn reset(&self) -> Result<(), HvfError> {
        // SAFETY: no pointers.
        check("gic.reset", unsafe { (self.api.reset)() })
    }
}
