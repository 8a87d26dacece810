//! Vector shifts by immediates (Arm ARM C4.1.96).

use super::arithmetic::{bit, bits};
use super::structures::{element, with_element};
use super::vector::{number, shifted};
use super::{Oracle, Step, UNDEFINED};

impl Oracle<'_> {
    pub fn shift_immediate(&mut self, word: u32) -> Step {
        let immediate = bits(word, 22, 16);
        let Some(log) = (immediate >> 3).checked_ilog2() else {
            return UNDEFINED;
        };
        let size = 8 << log;
        match bits(word, 15, 11) {
            how @ 0x10..=0x13 => self.shift_narrow(word, how, size),
            0x14 => self.shift_long(word, size),
            how => self.shift_same(word, how, size),
        }
    }

    fn shift_same(&mut self, word: u32, how: u32, size: u32) -> Step {
        let (scalar, unsigned) = (bit(word, 28), bit(word, 29));
        let only_unsigned = matches!(how, 0x08 | 0x0c);
        let defined = matches!(how, 0 | 2 | 4 | 6 | 8 | 10 | 12 | 14);
        let saturates = how >= 12;
        let fits = if scalar {
            saturates || size == 64
        } else {
            size != 64 || bit(word, 30)
        };
        if !defined || only_unsigned && !unsigned || !fits {
            return UNDEFINED;
        }
        let immediate = bits(word, 22, 16) as i32;
        let right = immediate - 2 * size as i32;
        let left = immediate - size as i32;
        let (d, n) = (bits(word, 4, 0) as usize, bits(word, 9, 5) as usize);
        let mut result = 0;
        for at in 0..Self::vector_width(word, size) / size {
            let a = number(self.v[n], at, size, !unsigned);
            let was = element(self.v[d], at, size) as i128;
            let below = |count: i32| (1i128 << count) - 1;
            let value = match how {
                0 | 4 => shifted(a, right, size, how == 4),
                2 | 6 => was + shifted(a, right, size, how == 6),
                8 => was & !below(size as i32 + right) | a >> -right,
                10 if unsigned => was & below(left) | a << left,
                10 => a << left,
                12 => {
                    let a = number(self.v[n], at, size, true);
                    self.saturate(a << left, size, false)
                }
                _ => self.saturate(a << left, size, !unsigned),
            };
            result = with_element(result, at, size, value as u128);
        }
        self.v[d] = result;
        Ok(())
    }

    /// From lanes of twice `size` to the lower or upper half.
    fn shift_narrow(&mut self, word: u32, how: u32, size: u32) -> Step {
        let (scalar, unsigned) = (bit(word, 28), bit(word, 29));
        let to_unsigned = how < 0x12 && unsigned;
        if size == 64 || scalar && how < 0x12 && !unsigned {
            return UNDEFINED;
        }
        let by = bits(word, 22, 16) as i32 - 2 * size as i32;
        let (d, n) = (bits(word, 4, 0) as usize, bits(word, 9, 5) as usize);
        let count = if scalar { 1 } else { 64 / size };
        let mut half = 0;
        for at in 0..count {
            let a = number(self.v[n], at, 2 * size, how < 0x12 || !unsigned);
            let value = shifted(a, by, 2 * size, how & 1 == 1);
            let value = match how {
                0x10 | 0x11 if !unsigned => value,
                _ => self.saturate(value, size, !unsigned && !to_unsigned),
            };
            half = with_element(half, at, size, value as u128);
        }
        self.set_half(word, d, half);
        Ok(())
    }

    /// A narrowed result: the upper half if Q, and the lower stays; else the
    /// lower, and the upper is zero. Scalars are always lower.
    pub fn set_half(&mut self, word: u32, d: usize, half: u128) {
        self.v[d] = if bit(word, 30) && !bit(word, 28) {
            self.v[d] & u128::from(u64::MAX) | half << 64
        } else {
            half
        };
    }

    fn shift_long(&mut self, word: u32, size: u32) -> Step {
        if size == 64 || bit(word, 28) {
            return UNDEFINED;
        }
        let by = bits(word, 22, 16) - size;
        let (d, n) = (bits(word, 4, 0) as usize, bits(word, 9, 5) as usize);
        let count = 64 / size;
        let first = if bit(word, 30) { count } else { 0 };
        self.v[d] = (0..count).fold(0, |all, at| {
            let a = number(self.v[n], first + at, size, !bit(word, 29));
            with_element(all, at, 2 * size, (a << by) as u128)
        });
        Ok(())
    }
}
