//! What sections of `state.bin` hold.

use std::fmt;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionKind(pub u32);

impl SectionKind {
    /// Board: memory layout, clock offset, boot parameters.
    pub const MACHINE: Self = Self(1);
    /// One virtual CPU; the instance is its index.
    pub const VCPU: Self = Self(2);
    /// Interrupt controller.
    pub const INTERRUPTS: Self = Self(3);
    /// Counter and timers.
    pub const TIMER: Self = Self(4);
    /// Sockets the guest listens on.
    pub const LISTENERS: Self = Self(5);
    /// First kind of device.
    const FIRST_DEVICE: u32 = 0x1_0000;
    /// Last kind of device.
    const LAST_DEVICE: u32 = 0x1_ffff;

    /// A device by the number of its model (the virtio device id, or 0x8000
    /// and up for others); the instance is its slot.
    #[must_use]
    pub const fn device(model: u16) -> Self {
        Self(Self::FIRST_DEVICE + model as u32)
    }

    pub(crate) const fn is_device(self) -> bool {
        matches!(self.0, Self::FIRST_DEVICE..=Self::LAST_DEVICE)
    }
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MACHINE => f.write_str("machine"),
            Self::VCPU => f.write_str("vcpu"),
            Self::INTERRUPTS => f.write_str("interrupts"),
            Self::TIMER => f.write_str("timer"),
            Self::LISTENERS => f.write_str("listeners"),
            kind if kind.is_device() => write!(f, "device {}", kind.0 - Self::FIRST_DEVICE),
            Self(other) => write!(f, "kind {other:#x}"),
        }
    }
}
