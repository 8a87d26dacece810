//! Data processing with immediates (Arm ARM C4.1.86).

use super::arithmetic::{add_with_carry, bit, bit_masks, bits, negative_zero, ones, signed_bits};
use super::{Oracle, Step, UNDEFINED};

/// Width of the operation that bit 31 chooses.
pub fn width_of(word: u32) -> u32 {
    if bit(word, 31) { 64 } else { 32 }
}

impl Oracle<'_> {
    pub fn data_immediate(&mut self, word: u32) -> Step {
        match bits(word, 25, 23) {
            0 | 1 => self.pc_relative(word),
            2 => self.add_immediate(word),
            4 => self.logical_immediate(word),
            5 => self.move_wide(word),
            6 => self.bitfield(word),
            7 => self.extract(word),
            _ => UNDEFINED,
        }
    }

    fn pc_relative(&mut self, word: u32) -> Step {
        let offset = signed_bits(word, 23, 5) << 2 | u64::from(bits(word, 30, 29));
        let address = if bit(word, 31) {
            (self.pc & !0xfff).wrapping_add(offset << 12)
        } else {
            self.pc.wrapping_add(offset)
        };
        self.set_x(bits(word, 4, 0), address);
        Ok(())
    }

    /// The result of an addition or subtraction, with flags if bit 29 says so.
    pub fn sum_or_difference(&mut self, word: u32, a: u64, b: u64) -> u64 {
        let minus = bit(word, 30);
        let b = if minus { !b } else { b };
        let (result, flags) = add_with_carry(a, b, minus, width_of(word));
        if bit(word, 29) {
            self.flags = flags;
        }
        result
    }

    fn add_immediate(&mut self, word: u32) -> Step {
        let immediate = u64::from(bits(word, 21, 10)) << if bit(word, 22) { 12 } else { 0 };
        let result = self.sum_or_difference(word, self.x_or_sp(bits(word, 9, 5)), immediate);
        if bit(word, 29) {
            self.set_x(bits(word, 4, 0), result);
        } else {
            self.set_x_or_sp(bits(word, 4, 0), result);
        }
        Ok(())
    }

    fn logical_immediate(&mut self, word: u32) -> Step {
        let (width, n) = (width_of(word), bits(word, 22, 22));
        if width == 32 && n == 1 {
            return UNDEFINED;
        }
        let Some((mask, _)) = bit_masks(n, bits(word, 15, 10), bits(word, 21, 16), true) else {
            return UNDEFINED;
        };
        let a = self.x(bits(word, 9, 5));
        let result = ones(width)
            & match bits(word, 30, 29) {
                0 | 3 => a & mask,
                1 => a | mask,
                _ => a ^ mask,
            };
        if bits(word, 30, 29) == 3 {
            self.flags = negative_zero(result, width);
            self.set_x(bits(word, 4, 0), result);
        } else {
            self.set_x_or_sp(bits(word, 4, 0), result);
        }
        Ok(())
    }

    fn move_wide(&mut self, word: u32) -> Step {
        let (width, d) = (width_of(word), bits(word, 4, 0));
        let at = 16 * bits(word, 22, 21);
        if at >= width {
            return UNDEFINED;
        }
        let immediate = u64::from(bits(word, 20, 5)) << at;
        let result = match bits(word, 30, 29) {
            0 => !immediate,
            2 => immediate,
            3 => self.x(d) & !(0xffff << at) | immediate,
            _ => return UNDEFINED,
        };
        self.set_x(d, result & ones(width));
        Ok(())
    }

    fn bitfield(&mut self, word: u32) -> Step {
        let (width, d) = (width_of(word), bits(word, 4, 0));
        let (n, r, s) = (bits(word, 22, 22), bits(word, 21, 16), bits(word, 15, 10));
        if n != bits(word, 31, 31) || width == 32 && (r | s) & 32 != 0 {
            return UNDEFINED;
        }
        let Some((mask, top_mask)) = bit_masks(n, s, r, false) else {
            return UNDEFINED;
        };
        let source = self.x(bits(word, 9, 5)) & ones(width);
        let kept = self.x(d);
        let rotated = super::arithmetic::rotate_right(source, r, width);
        let sign = if source >> s & 1 == 1 { u64::MAX } else { 0 };
        let result = match bits(word, 30, 29) {
            0 => sign & !top_mask | rotated & mask & top_mask,
            1 => kept & !top_mask | (kept & !mask | rotated & mask) & top_mask,
            2 => rotated & mask & top_mask,
            _ => return UNDEFINED,
        };
        self.set_x(d, result & ones(width));
        Ok(())
    }

    fn extract(&mut self, word: u32) -> Step {
        let (width, lowest) = (width_of(word), bits(word, 15, 10));
        let reserved = bits(word, 30, 29) != 0 || bit(word, 21);
        if reserved || bits(word, 22, 22) != bits(word, 31, 31) || lowest >= width {
            return UNDEFINED;
        }
        let high = u128::from(self.x(bits(word, 9, 5)) & ones(width));
        let low = u128::from(self.x(bits(word, 20, 16)) & ones(width));
        let result = (high << width | low) >> lowest;
        self.set_x(bits(word, 4, 0), result as u64 & ones(width));
        Ok(())
    }
}
