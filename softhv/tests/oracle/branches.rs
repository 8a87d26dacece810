//! Branches and what raises exceptions (Arm ARM C4.1.87).

use super::arithmetic::{bit, bits, holds, ones, sign_extend, signed_bits};
use super::immediates::width_of;
use super::{Oracle, Step, Stop, UNDEFINED};

impl Oracle<'_> {
    pub fn branch_or_system(&mut self, word: u32) -> Step {
        match bits(word, 30, 25) {
            0b00_1010 | 0b00_1011 => {
                if bit(word, 31) {
                    self.set_x(30, self.next);
                }
                self.branch(signed_bits(word, 25, 0) << 2);
                Ok(())
            }
            0b01_1010 => {
                let value = self.x(bits(word, 4, 0)) & ones(width_of(word));
                if (value == 0) != bit(word, 24) {
                    self.branch(signed_bits(word, 23, 5) << 2);
                }
                Ok(())
            }
            0b01_1011 => {
                let at = bits(word, 31, 31) << 5 | bits(word, 23, 19);
                if (self.x(bits(word, 4, 0)) >> at & 1 == 1) == bit(word, 24) {
                    self.branch(signed_bits(word, 18, 5) << 2);
                }
                Ok(())
            }
            0b10_1010 if bits(word, 31, 24) == 0x54 && !bit(word, 4) => {
                if holds(bits(word, 3, 0), self.flags) {
                    self.branch(signed_bits(word, 23, 5) << 2);
                }
                Ok(())
            }
            // BRK. HVC, SMC and DCPS are not EL0's.
            _ if word & 0xffe0_001f == 0xd420_0000 => Err(Stop::Break),
            _ if bits(word, 31, 25) == 0b110_1011 => self.branch_register(word),
            _ if word >> 22 == 0xd500_0000 >> 22 => self.system(word),
            _ => UNDEFINED,
        }
    }

    fn branch(&mut self, offset: u64) {
        self.go_to(self.pc.wrapping_add(offset));
    }

    /// The top byte, which is ignored in addresses, becomes copies of bit 55
    /// (BranchAddr).
    fn go_to(&mut self, address: u64) {
        self.next = sign_extend(address, 56);
    }

    fn branch_register(&mut self, word: u32) -> Step {
        if word & 0x001f_fc1f != 0x001f_0000 {
            return UNDEFINED;
        }
        let target = self.x(bits(word, 9, 5));
        match bits(word, 24, 21) {
            0 | 2 => {}
            1 => self.set_x(30, self.next),
            _ => return UNDEFINED,
        }
        self.go_to(target);
        Ok(())
    }
}
