//! Any engine with the table of Hypervisor.framework: Apple's own or the
//! software engine.

mod gic_window;
mod saved;
mod vcpu;
mod writes;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hvf::sys::{Api, FeatureReg, MemoryFlags, PAGE_BYTES, Return};
use hvf::{GicAddresses, GicGeometry, HvfError};

use crate::hypervisor::{
    Access, Architecture, Capabilities, CodeCounts, CpuIdentity, DirtyTracking, DynVm, EngineError,
    EngineId, GicKind, Hypervisor, PowerControl, Vm, VmSpec,
};
use crate::memory::{MemoryLease, PageSet};
use writes::{Mapped, Mappings};

pub use vcpu::{TableKick, TableVcpu};

/// An engine, by its table.
#[derive(Clone, Copy, Debug)]
pub struct TableEngine {
    api: Api,
}

impl TableEngine {
    /// The engine that fills `api`.
    pub fn new(api: Api) -> Self {
        Self { api }
    }

    /// The framework of this Mac.
    pub fn system() -> Result<Self, EngineError> {
        Ok(Self::new(hvf::system_api()?))
    }

    /// The software engine, which runs anywhere.
    #[cfg(feature = "softhv")]
    pub fn software() -> Self {
        Self::new(softhv::api())
    }
}

/// Identification registers that a snapshot's copies must find again.
const IDENTITY: [(&str, FeatureReg); 9] = [
    ("ID_AA64DFR0_EL1", FeatureReg::ID_AA64DFR0_EL1),
    ("ID_AA64DFR1_EL1", FeatureReg::ID_AA64DFR1_EL1),
    ("ID_AA64ISAR0_EL1", FeatureReg::ID_AA64ISAR0_EL1),
    ("ID_AA64ISAR1_EL1", FeatureReg::ID_AA64ISAR1_EL1),
    ("ID_AA64MMFR0_EL1", FeatureReg::ID_AA64MMFR0_EL1),
    ("ID_AA64MMFR1_EL1", FeatureReg::ID_AA64MMFR1_EL1),
    ("ID_AA64MMFR2_EL1", FeatureReg::ID_AA64MMFR2_EL1),
    ("ID_AA64PFR0_EL1", FeatureReg::ID_AA64PFR0_EL1),
    ("ID_AA64PFR1_EL1", FeatureReg::ID_AA64PFR1_EL1),
];

impl From<HvfError> for EngineError {
    fn from(error: HvfError) -> Self {
        Self::refused(error, error.is_permanent())
    }
}

impl Hypervisor for TableEngine {
    type Vm = TableVm;

    fn name(&self) -> &'static str {
        self.api.name
    }

    fn id(&self) -> EngineId {
        match self.api.id {
            hvf::EngineId::Framework => EngineId::FRAMEWORK,
            hvf::EngineId::Software => EngineId::SOFTWARE,
        }
    }

    fn identity(&self) -> Result<CpuIdentity, EngineError> {
        let mut registers = BTreeMap::new();
        for (name, register) in IDENTITY {
            registers.insert(name.to_owned(), hvf::feature_reg(&self.api, register)?);
        }
        Ok(CpuIdentity {
            registers,
            counter_hz: self.api.counter_hz,
        })
    }

    fn after_fork(&self) -> Option<fn()> {
        self.api.after_fork
    }

    fn capabilities(&self) -> Result<Capabilities, EngineError> {
        let engine = hvf::Capabilities::query(&self.api)?;
        let gic = GicGeometry::query(&self.api)?;
        // As many redistributors as the engine claims room for.
        let frames = gic.redistributor_region_bytes / gic.redistributor_bytes.max(1);
        Ok(Capabilities {
            architecture: Architecture::Aarch64,
            max_ipa_bits: engine.max_ipa_bits,
            default_ipa_bits: engine.default_ipa_bits,
            page_bytes: PAGE_BYTES,
            max_vcpus: engine
                .max_vcpus
                .min(u32::try_from(frames).unwrap_or(u32::MAX)),
            dirty_tracking: match self.api.dirty {
                Some(_) => DirtyTracking::Log,
                None => DirtyTracking::WriteProtection,
            },
            gic: GicKind::V3 {
                first_spi: gic.first_spi,
                spi_count: gic.spi_count,
                distributor_bytes: gic.distributor_bytes as u64,
                redistributor_bytes: gic.redistributor_bytes as u64,
            },
            power: PowerControl::Machine,
        })
    }

    fn create_vm(&self, spec: &VmSpec) -> Result<TableVm, EngineError> {
        let geometry = GicGeometry::query(&self.api)?;
        let vm = hvf::Vm::new(self.api, spec.ipa_bits)?;
        let gic = vm.create_gic(GicAddresses {
            distributor: spec.distributor,
            redistributors: spec.redistributors,
        })?;
        Ok(TableVm {
            shared: Arc::new(Shared {
                gic,
                vm,
                mappings: Mutex::default(),
                spec: *spec,
                geometry,
                created: AtomicU32::new(0),
                first_counter: (self.api.counter)(),
            }),
        })
    }
}

/// The process's machine.
#[derive(Debug)]
pub struct TableVm {
    shared: Arc<Shared>,
}

