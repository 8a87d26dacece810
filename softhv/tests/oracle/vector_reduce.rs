//! Vectors of one register, sums across lanes, and three registers of
//! different types (Arm ARM C4.1.96).

use super::arithmetic::{bit, bits};
use super::structures::{element, with_element};
use super::vector::number;
use super::{Oracle, Step, UNDEFINED};

/// The lanes of `vector` in reverse order inside containers of `wide` bits.
fn reverse(vector: u128, size: u32, wide: u32, width: u32) -> u128 {
    let each = wide / size;
    (0..width / size).fold(0, |all, at| {
        let from = at / each * each + (each - 1 - at % each);
        with_element(all, at, size, element(vector, from, size))
    })
}

/// How many of the bits from `count - 1` down are `wanted`.
fn leading(value: i128, count: u32, wanted: i128) -> i128 {
    let is = |at: &u32| value >> at & 1 == wanted;
    (0..count).rev().take_while(is).count() as i128
}

impl Oracle<'_> {
    pub fn across_lanes(&mut self, word: u32) -> Step {
        let (how, size, unsigned) = (bits(word, 16, 12), 8 << bits(word, 23, 22), bit(word, 29));
        let width = Self::vector_width(word, size);
        // Of one pair there is no sum.
        if bit(word, 28) || size == 64 || size == 32 && width == 64 {
            return UNDEFINED;
        }
        let n = self.v[bits(word, 9, 5) as usize];
        let lanes = (0..width / size).map(|at| number(n, at, size, !unsigned));
        let (value, to) = match how {
            0x03 => (lanes.sum(), 2 * size),
            0x0a => (lanes.max().unwrap_or(0), size),
            0x1a => (lanes.min().unwrap_or(0), size),
            0x1b if !unsigned => (lanes.sum(), size),
            _ => return UNDEFINED,
        };
        self.v[bits(word, 4, 0) as usize] = with_element(0, 0, to, value as u128);
        Ok(())
    }

    pub fn two_registers(&mut self, word: u32) -> Step {
        let (how, code) = (bits(word, 16, 12), bits(word, 23, 22));
        let (scalar, unsigned, size) = (bit(word, 28), bit(word, 29), 8 << code);
        let width = Self::vector_width(word, size);
        let reverses = match how {
            0 if unsigned => Some(32),
            0 => Some(64),
            1 if !unsigned => Some(16),
            _ => None,
        };
        let allowed = match how {
            3 | 7 if scalar => true,
            8..=11 if scalar => code == 3 && (how != 10 || !unsigned),
            _ if scalar => false,
            0 | 1 => reverses.is_some_and(|wide| size < wide),
            2 | 4 | 6 => code != 3,
            5 => code == 0 || unsigned && code == 1,
            10 if unsigned => false,
            3 | 7..=11 => code != 3 || width == 128,
            _ => false,
        };
        if !allowed {
            return UNDEFINED;
        }
        let (slot, n) = (bits(word, 4, 0) as usize, self.v[bits(word, 9, 5) as usize]);
        let d = self.v[slot];
        if let Some(wide) = reverses {
            self.v[slot] = reverse(n, size, wide, width);
            return Ok(());
        }
        if how == 2 || how == 6 {
            // Pairs become one lane of twice the size, added to what was.
            self.v[slot] = (0..width / size / 2).fold(0, |all, at| {
                let pair = [2 * at, 2 * at + 1].map(|at| number(n, at, size, !unsigned));
                let was = if how == 6 {
                    element(d, at, 2 * size)
                } else {
                    0
                };
                let sum = pair[0] + pair[1] + was as i128;
                with_element(all, at, 2 * size, sum as u128)
            });
            return Ok(());
        }
        // CNT, NOT and RBIT work on bytes, whatever the code.
        let size = if how == 5 { 8 } else { size };
        let mut result = 0;
        for at in 0..width / size {
            let a = number(n, at, size, true);
            let bare = element(n, at, size) as i128;
            let was = number(d, at, size, !unsigned);
            let yes = |is: bool| if is { -1 } else { 0 };
            let value = match (how, unsigned) {
                // SUQADD adds unsigned to signed, USQADD the other way.
                (3, false) => self.saturate(was + bare, size, true),
                (3, true) => self.saturate(was + a, size, false),
                (4, false) => leading(bare, size - 1, bare >> (size - 1) & 1),
                (4, true) => leading(bare, size, 0),
                (5, false) => i128::from(bare.count_ones()),
                (5, true) if code == 0 => !bare,
                (5, true) => (0..8).fold(0, |all, at| all << 1 | bare >> at & 1),
                (7, false) => self.saturate(a.abs(), size, true),
                (7, true) => self.saturate(-a, size, true),
                (8, false) => yes(a > 0),
                (8, true) => yes(a >= 0),
                (9, false) => yes(a == 0),
                (9, true) => yes(a <= 0),
                (10, _) => yes(a < 0),
                (_, false) => a.abs(),
                (_, true) => -a,
            };
            result = with_element(result, at, size, value as u128);
        }
        self.v[slot] = result;
        Ok(())
    }

    /// XTN, SQXTUN, SHLL, SQXTN, UQXTN.
    pub fn narrow_or_long(&mut self, word: u32) -> Step {
        let (how, code) = (bits(word, 16, 12), bits(word, 23, 22));
        let (scalar, unsigned, size) = (bit(word, 28), bit(word, 29), 8 << code);
        let saturates = how == 0x14 || how == 0x12 && unsigned;
        let defined = saturates || !scalar && (how == 0x12 || how == 0x13 && unsigned);
        if code == 3 || !defined {
            return UNDEFINED;
        }
        let (slot, n) = (bits(word, 4, 0) as usize, self.v[bits(word, 9, 5) as usize]);
        let count = if scalar { 1 } else { 64 / size };
        if how == 0x13 {
            let first = if bit(word, 30) { count } else { 0 };
            self.v[slot] = (0..count).fold(0, |all, at| {
                with_element(all, at, 2 * size, element(n, first + at, size) << size)
            });
            return Ok(());
        }
        let mut half = 0;
        for at in 0..count {
            let a = number(n, at, 2 * size, how == 0x12 || !unsigned);
            let value = match (how, unsigned) {
                (0x12, false) => a,
                (0x12, true) => self.saturate(a, size, false),
                _ => self.saturate(a, size, !unsigned),
            };
            half = with_element(half, at, size, value as u128);
        }
        self.set_half(word, slot, half);
        Ok(())
    }

    pub fn three_different(&mut self, word: u32) -> Step {
        let (how, code) = (bits(word, 15, 12), bits(word, 23, 22));
        let (scalar, unsigned, size) = (bit(word, 28), bit(word, 29), 8 << code);
        let doubles = matches!(how, 9 | 11 | 13);
        let allowed = match how {
            9 | 11 | 13 => !unsigned && (code == 1 || code == 2),
            14 => !scalar && !unsigned && code == 0,
            15 => false,
            _ => !scalar && code != 3,
        };
        if !allowed {
            return UNDEFINED;
        }
        let slot = bits(word, 4, 0) as usize;
        let [d, n, m] = [0, 5, 16].map(|low| self.v[(word >> low & 31) as usize]);
        let count = if scalar { 1 } else { 64 / size };
        let first = if bit(word, 30) && !scalar { count } else { 0 };
        let wide = 2 * size;
        let mut result = 0;
        for at in 0..count {
            let of = |vector| number(vector, first + at, size, !unsigned);
            let of_wide = |vector| number(vector, at, wide, !unsigned);
            let (a, b, was) = (of(n), of(m), of_wide(d));
            if how == 4 || how == 6 {
                // The upper half of each lane of the result; U rounds.
                let (a, b) = (of_wide(n), of_wide(m));
                let sum = if how == 4 { a + b } else { a - b };
                let half = if unsigned { 1 << (size - 1) } else { 0 };
                result = with_element(result, at, size, ((sum + half) >> size) as u128);
                continue;
            }
            let doubled = if doubles {
                self.saturate(2 * a * b, wide, true)
            } else {
                0
            };
            let value = match how {
                0 => a + b,
                1 => of_wide(n) + b,
                2 => a - b,
                3 => of_wide(n) - b,
                5 => was + (a - b).abs(),
                7 => (a - b).abs(),
                8 => was + a * b,
                9 => self.saturate(was + doubled, wide, true),
                10 => was - a * b,
                11 => self.saturate(was - doubled, wide, true),
                12 => a * b,
                13 => doubled,
                _ => (0..8)
                    .filter(|bit| b >> bit & 1 == 1)
                    .fold(0, |all, bit| all ^ (a & 0xff) << bit),
            };
            result = with_element(result, at, wide, value as u128);
        }
        if how == 4 || how == 6 {
            self.set_half(word, slot, result);
        } else {
            self.v[slot] = result;
        }
        Ok(())
    }
}
