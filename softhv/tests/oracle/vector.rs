//! Integer Advanced SIMD, lane by lane. Not here: operations by element, the
//! rounding doubling accumulations, dot products, cryptography, estimates, and
//! floating point.

use super::arithmetic::{bit, bits};
use super::structures::{element, with_element};
use super::{Oracle, Step, UNDEFINED};

/// FPSR.QC: something saturated.
const QC: u32 = 1 << 27;

/// The groups by fixed bits (Arm ARM C4.1.96).
#[derive(Clone, Copy, PartialEq, Debug)]
enum Group {
    ThreeSame,
    ThreeDifferent,
    TwoRegisters,
    NarrowOrLong,
    AcrossLanes,
    ShiftImmediate,
    ModifiedImmediate,
    Copy,
    Permute,
    Extract,
    Table,
}

fn group(word: u32) -> Option<Group> {
    let is = |mask, value| word & mask == value;
    let scalar_or_not =
        |mask: u32, value| is(mask, value) || is(mask | 0x4000_0000, value | 0x5000_0000);
    if scalar_or_not(0x9f20_0400, 0x0e20_0400) {
        // From 0x18 on, floating point.
        return (bits(word, 15, 11) < 0x18).then_some(Group::ThreeSame);
    }
    if scalar_or_not(0x9f20_0c00, 0x0e20_0000) {
        // PMULL of 64 bits belongs to the cryptographic extension.
        let crypto = bits(word, 15, 12) == 14 && bits(word, 23, 22) == 3;
        return (!crypto).then_some(Group::ThreeDifferent);
    }
    if scalar_or_not(0x9f3e_0c00, 0x0e20_0800) {
        return match bits(word, 16, 12) {
            0..=0x0b => Some(Group::TwoRegisters),
            0x12..=0x14 => Some(Group::NarrowOrLong),
            _ => None,
        };
    }
    if is(0x9f3e_0c00, 0x0e30_0800) {
        let integer = matches!(bits(word, 16, 12), 0x03 | 0x0a | 0x1a | 0x1b);
        return integer.then_some(Group::AcrossLanes);
    }
    if is(0x9ff8_0400, 0x0f00_0400) {
        // Floating-point immediates have cmode 15.
        return (bits(word, 15, 12) != 15).then_some(Group::ModifiedImmediate);
    }
    if scalar_or_not(0x9f80_0400, 0x0f00_0400) {
        // Above 0x14, conversions.
        return (bits(word, 15, 11) <= 0x14).then_some(Group::ShiftImmediate);
    }
    if scalar_or_not(0x9fe0_8400, 0x0e00_0400) {
        return Some(Group::Copy);
    }
    match word {
        w if w & 0xbf20_8c00 == 0x0e00_0800 => Some(Group::Permute),
        w if w & 0xbf20_8400 == 0x2e00_0000 => Some(Group::Extract),
        w if w & 0xbf20_8c00 == 0x0e00_0000 => Some(Group::Table),
        _ => None,
    }
}

pub fn covers(word: u32) -> bool {
    group(word).is_some()
}

/// Element `at` as a number, signed or not.
pub fn number(vector: u128, at: u32, size: u32, signed: bool) -> i128 {
    let value = element(vector, at, size) as i128;
    if signed && value >> (size - 1) & 1 == 1 {
        value - (1 << size)
    } else {
        value
    }
}

/// Shifts left, or right if `by` is negative, rounding if asked. What leaves
/// to the left of 64 bits stays visible, as too large a number.
pub fn shifted(value: i128, by: i32, size: u32, round: bool) -> i128 {
    if by >= size as i32 {
        return value.signum() << 100;
    }
    if by >= 0 {
        return value << by;
    }
    // Nothing of any lane is left beyond.
    let by = by.unsigned_abs().min(100);
    let half = if round { 1 << (by - 1) } else { 0 };
    (value + half) >> by
}

/// All ones if true.
fn mask(is: bool) -> i128 {
    if is { -1 } else { 0 }
}

