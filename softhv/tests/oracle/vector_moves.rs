//! Modified immediates, copies and permutations of vectors (Arm ARM C4.1.96).

use super::arithmetic::{bit, bits};
use super::structures::{element, with_element};
use super::vector::number;
use super::{Oracle, Step, UNDEFINED};

/// `value` in all lanes of the lowest `width` bits.
fn everywhere(value: u128, size: u32, width: u32) -> u128 {
    (0..width / size).fold(0, |all, at| with_element(all, at, size, value))
}

impl Oracle<'_> {
    pub fn modified_immediate(&mut self, word: u32) -> Step {
        let (how, negate) = (bits(word, 15, 12), bit(word, 29));
        if bit(word, 11) {
            return UNDEFINED;
        }
        let byte = u128::from(bits(word, 18, 16) << 5 | bits(word, 9, 5));
        let width = if bit(word, 30) { 128 } else { 64 };
        let d = bits(word, 4, 0) as usize;
        let value = match how {
            0..=7 => everywhere(byte << (8 * (how >> 1)), 32, width),
            8..=11 => everywhere(byte << (8 * (how >> 1 & 1)), 16, width),
            12 => everywhere(byte << 8 | 0xff, 32, width),
            13 => everywhere(byte << 16 | 0xffff, 32, width),
            _ if negate => (0..width / 8)
                .filter(|at| byte >> (at % 8) & 1 == 1)
                .fold(0, |all, at| with_element(all, at, 8, 0xff)),
            _ => everywhere(byte, 8, width),
        };
        let all = u128::MAX >> (128 - width);
        let combines = how < 12 && how & 1 == 1;
        self.v[d] = match (combines, negate) {
            (true, false) => (self.v[d] | value) & all,
            (true, true) => self.v[d] & !value & all,
            (false, true) if how != 14 => !value & all,
            (false, _) => value,
        };
        Ok(())
    }

    pub fn copy(&mut self, word: u32) -> Step {
        let (five, four) = (bits(word, 20, 16), bits(word, 14, 11));
        let (q, scalar) = (bit(word, 30), bit(word, 28));
        if five & 15 == 0 {
            return UNDEFINED;
        }
        let log = five.trailing_zeros();
        let (size, at) = (8 << log, five >> (log + 1));
        let (d, n) = (bits(word, 4, 0), bits(word, 9, 5));
        let source = self.v[n as usize];
        let target = self.v[d as usize];
        let general = u128::from(self.x(n));
        let width = Self::vector_width(word, size);
        let result = match (bit(word, 29), four) {
            (false, 0) if scalar || q || size < 64 => {
                everywhere(element(source, at, size), size, width)
            }
            _ if scalar => return UNDEFINED,
            (false, 1) if q || size < 64 => everywhere(general, size, width),
            (false, 3) if q => with_element(target, at, size, general),
            (false, 5) if size < 32 || size == 32 && q => {
                let value = number(source, at, size, true) as u64;
                let value = if q { value } else { u64::from(value as u32) };
                self.set_x(d, value);
                return Ok(());
            }
            (false, 7) if q == (size == 64) => {
                self.set_x(d, element(source, at, size) as u64);
                return Ok(());
            }
            (true, _) if q => {
                let from = four >> log;
                with_element(target, at, size, element(source, from, size))
            }
            _ => return UNDEFINED,
        };
        self.v[d as usize] = result;
        Ok(())
    }

    pub fn permute(&mut self, word: u32) -> Step {
        let (how, size) = (bits(word, 14, 12), 8 << bits(word, 23, 22));
        let width = Self::vector_width(word, size);
        if how & 3 == 0 || size == 64 && width == 64 {
            return UNDEFINED;
        }
        let [n, m] = [5, 16].map(|low| self.v[(word >> low & 31) as usize]);
        let (count, part) = (width / size, how >> 2);
        let mut result = 0;
        for at in 0..count {
            let (from, index) = match how & 3 {
                // UZP: the even or the odd ones of both, one after the other.
                1 if at < count / 2 => (n, 2 * at + part),
                1 => (m, 2 * at + part - count),
                // TRN: pairs of both.
                2 => (if at & 1 == 0 { n } else { m }, (at & !1) + part),
                // ZIP: one of each, of the lower or the upper half.
                _ => (if at & 1 == 0 { n } else { m }, at / 2 + part * (count / 2)),
            };
            result = with_element(result, at, size, element(from, index, size));
        }
        self.v[bits(word, 4, 0) as usize] = result;
        Ok(())
    }

    pub fn extract_vector(&mut self, word: u32) -> Step {
        let (first, bytes) = (bits(word, 14, 11), Self::vector_width(word, 8) / 8);
        if bits(word, 23, 22) != 0 || first >= bytes {
            return UNDEFINED;
        }
        let [n, m] = [5, 16].map(|low| self.v[(word >> low & 31) as usize]);
        self.v[bits(word, 4, 0) as usize] = (0..bytes).fold(0, |all, at| {
            let from = first + at;
            let byte = if from < bytes {
                element(n, from, 8)
            } else {
                element(m, from - bytes, 8)
            };
            with_element(all, at, 8, byte)
        });
        Ok(())
    }

    pub fn table(&mut self, word: u32) -> Step {
        if bits(word, 23, 22) != 0 {
            return UNDEFINED;
        }
        let (n, m) = (bits(word, 9, 5), self.v[bits(word, 20, 16) as usize]);
        let (d, registers) = (bits(word, 4, 0) as usize, bits(word, 14, 13) + 1);
        let was = self.v[d];
        self.v[d] = (0..Self::vector_width(word, 8) / 8).fold(0, |all, at| {
            let index = element(m, at, 8) as u32;
            let byte = if index < 16 * registers {
                let register = self.v[((n + index / 16) % 32) as usize];
                element(register, index % 16, 8)
            } else if bit(word, 12) {
                element(was, at, 8)
            } else {
                0
            };
            with_element(all, at, 8, byte)
        });
        Ok(())
    }
}
