/// Guest physical addresses and interrupts of an architecture's machines, as
/// far as the machine itself uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The first byte of RAM.
    pub ram: u64,
    /// The least RAM that holds a kernel and what it boots with, in bytes.
    pub min_ram_bytes: u64,
    /// The most RAM there can be, in bytes.
    pub max_ram_bytes: u64,
    /// Unit in which a guest takes further memory, in bytes.
    pub hot_unit_bytes: u64,
    /// The window that files of the host can be mapped into.
    pub dax_window: u64,
    /// Length of that window in bytes.
    pub dax_window_bytes: u64,
    /// The page that holds the machine's generation id.
    pub generation: u64,
    /// Interrupt of a new generation id.
    pub generation_line: u32,
    /// Where, in that page, the machine and its guest's kernel share the words
    /// by which programs are held.
    pub hold: u64,
    /// Interrupt, private to each vCPU, that has it look at them.
    pub hold_line: u32,
    /// Where virtio devices are.
    pub virtio: VirtioSlots,
}

/// Where virtio devices are, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioSlots {
    /// The first one's registers.
    pub address: u64,
    /// From one to the next, in bytes.
    pub stride_bytes: u64,
    /// Length of one's registers in bytes.
    pub window_bytes: u64,
    /// Interrupt of the first one; the others' follow.
    pub first_line: u32,
    /// Most there can be.
    pub max: u32,
}

impl VirtioSlots {
    /// Address of device `slot`.
    pub const fn address_of(&self, slot: u32) -> u64 {
        self.address + slot as u64 * self.stride_bytes
    }

    /// Interrupt of device `slot`.
    pub const fn line_of(&self, slot: u32) -> u32 {
        self.first_line + slot
    }
}

impl Layout {
    /// Where memory can be added to a machine with `ram_bytes` of RAM, and how
    /// much: up to where files are mapped, in whole units.
    pub const fn hot_region(&self, ram_bytes: u64) -> (u64, u64) {
        let start = (self.ram + ram_bytes).next_multiple_of(self.hot_unit_bytes);
        let room = self.dax_window.saturating_sub(start);
        (start, room / self.hot_unit_bytes * self.hot_unit_bytes)
    }

    /// Width of guest physical addresses that reach everything, in bits.
    pub const fn address_bits(&self) -> u32 {
        u64::BITS - (self.dax_window + self.dax_window_bytes - 1).leading_zeros()
    }
}
