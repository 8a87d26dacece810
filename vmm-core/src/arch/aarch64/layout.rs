//! Guest physical addresses and interrupt numbers.
//!
//! Device windows keep to their own 16 KiB pages, the unit of guest mappings,
//! and stay clear of the 32 MiB that the redistributors of the largest
//! machine would take.

/// The interrupt distributor.
pub const GIC_DISTRIBUTOR: u64 = 0x0800_0000;
/// The first redistributor.
pub const GIC_REDISTRIBUTORS: u64 = 0x080a_0000;
/// End of what redistributors may take.
pub const GIC_END: u64 = 0x0a0a_0000;

/// The serial console.
pub const UART: u64 = 0x0c00_0000;
/// The real-time clock.
pub const RTC: u64 = 0x0c01_0000;
/// Length of the console's and the clock's windows: one PrimeCell each.
pub const PRIMECELL_BYTES: u64 = 0x1000;

/// The page that holds the machine's generation id: guest memory, but not RAM.
pub const GENERATION: u64 = 0x0c02_0000;
/// Length of the generation id (Virtual Machine Generation ID, 2012: 128 bits).
pub const GENERATION_BYTES: u64 = 16;
/// Two words in the same page by which the guest's kernel is told to hold
/// programs, clear of the id's cache line: one side maps the id as a device.
pub const HOLD: u64 = GENERATION + 0x100;
/// Length of those words.
pub const HOLD_BYTES: u64 = 8;

/// The first virtio device.
pub const VIRTIO: u64 = 0x0c10_0000;
/// From one virtio device to the next: one page of guest mappings.
pub const VIRTIO_STRIDE: u64 = 0x4000;
/// Length of a virtio device's window (virtio 1.2 §4.2.2, with 256 bytes of
/// configuration space).
pub const VIRTIO_BYTES: u64 = 0x200;
/// Most virtio devices in one machine.
pub const MAX_VIRTIO: u32 = 128;

/// The first byte of RAM.
pub const RAM: u64 = 0x8000_0000;
/// The window that files of the host can be mapped into: reserved here, so
/// that RAM never grows into it.
pub const DAX_WINDOW: u64 = 32 << 30;
/// Length of that window.
pub const DAX_WINDOW_BYTES: u64 = 8 << 30;
/// The most RAM there can be.
pub const MAX_RAM_BYTES: u64 = DAX_WINDOW - RAM;
/// The least RAM that holds a kernel, its initial RAM disk and the tree.
pub const MIN_RAM_BYTES: u64 = 16 << 20;
/// Where the device tree is, below the end of RAM, and how long it may be
/// (Linux, Documentation/arch/arm64/booting.rst §2: 2 MiB).
pub const FDT_BYTES: u64 = 2 << 20;

/// Unit in which a guest takes further memory: a memory section of arm64 Linux
/// with pages of 4 KiB (arch/arm64/include/asm/sparsemem.h).
pub const HOT_UNIT_BYTES: u64 = 128 << 20;

/// Interrupt that has a vCPU hold the program it runs, private to each vCPU. Arm's
/// base system architecture (DEN 0094, §3.8.2) gives this number to nothing.
pub const HOLD_INTID: u32 = 16;
/// Interrupt of the virtual timer, private to each vCPU.
pub const VIRTUAL_TIMER_INTID: u32 = 27;
/// Interrupt of the console.
pub const UART_INTID: u32 = 33;
/// Interrupt of the clock.
pub const RTC_INTID: u32 = 34;
/// Interrupt of a new generation id.
pub const GENERATION_INTID: u32 = 35;
/// Interrupt of the first virtio device.
pub const VIRTIO_INTID: u32 = 48;

/// Address of virtio device `slot`.
pub const fn virtio_address(slot: u32) -> u64 {
    VIRTIO + slot as u64 * VIRTIO_STRIDE
}

/// Interrupt of virtio device `slot`.
pub const fn virtio_intid(slot: u32) -> u32 {
    VIRTIO_INTID + slot
}

const _: () = {
    assert!(GIC_END <= UART && virtio_address(MAX_VIRTIO) <= RAM);
    assert!(virtio_intid(MAX_VIRTIO) <= 1020);
    // Fits the 36 bits every chip offers without asking.
    assert!(DAX_WINDOW + DAX_WINDOW_BYTES <= 1 << 36);
};
