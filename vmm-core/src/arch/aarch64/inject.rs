//! Exceptions that we make the guest take, for engines that cannot.

/// Registers of a vCPU that take part in taking an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The new program counter.
    pub pc: u64,
    /// The new processor state.
    pub cpsr: u64,
    /// `ELR_EL1`.
    pub elr: u64,
    /// `SPSR_EL1`.
    pub spsr: u64,
    /// `ESR_EL1`.
    pub esr: u64,
}

/// Mode bits of the processor state.
const MODE: u64 = 0x1f;
const EL1T: u64 = 0x4;
const EL1H: u64 = 0x5;
/// Set in the mode bits for 32-bit state.
const AARCH32: u64 = 0x10;
const NZCV: u64 = 0xf << 28;
const DIT: u64 = 1 << 24;
const PAN: u64 = 1 << 22;
const DAIF: u64 = 0xf << 6;
/// `SCTLR_EL1.SPAN`: exceptions leave PAN as it is.
const SPAN: u64 = 1 << 23;
/// `ESR_ELx.IL`: a 32-bit instruction; class 0, unknown reason.
const UNDEFINED_INSTRUCTION: u64 = 1 << 25;

/// The guest takes an undefined-instruction exception to EL1 from `pc`
/// (Arm ARM, pseudocode `AArch64.TakeException`).
pub const fn undefined_instruction(pc: u64, cpsr: u64, vbar: u64, sctlr: u64) -> Taken {
    let vector = match cpsr & MODE {
        EL1T => 0x000,
        EL1H => 0x200,
        mode if mode & AARCH32 == 0 => 0x400,
        _ => 0x600,
    };
    let pan = if sctlr & SPAN == 0 { PAN } else { cpsr & PAN };
    Taken {
        pc: vbar.wrapping_add(vector),
        cpsr: cpsr & (NZCV | DIT) | pan | DAIF | EL1H,
        elr: pc,
        spsr: cpsr,
        esr: UNDEFINED_INSTRUCTION,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_depends_on_where_the_guest_was() {
        let vector = |cpsr| undefined_instruction(0x1234, cpsr, 0xffff_0000, SPAN).pc & 0xfff;
        assert_eq!(
            [0x3c4, 0x3c5, 0x0, 0x10].map(vector),
            [0, 0x200, 0x400, 0x600]
        );
    }

    #[test]
    fn the_interrupted_state_is_kept_and_interrupts_are_masked() {
        let user = 1 << 31 | 1 << 20 | 1 << 21;
        let taken = undefined_instruction(0x40_0000, user, 0, 0);
        assert_eq!((taken.elr, taken.spsr), (0x40_0000, user));
        assert_eq!(taken.cpsr, 1 << 31 | PAN | DAIF | EL1H);
        assert_eq!(taken.esr >> 26, 0);
    }
}
