//! The device tree a guest boots from.

use vm_fdt::{FdtWriter, FdtWriterResult};

use super::{affinity, layout};

/// What differs from machine to machine.
#[derive(Clone, Debug)]
pub struct FdtSpec<'a> {
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// The initial RAM disk's first byte and the one after its last.
    pub initrd: Option<(u64, u64)>,
    /// Number of virtio devices.
    pub virtio_devices: u32,
    /// Bytes of the interrupt distributor.
    pub distributor_bytes: u64,
    /// Bytes of one redistributor.
    pub redistributor_bytes: u64,
    /// Seed for the guest's random numbers.
    pub rng_seed: &'a [u8; 64],
    /// Seed for where the kernel puts itself, if it is to move.
    pub kaslr_seed: Option<u64>,
}

const GIC_PHANDLE: u32 = 1;
const CLOCK_PHANDLE: u32 = 2;
/// Interrupt specifier cells: kind of interrupt.
const SHARED: u32 = 0;
const PRIVATE: u32 = 1;
/// Interrupt specifier cells: trigger.
const EDGE_RISING: u32 = 1;
const LEVEL_HIGH: u32 = 4;
/// First private and first shared interrupt; device trees count them from here.
const FIRST_PRIVATE: u32 = 16;
const FIRST_SHARED: u32 = 32;
/// Rate of the clock that the PrimeCells are said to run at, in Hz.
const PRIMECELL_HZ: u32 = 24_000_000;

/// Writes the tree.
pub fn build(spec: &FdtSpec<'_>) -> FdtWriterResult<Vec<u8>> {
    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_string("compatible", "linux,dummy-virt")?;
    fdt.property_string("model", "supermachine")?;
    fdt.property_u32("interrupt-parent", GIC_PHANDLE)?;
    chosen(&mut fdt, spec)?;
    memory(&mut fdt, spec)?;
    cpus(&mut fdt, spec)?;
    firmware(&mut fdt)?;
    interrupt_controller(&mut fdt, spec)?;
    timer(&mut fdt)?;
    primecells(&mut fdt)?;
    generation(&mut fdt)?;
    hold(&mut fdt)?;
    virtio(&mut fdt, spec)?;
    fdt.end_node(root)?;
    fdt.finish()
}

fn chosen(fdt: &mut FdtWriter, spec: &FdtSpec<'_>) -> FdtWriterResult<()> {
    let node = fdt.begin_node("chosen")?;
    fdt.property_string("bootargs", spec.cmdline)?;
    fdt.property_string("stdout-path", &format!("/pl011@{:x}", layout::UART))?;
    if let Some((start, end)) = spec.initrd {
        fdt.property_u64("linux,initrd-start", start)?;
        fdt.property_u64("linux,initrd-end", end)?;
    }
    fdt.property("rng-seed", spec.rng_seed)?;
    if let Some(seed) = spec.kaslr_seed {
        fdt.property_u64("kaslr-seed", seed)?;
    }
    fdt.end_node(node)
}

fn memory(fdt: &mut FdtWriter, spec: &FdtSpec<'_>) -> FdtWriterResult<()> {
    let node = fdt.begin_node(&format!("memory@{:x}", layout::RAM))?;
    fdt.property_string("device_type", "memory")?;
    fdt.property_array_u64("reg", &[layout::RAM, spec.ram_bytes])?;
    fdt.end_node(node)
}

fn cpus(fdt: &mut FdtWriter, spec: &FdtSpec<'_>) -> FdtWriterResult<()> {
    let node = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 0)?;
    for index in 0..spec.vcpus {
        let affinity = affinity(index);
        let cpu = fdt.begin_node(&format!("cpu@{affinity:x}"))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_string("compatible", "arm,armv8")?;
        fdt.property_u64("reg", affinity)?;
        fdt.property_string("enable-method", "psci")?;
        fdt.end_node(cpu)?;
    }
    fdt.end_node(node)
}

