//! Exception classes of `ESR_EL2` and where they leave the program counter.

/// Exception class, `ESR_EL2[31:26]` (Arm ARM D24.2, `ESR_EL2`).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExceptionClass(pub u8);

impl ExceptionClass {
    /// `WFI` or `WFE`.
    pub const WFX: Self = Self(0x01);
    /// `HVC` from AArch64.
    pub const HVC: Self = Self(0x16);
    /// `SMC` from AArch64.
    pub const SMC: Self = Self(0x17);
    /// `MSR`, `MRS` or a system instruction.
    pub const SYSTEM_REGISTER: Self = Self(0x18);
    /// Instruction abort from the guest.
    pub const INSTRUCTION_ABORT: Self = Self(0x20);
    /// Data abort from the guest.
    pub const DATA_ABORT: Self = Self(0x24);
    /// `BRK`.
    pub const BRK: Self = Self(0x3c);

    /// The class of a syndrome.
    pub const fn of(syndrome: u64) -> Self {
        Self((syndrome >> 26 & 0x3f) as u8)
    }

    /// Bytes to add to the program counter once the exit has been emulated,
    /// so that the guest goes on after the instruction.
    ///
    /// `HVC` is the odd one: its preferred return address is already the next
    /// instruction. Of a data abort this is the answer for emulated device
    /// accesses; one that is to be retried keeps its program counter.
    pub const fn instruction_bytes(self) -> u64 {
        match self {
            Self::WFX | Self::SMC | Self::SYSTEM_REGISTER | Self::DATA_ABORT => 4,
            _ => 0,
        }
    }
}