impl Oracle<'_> {
    pub fn vector_data(&mut self, word: u32) -> Step {
        match group(word) {
            Some(Group::ThreeSame) => self.three_same(word),
            Some(Group::ThreeDifferent) => self.three_different(word),
            Some(Group::TwoRegisters) => self.two_registers(word),
            Some(Group::NarrowOrLong) => self.narrow_or_long(word),
            Some(Group::AcrossLanes) => self.across_lanes(word),
            Some(Group::ShiftImmediate) => self.shift_immediate(word),
            Some(Group::ModifiedImmediate) => self.modified_immediate(word),
            Some(Group::Copy) => self.copy(word),
            Some(Group::Permute) => self.permute(word),
            Some(Group::Extract) => self.extract_vector(word),
            Some(Group::Table) => self.table(word),
            None => UNDEFINED,
        }
    }

    /// The nearest number of `size` bits; QC if that is another one.
    pub fn saturate(&mut self, value: i128, size: u32, signed: bool) -> i128 {
        let (low, high) = if signed {
            (-1 << (size - 1), (1 << (size - 1)) - 1)
        } else {
            (0, (1 << size) - 1)
        };
        if !(low..=high).contains(&value) {
            self.fpsr |= QC;
        }
        value.clamp(low, high)
    }

    /// Bits of the vector that a word with Q, or a scalar one, works on.
    pub fn vector_width(word: u32, size: u32) -> u32 {
        match (bit(word, 28), bit(word, 30)) {
            (true, _) => size,
            (_, true) => 128,
            _ => 64,
        }
    }

    fn three_same(&mut self, word: u32) -> Step {
        let (how, code) = (bits(word, 15, 11), bits(word, 23, 22));
        let (scalar, size, unsigned) = (bit(word, 28), 8 << code, bit(word, 29));
        let allowed = match how {
            0x13 if unsigned => !scalar && code == 0,
            0x16 => code == 1 || code == 2,
            0x17 if unsigned => false,
            0x01 | 0x05 | 0x09 | 0x0b if scalar => true,
            0x06..=0x08 | 0x0a | 0x10 | 0x11 if scalar => code == 3,
            _ if scalar => false,
            0x03 => true,
            0x00 | 0x02 | 0x04 | 0x0c..=0x0f | 0x12..=0x15 => code != 3,
            _ => code != 3 || bit(word, 30),
        };
        if !allowed {
            return UNDEFINED;
        }
        let width = Self::vector_width(word, size);
        let [d, n, m] = [0, 5, 16].map(|low| self.v[(word >> low & 31) as usize]);
        let slot = bits(word, 4, 0) as usize;
        if how == 3 {
            let result = match (unsigned, code) {
                (false, 0) => n & m,
                (false, 1) => n & !m,
                (false, 2) => n | m,
                (false, _) => n | !m,
                (true, 0) => n ^ m,
                (true, 1) => d & n | !d & m,
                (true, 2) => d & !m | n & m,
                (true, _) => d & m | n & !m,
            };
            self.v[slot] = result & (u128::MAX >> (128 - width));
            return Ok(());
        }
        let count = width / size;
        let mut result = 0;
        for at in 0..count {
            let of = |vector, at| number(vector, at, size, !unsigned);
            let value = if matches!(how, 0x14 | 0x15 | 0x17) {
                // Pairs of the first, then of the second.
                let (from, pair) = if at < count / 2 {
                    (n, 2 * at)
                } else {
                    (m, 2 * at - count)
                };
                let (a, b) = (of(from, pair), of(from, pair + 1));
                match how {
                    0x14 => a.max(b),
                    0x15 => a.min(b),
                    _ => a + b,
                }
            } else {
                let operands = [of(d, at), of(n, at), of(m, at)];
                let by = number(m, at * size / 8, 8, true) as i32;
                self.lane_of_three(word, operands, by)
            };
            result = with_element(result, at, size, value as u128);
        }
        self.v[slot] = result;
        Ok(())
    }

    /// One lane; `by` is the shift that the third operand names.
    fn lane_of_three(&mut self, word: u32, [d, a, b]: [i128; 3], by: i32) -> i128 {
        let (size, unsigned) = (8 << bits(word, 23, 22), bit(word, 29));
        match bits(word, 15, 11) {
            0x00 => (a + b) >> 1,
            0x01 => self.saturate(a + b, size, !unsigned),
            0x02 => (a + b + 1) >> 1,
            0x04 => (a - b) >> 1,
            0x05 => self.saturate(a - b, size, !unsigned),
            0x06 => mask(a > b),
            0x07 => mask(a >= b),
            0x08 => shifted(a, by, size, false),
            0x09 => self.saturate(shifted(a, by, size, false), size, !unsigned),
            0x0a => shifted(a, by, size, true),
            0x0b => self.saturate(shifted(a, by, size, true), size, !unsigned),
            0x0c => a.max(b),
            0x0d => a.min(b),
            0x0e => (a - b).abs(),
            0x0f => d + (a - b).abs(),
            0x10 if unsigned => a - b,
            0x10 => a + b,
            0x11 if unsigned => mask(a == b),
            0x11 => mask(a & b != 0),
            0x12 if unsigned => d - a * b,
            0x12 => d + a * b,
            // Of polynomials: without carries.
            0x13 if unsigned => (0..8)
                .filter(|at| b >> at & 1 == 1)
                .fold(0, |all, at| all ^ a << at),
            0x13 => a * b,
            // 0x16; U rounds, and both are signed.
            _ => {
                let signed = |value: i128| value - ((value >> (size - 1) & 1) << size);
                let (a, b) = if unsigned {
                    (signed(a), signed(b))
                } else {
                    (a, b)
                };
                let half = if unsigned { 1 << (size - 1) } else { 0 };
                self.saturate((2 * a * b + half) >> size, size, true)
            }
        }
    }
}
