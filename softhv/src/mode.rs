//! What code is decoded for.

/// What a block was decoded for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mode {
    /// At EL0.
    pub user: bool,
    /// FP and vector instructions trap (CPACR_EL1.FPEN).
    pub fp_traps: bool,
    /// The stack pointer is misaligned, and that is checked.
    pub sp_off: bool,
}

/// Set in a context or a key for a misaligned stack pointer: beyond physical
/// addresses, and never set in a generation.
pub const SP_OFF: u64 = 1 << 62;

impl Mode {
    /// What names a block of this mode: instruction addresses are multiples of
    /// 4, which leaves two bits.
    pub fn key(self, physical: u64) -> u64 {
        let sp_off = if self.sp_off { SP_OFF } else { 0 };
        physical | sp_off | u64::from(self.user) | u64::from(self.fp_traps) << 1
    }
}