fn firmware(fdt: &mut FdtWriter) -> FdtWriterResult<()> {
    let node = fdt.begin_node("psci")?;
    strings(fdt, "compatible", &["arm,psci-1.0", "arm,psci-0.2"])?;
    fdt.property_string("method", "hvc")?;
    fdt.end_node(node)
}

fn interrupt_controller(fdt: &mut FdtWriter, spec: &FdtSpec<'_>) -> FdtWriterResult<()> {
    let node = fdt.begin_node(&format!("intc@{:x}", layout::GIC_DISTRIBUTOR))?;
    fdt.property_string("compatible", "arm,gic-v3")?;
    fdt.property_u32("#interrupt-cells", 3)?;
    fdt.property_null("interrupt-controller")?;
    let redistributors = spec
        .redistributor_bytes
        .saturating_mul(u64::from(spec.vcpus));
    fdt.property_array_u64(
        "reg",
        &[
            layout::GIC_DISTRIBUTOR,
            spec.distributor_bytes,
            layout::GIC_REDISTRIBUTORS,
            redistributors,
        ],
    )?;
    fdt.property_phandle(GIC_PHANDLE)?;
    fdt.end_node(node)
}

/// The binding's order: secure, non-secure, virtual, hypervisor timer.
fn timer(fdt: &mut FdtWriter) -> FdtWriterResult<()> {
    let node = fdt.begin_node("timer")?;
    fdt.property_string("compatible", "arm,armv8-timer")?;
    fdt.property_null("always-on")?;
    let interrupts: Vec<u32> = [13, 14, 11, 10]
        .into_iter()
        .flat_map(|number| [PRIVATE, number, LEVEL_HIGH])
        .collect();
    fdt.property_array_u32("interrupts", &interrupts)?;
    fdt.end_node(node)
}

fn primecells(fdt: &mut FdtWriter) -> FdtWriterResult<()> {
    let clock = fdt.begin_node("apb-pclk")?;
    fdt.property_string("compatible", "fixed-clock")?;
    fdt.property_u32("#clock-cells", 0)?;
    fdt.property_u32("clock-frequency", PRIMECELL_HZ)?;
    fdt.property_string("clock-output-names", "clk24mhz")?;
    fdt.property_phandle(CLOCK_PHANDLE)?;
    fdt.end_node(clock)?;

    let uart = fdt.begin_node(&format!("pl011@{:x}", layout::UART))?;
    strings(fdt, "compatible", &["arm,pl011", "arm,primecell"])?;
    fdt.property_array_u64("reg", &[layout::UART, layout::PRIMECELL_BYTES])?;
    let interrupt = [SHARED, layout::UART_INTID - FIRST_SHARED, LEVEL_HIGH];
    fdt.property_array_u32("interrupts", &interrupt)?;
    fdt.property_array_u32("clocks", &[CLOCK_PHANDLE, CLOCK_PHANDLE])?;
    strings(fdt, "clock-names", &["uartclk", "apb_pclk"])?;
    fdt.end_node(uart)?;

    let rtc = fdt.begin_node(&format!("pl031@{:x}", layout::RTC))?;
    strings(fdt, "compatible", &["arm,pl031", "arm,primecell"])?;
    fdt.property_array_u64("reg", &[layout::RTC, layout::PRIMECELL_BYTES])?;
    let interrupt = [SHARED, layout::RTC_INTID - FIRST_SHARED, LEVEL_HIGH];
    fdt.property_array_u32("interrupts", &interrupt)?;
    fdt.property_u32("clocks", CLOCK_PHANDLE)?;
    fdt.property_string("clock-names", "apb_pclk")?;
    fdt.end_node(rtc)
}

/// The generation id of `Documentation/devicetree/bindings/rng/microsoft,vmgenid`:
/// a page that is no RAM, and one edge for each new id.
fn generation(fdt: &mut FdtWriter) -> FdtWriterResult<()> {
    let node = fdt.begin_node(&format!("vmgenid@{:x}", layout::GENERATION))?;
    fdt.property_string("compatible", "microsoft,vmgenid")?;
    fdt.property_array_u64("reg", &[layout::GENERATION, layout::GENERATION_BYTES])?;
    let number = layout::GENERATION_INTID - FIRST_SHARED;
    fdt.property_array_u32("interrupts", &[SHARED, number, EDGE_RISING])?;
    fdt.end_node(node)
}