/// What a machine and its vCPUs share. Fields are dropped in this order: the
/// engine's machine ends before the memory it maps goes.
#[derive(Debug)]
struct Shared {
    gic: hvf::Gic,
    vm: hvf::Vm,
    mappings: Mutex<Mappings>,
    spec: VmSpec,
    geometry: GicGeometry,
    /// Number of vCPUs created so far.
    created: AtomicU32,
    /// The engine's counter when the machine was made; guests count from it.
    first_counter: u64,
}

impl Shared {
    fn mappings(&self) -> MutexGuard<'_, Mappings> {
        self.mappings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether memory is mapped at this guest address, whatever the guest may
    /// do with it.
    fn is_mapped(&self, ipa: u64) -> bool {
        self.mappings()
            .range(..=ipa)
            .next_back()
            .is_some_and(|(base, mapped)| ipa - base < mapped.lease.bytes() as u64)
    }
}

fn flags(access: Access) -> MemoryFlags {
    match access {
        Access::ReadExecute => MemoryFlags::READ | MemoryFlags::EXEC,
        Access::ReadWriteExecute => MemoryFlags::RWX,
    }
}

impl DynVm for TableVm {
    fn map(&self, memory: MemoryLease, access: Access) -> Result<(), EngineError> {
        let mut mappings = self.shared.mappings();
        // SAFETY: the lease keeps the host memory in place. It is dropped only
        // after the range is unmapped, or after the engine's machine: `Shared`
        // drops `vm` first, and no vCPU keeps the machine longer, because each
        // drops its `hvf::Vcpu` before its `Arc<Shared>`. All other access to
        // guest memory is volatile.
        unsafe {
            self.shared
                .vm
                .map(memory.host(), memory.ipa(), memory.bytes(), flags(access))?;
        }
        mappings.insert(memory.ipa(), Mapped::new(memory, access));
        Ok(())
    }

    fn protect(&self, ipa: u64, bytes: usize, access: Access) -> Result<(), EngineError> {
        self.shared.protect(ipa, bytes, access)
    }

    fn unmap(&self, ipa: u64) -> Result<(), EngineError> {
        let mut mappings = self.shared.mappings();
        let bytes = mappings
            .get(&ipa)
            .ok_or(EngineError::NotMapped { ipa })?
            .lease
            .bytes();
        self.shared.vm.unmap(ipa, bytes)?;
        mappings.remove(&ipa);
        Ok(())
    }

    fn set_irq(&self, intid: u32, level: bool) -> Result<(), EngineError> {
        Ok(self.shared.gic.set_spi(intid, level)?)
    }

    fn save_interrupts(&self) -> Result<Vec<u8>, EngineError> {
        Ok(self.shared.gic.capture()?)
    }

    fn restore_interrupts(&self, state: &[u8]) -> Result<(), EngineError> {
        let gic = &self.shared.gic;
        match gic.restore(state) {
            // Once a vCPU ran, only a controller that was reset takes a state.
            Err(error) if error.code() == Some(Return::DENIED) => {
                gic.reset()?;
                Ok(gic.restore(state)?)
            }
            done => Ok(done?),
        }
    }

    fn track_writes(&self) -> Result<(), EngineError> {
        self.shared.track_writes()
    }

    fn take_written(&self, into: &mut PageSet) -> Result<(), EngineError> {
        self.shared.take_written(into)
    }

    fn content_replaced(&self, pages: &PageSet) -> Result<(), EngineError> {
        self.shared.content_replaced(pages)
    }

    fn note_code(&self) -> Result<(), EngineError> {
        self.shared.vm.note_code()?;
        Ok(())
    }

    fn take_code_notes(&self) -> Result<Vec<u8>, EngineError> {
        Ok(self.shared.vm.take_code_notes()?)
    }

    fn decode_ahead(&self, notes: &[u8], at_work: bool) -> bool {
        self.shared.vm.decode_ahead(notes, at_work)
    }

    fn code_counts(&self) -> Result<CodeCounts, EngineError> {
        let counts = self.shared.vm.code_counts()?;
        let counts = counts.map(|counts| CodeCounts {
            decoded: counts.decoded,
            ahead: counts.ahead,
            instructions_decoded: counts.instructions_decoded,
            decoding: Duration::from_nanos(counts.decoding_ns),
            instructions_compiled: counts.instructions_compiled,
            compiling: Duration::from_nanos(counts.compiling_ns),
            instructions_begun: counts.instructions_begun,
        });
        Ok(counts.unwrap_or_default())
    }

    fn code_census(&self) -> Result<String, EngineError> {
        Ok(self.shared.vm.code_census()?)
    }

    fn counter(&self) -> u64 {
        (self.shared.vm.api().counter)()
    }

    fn counter_hz(&self) -> u64 {
        self.shared.vm.api().counter_hz
    }
}

impl Vm for TableVm {
    type Vcpu = TableVcpu;

    fn create_vcpu(&self, index: u32) -> Result<TableVcpu, EngineError> {
        let vcpu = TableVcpu::new(self.shared.clone(), index)?;
        self.shared.created.fetch_max(index + 1, Ordering::Relaxed);
        Ok(vcpu)
    }
}
