//! Hints, barriers, system registers and cache instructions of EL0.

use super::arithmetic::bits;
use super::memory::Access;
use super::{Oracle, Step, UNDEFINED};
use crate::a64::inputs::{FPCR_BITS, FPSR_BITS};

/// Bytes that DC ZVA zeroes (DCZID_EL0.BS = 4).
const ZERO_BYTES: u64 = 64;

/// What the oracle knows of the system encodings, without the register.
const KNOWN: [u32; 13] = [
    0xd53b_4200, // mrs nzcv
    0xd51b_4200, // msr nzcv
    0xd53b_4400, // mrs fpcr
    0xd51b_4400, // msr fpcr
    0xd53b_4420, // mrs fpsr
    0xd51b_4420, // msr fpsr
    0xd53b_d040, // mrs tpidr_el0
    0xd51b_d040, // msr tpidr_el0
    0xd50b_7420, // dc zva
    0xd50b_7a20, // dc cvac
    0xd50b_7e20, // dc civac
    0xd50b_7b20, // dc cvau
    0xd50b_7520, // ic ivau
];

fn is_hint(word: u32) -> bool {
    word & 0xffff_f01f == 0xd503_201f
}

/// CLREX, DSB, DMB, ISB.
fn is_barrier(word: u32) -> bool {
    word & 0xffff_f01f == 0xd503_301f && matches!(bits(word, 7, 5), 2 | 4 | 5 | 6)
}

pub fn covers(word: u32) -> bool {
    is_hint(word) || is_barrier(word) || KNOWN.contains(&(word & !31))
}

impl Oracle<'_> {
    pub fn system(&mut self, word: u32) -> Step {
        let t = bits(word, 4, 0);
        if is_hint(word) {
            return Ok(());
        }
        if is_barrier(word) {
            if bits(word, 7, 5) == 2 {
                self.marked = None;
            }
            return Ok(());
        }
        match word & !31 {
            0xd53b_4200 => self.set_x(t, u64::from(self.flags) << 28),
            0xd51b_4200 => self.flags = (self.x(t) >> 28 & 15) as u8,
            0xd53b_4400 => self.set_x(t, u64::from(self.fpcr)),
            0xd51b_4400 => self.fpcr = self.x(t) as u32 & FPCR_BITS,
            0xd53b_4420 => self.set_x(t, u64::from(self.fpsr)),
            0xd51b_4420 => self.fpsr = self.x(t) as u32 & FPSR_BITS,
            0xd53b_d040 => self.set_x(t, self.tpidr),
            0xd51b_d040 => self.tpidr = self.x(t),
            0xd50b_7420 => {
                let address = self.x(t);
                // The fault is reported for the address given.
                self.memory.check(address, 1, Access::Store)?;
                let start = address & !(ZERO_BYTES - 1);
                for at in (start..start + ZERO_BYTES).step_by(8) {
                    self.memory.write(at, 8, 0)?;
                }
            }
            0xd50b_7a20 | 0xd50b_7e20 | 0xd50b_7b20 | 0xd50b_7520 => {
                self.memory.check(self.x(t), 1, Access::Load)?;
            }
            _ => return UNDEFINED,
        }
        Ok(())
    }
}