/// What kernel/patches/README.md describes: two words, and an interrupt of each
/// vCPU's own.
fn hold(fdt: &mut FdtWriter) -> FdtWriterResult<()> {
    let node = fdt.begin_node(&format!("hold-user-mode@{:x}", layout::HOLD))?;
    fdt.property_string("compatible", "supermachine,hold-user-mode")?;
    fdt.property_array_u64("reg", &[layout::HOLD, layout::HOLD_BYTES])?;
    let number = layout::HOLD_INTID - FIRST_PRIVATE;
    fdt.property_array_u32("interrupts", &[PRIVATE, number, LEVEL_HIGH])?;
    fdt.end_node(node)
}

fn virtio(fdt: &mut FdtWriter, spec: &FdtSpec<'_>) -> FdtWriterResult<()> {
    for slot in 0..spec.virtio_devices {
        let address = layout::virtio_address(slot);
        let node = fdt.begin_node(&format!("virtio_mmio@{address:x}"))?;
        fdt.property_string("compatible", "virtio,mmio")?;
        fdt.property_array_u64("reg", &[address, layout::VIRTIO_BYTES])?;
        let number = layout::virtio_intid(slot) - FIRST_SHARED;
        fdt.property_array_u32("interrupts", &[SHARED, number, EDGE_RISING])?;
        fdt.property_null("dma-coherent")?;
        fdt.end_node(node)?;
    }
    Ok(())
}

fn strings(fdt: &mut FdtWriter, name: &str, values: &[&str]) -> FdtWriterResult<()> {
    fdt.property_string_list(name, values.iter().map(|&s| s.to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> FdtSpec<'static> {
        FdtSpec {
            cmdline: "console=ttyAMA0",
            vcpus: 17,
            ram_bytes: 256 << 20,
            initrd: Some((0x8800_0000, 0x8810_0000)),
            virtio_devices: 3,
            distributor_bytes: 0x1_0000,
            redistributor_bytes: 0x2_0000,
            rng_seed: &[7; 64],
            kaslr_seed: None,
        }
    }

    fn holds(blob: &[u8], bytes: &[u8]) -> bool {
        blob.windows(bytes.len()).any(|window| window == bytes)
    }

    #[test]
    fn the_tree_names_what_the_machine_has() {
        let blob = build(&spec()).unwrap();
        assert_eq!(blob[..4], 0xd00d_feed_u32.to_be_bytes());
        assert_eq!(
            blob.len(),
            u32::from_be_bytes(blob[4..8].try_into().unwrap()) as usize
        );
        for text in [
            "vmgenid@c020000\0",
            "hold-user-mode@c020100\0",
            "cpu@0\0",
            "cpu@f\0",
            "cpu@100\0",
            "virtio_mmio@c108000\0",
        ] {
            assert!(holds(&blob, text.as_bytes()), "{text}");
        }
        assert!(!holds(&blob, b"cpu@101\0"));
        assert!(!holds(&blob, b"virtio_mmio@c10c000\0"));
        assert!(!holds(&blob, b"kaslr-seed"));
        assert!(holds(&blob, &[7; 64]));
    }

    #[test]
    fn seeds_and_the_initial_ram_disk_are_optional() {
        let blob = build(&FdtSpec {
            initrd: None,
            kaslr_seed: Some(0x0123_4567_89ab_cdef),
            ..spec()
        })
        .unwrap();
        assert!(!holds(&blob, b"linux,initrd-start"));
        assert!(holds(&blob, &0x0123_4567_89ab_cdef_u64.to_be_bytes()));
    }

    #[test]
    fn a_command_line_with_a_zero_byte_is_an_error() {
        let zero = FdtSpec {
            cmdline: "a\0b",
            ..spec()
        };
        assert!(build(&zero).is_err());
    }
}
