//! The user-visible register file: what pure instruction semantics work on.

/// One 128-bit vector register, low half first.
#[repr(C, align(16))]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct V(pub [u64; 2]);

/// General registers, flags and vector state of one vCPU.
///
/// `#[repr(C)]` and first in `Cpu`, so that handlers address it at fixed
/// small offsets.
#[repr(C, align(64))]
#[derive(Clone)]
pub struct Regs {
    /// X0..X30, then the slots [`crate::cpu::op::SP`], [`crate::cpu::op::ZERO`] and
    /// [`crate::cpu::op::SINK`].
    pub x: [u64; 34],
    /// N flag: bit 63. Written as the whole (sign-extended) result.
    pub nf: u64,
    /// Z flag: set if this is zero. Written as the whole result.
    pub zf: u64,
    /// C flag: 0 or 1.
    pub cf: u64,
    /// V flag: bit 63.
    pub vf: u64,
    /// Virtual address of the page that the running block is in.
    pub page: u64,
    /// FPCR.
    pub fpcr: u64,
    /// FPSR.
    pub fpsr: u64,
    /// V0..V31.
    pub v: [V; 32],
}

impl Default for Regs {
    fn default() -> Self {
        Self {
            x: [0; 34],
            nf: 0,
            zf: 1,
            cf: 0,
            vf: 0,
            page: 0,
            fpcr: 0,
            fpsr: 0,
            v: [V::default(); 32],
        }
    }
}

impl Regs {
    /// The value of register slot `slot` (see [`crate::cpu::op::source`]).
    #[inline(always)]
    pub fn get(&self, slot: u8) -> u64 {
        debug_assert!(usize::from(slot) < self.x.len());
        // SAFETY: slots are made by `op::source` and `op::destination`, whose
        // registers are 32 at most, or are SINK: always below 34. The check would cost every
        // handler a branch and a stack frame for its panic.
        unsafe { *self.x.get_unchecked(usize::from(slot)) }
    }

    /// Sets register slot `slot` (see [`crate::cpu::op::destination`]).
    #[inline(always)]
    pub fn set(&mut self, slot: u8, value: u64) {
        debug_assert!(usize::from(slot) < self.x.len());
        // SAFETY: as in `get`.
        unsafe { *self.x.get_unchecked_mut(usize::from(slot)) = value };
    }

    /// Whether condition code `cond` (bits 3:0 of b.cond, C1.2.4) holds.
    #[inline(always)]
    pub fn cond_holds(&self, cond: u16) -> bool {
        let negative = self.nf >> 63 != 0;
        let overflow = self.vf >> 63 != 0;
        let base = match cond >> 1 & 7 {
            0 => self.zf == 0,
            1 => self.cf != 0,
            2 => negative,
            3 => overflow,
            4 => self.cf != 0 && self.zf != 0,
            5 => negative == overflow,
            6 => negative == overflow && self.zf != 0,
            _ => return true,
        };
        base != (cond & 1 != 0)
    }

    /// NZCV in bits 31:28, the layout of the NZCV and SPSR registers.
    #[inline]
    pub fn nzcv(&self) -> u64 {
        (self.nf >> 63) << 31
            | u64::from(self.zf == 0) << 30
            | self.cf << 29
            | (self.vf >> 63) << 28
    }

    /// Sets the flags from bits 31:28 of `value`.
    #[inline]
    pub fn set_nzcv(&mut self, value: u64) {
        self.nf = value << 32;
        self.zf = !value & (1 << 30);
        self.cf = value >> 29 & 1;
        self.vf = value << 35;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nzcv_value_survives_the_split_form() {
        for flags in 0..16u64 {
            let mut regs = Regs::default();
            regs.set_nzcv(flags << 28);
            assert_eq!(regs.nzcv(), flags << 28);
        }
    }
}
