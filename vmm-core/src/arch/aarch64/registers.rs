//! What a vCPU holds.

use serde::{Deserialize, Serialize};

/// Everything of a stopped vCPU that its engine does not keep in the
/// interrupt controller.
///
/// Register numbers are encodings packed as `op0<<14 | op1<<11 | CRn<<7 |
/// CRm<<3 | op2`, which do not depend on the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// `X0` to `X30`.
    pub general: [u64; 31],
    /// The program counter.
    pub pc: u64,
    /// The processor state, in `SPSR` layout.
    pub cpsr: u64,
    /// Floating-point control.
    pub fpcr: u64,
    /// Floating-point status.
    pub fpsr: u64,
    /// `Q0` to `Q31`, least significant byte first.
    pub simd: [[u8; 16]; 32],
    /// Identification registers, to be compared and not restored.
    pub identity: Vec<(u16, u64)>,
    /// System registers.
    pub system: Vec<(u16, u64)>,
    /// Registers of the interrupt CPU interface.
    pub interrupts: Vec<(u16, u64)>,
    /// Whether the virtual timer is masked.
    pub vtimer_masked: bool,
}
