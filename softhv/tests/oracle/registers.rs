//! Data processing of registers (Arm ARM C4.1.95).

use super::arithmetic::{
    add_with_carry, bit, bits, crc, extend, holds, negative_zero, ones, shift, sign_extend,
};
use super::immediates::width_of;
use super::{Oracle, Step, UNDEFINED};

impl Oracle<'_> {
    pub fn data_register(&mut self, word: u32) -> Step {
        match (bits(word, 28, 24), bits(word, 23, 21)) {
            (0b01010, _) => self.logical(word),
            (0b01011, how) if how & 1 == 0 => self.add_shifted(word),
            (0b01011, 1) => self.add_extended(word),
            (0b11010, 0) => self.add_carry(word),
            (0b11010, 2) => self.conditional_compare(word),
            (0b11010, 4) => self.conditional_select(word),
            (0b11010, 6) if bit(word, 30) => self.one_source(word),
            (0b11010, 6) => self.two_sources(word),
            (0b11011, _) => self.three_sources(word),
            _ => UNDEFINED,
        }
    }

    /// The shifted second operand; none if it shifts by more than the width.
    fn shifted(&self, word: u32) -> Option<u64> {
        let (width, by) = (width_of(word), bits(word, 15, 10));
        let value = self.x(bits(word, 20, 16));
        (by < width).then(|| shift(value, bits(word, 23, 22), by, width))
    }

    fn logical(&mut self, word: u32) -> Step {
        let width = width_of(word);
        let Some(b) = self.shifted(word) else {
            return UNDEFINED;
        };
        let b = if bit(word, 21) { !b } else { b };
        let a = self.x(bits(word, 9, 5));
        let result = ones(width)
            & match bits(word, 30, 29) {
                0 | 3 => a & b,
                1 => a | b,
                _ => a ^ b,
            };
        if bits(word, 30, 29) == 3 {
            self.flags = negative_zero(result, width);
        }
        self.set_x(bits(word, 4, 0), result);
        Ok(())
    }

    fn add_shifted(&mut self, word: u32) -> Step {
        let Some(b) = self.shifted(word).filter(|_| bits(word, 23, 22) != 3) else {
            return UNDEFINED;
        };
        let result = self.sum_or_difference(word, self.x(bits(word, 9, 5)), b);
        self.set_x(bits(word, 4, 0), result);
        Ok(())
    }

    fn add_extended(&mut self, word: u32) -> Step {
        let by = bits(word, 12, 10);
        if bits(word, 23, 22) != 0 || by > 4 {
            return UNDEFINED;
        }
        let b = extend(self.x(bits(word, 20, 16)), bits(word, 15, 13), by);
        let result = self.sum_or_difference(word, self.x_or_sp(bits(word, 9, 5)), b);
        if bit(word, 29) {
            self.set_x(bits(word, 4, 0), result);
        } else {
            self.set_x_or_sp(bits(word, 4, 0), result);
        }
        Ok(())
    }

    fn add_carry(&mut self, word: u32) -> Step {
        if bits(word, 15, 10) != 0 {
            return UNDEFINED;
        }
        let b = self.x(bits(word, 20, 16));
        let b = if bit(word, 30) { !b } else { b };
        let a = self.x(bits(word, 9, 5));
        let (result, flags) = add_with_carry(a, b, self.flags & 2 != 0, width_of(word));
        if bit(word, 29) {
            self.flags = flags;
        }
        self.set_x(bits(word, 4, 0), result);
        Ok(())
    }

    fn conditional_compare(&mut self, word: u32) -> Step {
        if !bit(word, 29) || bit(word, 10) || bit(word, 4) {
            return UNDEFINED;
        }
        let b = if bit(word, 11) {
            u64::from(bits(word, 20, 16))
        } else {
            self.x(bits(word, 20, 16))
        };
        if holds(bits(word, 15, 12), self.flags) {
            self.sum_or_difference(word, self.x(bits(word, 9, 5)), b);
        } else {
            self.flags = bits(word, 3, 0) as u8;
        }
        Ok(())
    }

    fn conditional_select(&mut self, word: u32) -> Step {
        if bit(word, 29) || bit(word, 11) {
            return UNDEFINED;
        }
        let result = if holds(bits(word, 15, 12), self.flags) {
            self.x(bits(word, 9, 5))
        } else {
            let other = self.x(bits(word, 20, 16));
            let other = if bit(word, 30) { !other } else { other };
            other.wrapping_add(u64::from(bit(word, 10)))
        };
        self.set_x(bits(word, 4, 0), result & ones(width_of(word)));
        Ok(())
    }

    fn two_sources(&mut self, word: u32) -> Step {
        let width = width_of(word);
        let (a, b) = (self.x(bits(word, 9, 5)), self.x(bits(word, 20, 16)));
        let (a, b) = (a & ones(width), b & ones(width));
        let signed = |value| i128::from(sign_extend(value, width) as i64);
        if bit(word, 29) {
            return UNDEFINED;
        }
        let result = match bits(word, 15, 10) {
            2 => a.checked_div(b).unwrap_or(0),
            3 => signed(a).checked_div(signed(b)).unwrap_or(0) as u64,
            how @ 8..=11 => shift(a, how & 3, (b % u64::from(width)) as u32, width),
            how @ 16..=23 => {
                let size = how & 3;
                if (size == 3) != (width == 64) {
                    return UNDEFINED;
                }
                let polynomial = if how & 4 == 0 {
                    0xedb8_8320
                } else {
                    0x82f6_3b78
                };
                u64::from(crc(
                    a as u32,
                    self.x(bits(word, 20, 16)),
                    1 << size,
                    polynomial,
                ))
            }
            _ => return UNDEFINED,
        };
        self.set_x(bits(word, 4, 0), result & ones(width));
        Ok(())
    }

    fn one_source(&mut self, word: u32) -> Step {
        if bit(word, 29) || bits(word, 20, 16) != 0 {
            return UNDEFINED;
        }
        let width = width_of(word);
        let a = self.x(bits(word, 9, 5)) & ones(width);
        let bit_at = |at: u32| a >> at & 1;
        let result = match bits(word, 15, 10) {
            0 => (0..width).fold(0, |all, at| all << 1 | bit_at(at)),
            1 => reverse_bytes(a, 2, width),
            2 => reverse_bytes(a, 4, width),
            3 if width == 64 => reverse_bytes(a, 8, width),
            4 => leading(width, |at| bit_at(at) == 0),
            // Copies of the sign below the sign.
            5 => leading(width - 1, |at| bit_at(at) == bit_at(width - 1)),
            _ => return UNDEFINED,
        };
        self.set_x(bits(word, 4, 0), result);
        Ok(())
    }

    fn three_sources(&mut self, word: u32) -> Step {
        let width = width_of(word);
        let (n, m) = (self.x(bits(word, 9, 5)), self.x(bits(word, 20, 16)));
        let minus = bit(word, 15);
        let signed_word = |value: u64| i128::from(value as u32 as i32);
        let product = match (bits(word, 30, 29), bits(word, 23, 21), width, minus) {
            (0, 0, ..) => n.wrapping_mul(m),
            (0, 1, 64, _) => (signed_word(n) * signed_word(m)) as u64,
            (0, 5, 64, _) => u64::from(n as u32) * u64::from(m as u32),
            (0, 2, 64, false) => {
                let high = (i128::from(n as i64) * i128::from(m as i64)) >> 64;
                self.set_x(bits(word, 4, 0), high as u64);
                return Ok(());
            }
            (0, 6, 64, false) => {
                let high = (u128::from(n) * u128::from(m)) >> 64;
                self.set_x(bits(word, 4, 0), high as u64);
                return Ok(());
            }
            _ => return UNDEFINED,
        };
        let a = self.x(bits(word, 14, 10));
        let result = if minus {
            a.wrapping_sub(product)
        } else {
            a.wrapping_add(product)
        };
        self.set_x(bits(word, 4, 0), result & ones(width));
        Ok(())
    }
}

/// Reverses the bytes of each container of `bytes` bytes.
fn reverse_bytes(value: u64, bytes: u32, width: u32) -> u64 {
    (0..width / 8).fold(0, |all, from| {
        let to = from / bytes * bytes + (bytes - 1 - from % bytes);
        all | (value >> (8 * from) & 0xff) << (8 * to)
    })
}

/// How many bits from bit `count - 1` down are as wanted.
fn leading(count: u32, wanted: impl Fn(u32) -> bool) -> u64 {
    (0..count).rev().take_while(|&at| wanted(at)).count() as u64
}
