//! 64-bit Arm, as a machine sees it.

use std::io::Write;
use std::sync::Arc;

use devices::virtio::StateFormat;

use super::board::{self, ArmBoard};
use super::fdt::{self, FdtSpec};
use super::{affinity, boot, index_of, layout};
use crate::arch::{Arch, Board, BootSpec, Layout, Lines, Start, VirtioSlots};
use crate::boot::{BootError, BootFiles};
use crate::hypervisor::{Architecture, Capabilities, GicKind, VmSpec};
use crate::memory::GuestMemory;

/// Longest kernel command line (Linux, arch/arm64/include/uapi/asm/setup.h).
const MAX_CMDLINE_BYTES: usize = 2047;

/// The machine's part of [`layout`].
static LAYOUT: Layout = Layout {
    ram: layout::RAM,
    min_ram_bytes: layout::MIN_RAM_BYTES,
    max_ram_bytes: layout::MAX_RAM_BYTES,
    hot_unit_bytes: layout::HOT_UNIT_BYTES,
    dax_window: layout::DAX_WINDOW,
    dax_window_bytes: layout::DAX_WINDOW_BYTES,
    generation: layout::GENERATION,
    generation_line: layout::GENERATION_INTID,
    hold: layout::HOLD,
    hold_line: layout::HOLD_INTID,
    virtio: VirtioSlots {
        address: layout::VIRTIO,
        stride_bytes: layout::VIRTIO_STRIDE,
        window_bytes: layout::VIRTIO_BYTES,
        first_line: layout::VIRTIO_INTID,
        max: layout::MAX_VIRTIO,
    },
};

/// The architecture.
#[derive(Clone, Copy, Debug)]
pub struct Aarch64;

impl Arch for Aarch64 {
    fn architecture(&self) -> Architecture {
        Architecture::Aarch64
    }

    fn layout(&self) -> &'static Layout {
        &LAYOUT
    }

    /// Asks for wider addresses only where the default would not reach.
    fn vm_spec(&self, capabilities: &Capabilities) -> VmSpec {
        let bits = LAYOUT.address_bits();
        VmSpec {
            ipa_bits: (capabilities.default_ipa_bits < bits).then_some(bits),
            vcpus: capabilities.max_vcpus,
            distributor: layout::GIC_DISTRIBUTOR,
            redistributors: layout::GIC_REDISTRIBUTORS,
        }
    }

    fn vcpu_id(&self, index: u32) -> u64 {
        affinity(index)
    }

    fn vcpu_index(&self, id: u64) -> Option<u32> {
        index_of(id)
    }

    fn max_cmdline_bytes(&self) -> usize {
        MAX_CMDLINE_BYTES
    }

    fn load(
        &self,
        memory: &GuestMemory,
        files: &BootFiles<'_>,
        spec: &BootSpec<'_>,
    ) -> Result<Start, BootError> {
        let loaded = boot::load(memory, files)?;
        let GicKind::V3 {
            distributor_bytes,
            redistributor_bytes,
            ..
        } = spec.capabilities.gic;
        let tree = fdt::build(&FdtSpec {
            cmdline: spec.cmdline,
            vcpus: spec.vcpus,
            ram_bytes: memory.bytes(),
            initrd: loaded.initrd,
            virtio_devices: spec.virtio_devices,
            distributor_bytes,
            redistributor_bytes,
            rng_seed: spec.rng_seed,
            kaslr_seed: spec.kaslr_seed,
        })
        // Only a zero byte or a tree of many megabytes could fail here.
        .map_err(|_| BootError::BadCommandLine {
            max: MAX_CMDLINE_BYTES,
        })?;
        boot::write_fdt(memory, &loaded, &tree)?;
        Ok(Start {
            entry: loaded.entry,
            argument: loaded.fdt,
        })
    }

    fn board(&self, lines: Lines<'_>, console: Box<dyn Write + Send>) -> Arc<dyn Board> {
        Arc::new(ArmBoard::new(lines, console))
    }

    fn board_formats(&self) -> &'static [StateFormat] {
        &board::FORMATS
    }
}
