//! LD1 to LD4 and ST1 to ST4: elements of one to four registers, interleaved.

use super::arithmetic::{bit, bits};
use super::memory::Access;
use super::{Oracle, Step, UNDEFINED};

/// Element `at` of `size` bits of a vector.
pub fn element(vector: u128, at: u32, size: u32) -> u128 {
    vector >> (at * size) & (u128::MAX >> (128 - size))
}

/// `vector` with that element replaced by the low bits of `value`.
pub fn with_element(vector: u128, at: u32, size: u32, value: u128) -> u128 {
    let mask = (u128::MAX >> (128 - size)) << (at * size);
    vector & !mask | value << (at * size) & mask
}

impl Oracle<'_> {
    fn structure_access(word: u32) -> Access {
        if bit(word, 22) {
            Access::Load
        } else {
            Access::Store
        }
    }

    /// Adds the bytes accessed, or a register, to the base.
    fn move_base(&mut self, word: u32, bytes: u64) {
        if !bit(word, 23) {
            return;
        }
        let m = bits(word, 20, 16);
        let by = if m == 31 { bytes } else { self.x(m) };
        let n = bits(word, 9, 5);
        self.set_x_or_sp(n, self.x_or_sp(n).wrapping_add(by));
    }

    /// Moves one element of vector `t` from or to memory.
    fn move_element(&mut self, word: u32, t: u32, at: u32, size: u32, address: u64) -> Step {
        let (slot, bytes) = ((t % 32) as usize, u64::from(size / 8));
        if bit(word, 22) {
            let value = self.memory.read(address, bytes)?;
            self.v[slot] = with_element(self.v[slot], at, size, value);
            return Ok(());
        }
        let value = element(self.v[slot], at, size);
        self.memory.write(address, bytes, value)
    }

    pub fn multiple_structures(&mut self, word: u32) -> Step {
        let post = bit(word, 23);
        if bit(word, 21) || !post && bits(word, 20, 16) != 0 {
            return UNDEFINED;
        }
        let (repeats, registers) = match bits(word, 15, 12) {
            0b0000 => (1, 4),
            0b0010 => (4, 1),
            0b0100 => (1, 3),
            0b0110 => (3, 1),
            0b0111 => (1, 1),
            0b1000 => (1, 2),
            0b1010 => (2, 1),
            _ => return UNDEFINED,
        };
        let size = 8 << bits(word, 11, 10);
        let width = if bit(word, 30) { 128 } else { 64 };
        if size == 64 && width == 64 && registers != 1 {
            return UNDEFINED;
        }
        let (t, base) = (bits(word, 4, 0), self.x_or_sp(bits(word, 9, 5)));
        let total = u64::from(repeats * registers * width / 8);
        self.memory
            .check(base, total, Self::structure_access(word))?;
        let mut address = base;
        for r in 0..repeats {
            for at in 0..width / size {
                for s in 0..registers {
                    self.move_element(word, t + r + s, at, size, address)?;
                    address = address.wrapping_add(u64::from(size / 8));
                }
            }
        }
        if bit(word, 22) && width == 64 {
            for n in 0..repeats * registers {
                self.v[((t + n) % 32) as usize] &= u128::from(u64::MAX);
            }
        }
        self.move_base(word, total);
        Ok(())
    }

    pub fn single_structure(&mut self, word: u32) -> Step {
        if !bit(word, 23) && bits(word, 20, 16) != 0 {
            return UNDEFINED;
        }
        let registers = (bits(word, 13, 13) << 1 | bits(word, 21, 21)) + 1;
        let (q, s, low) = (bits(word, 30, 30), bits(word, 12, 12), bits(word, 11, 10));
        let all = q << 3 | s << 2 | low;
        // Which element of which size; none for all of them.
        let (size, at) = match bits(word, 15, 14) {
            0 => (8, Some(all)),
            1 if low & 1 == 0 => (16, Some(all >> 1)),
            2 if low == 0 => (32, Some(all >> 2)),
            2 if low == 1 && s == 0 => (64, Some(q)),
            3 if bit(word, 22) && s == 0 => (8 << low, None),
            _ => return UNDEFINED,
        };
        let (t, base) = (bits(word, 4, 0), self.x_or_sp(bits(word, 9, 5)));
        let bytes = u64::from(size / 8);
        let total = bytes * u64::from(registers);
        self.memory
            .check(base, total, Self::structure_access(word))?;
        for n in 0..registers {
            let address = base.wrapping_add(bytes * u64::from(n));
            match at {
                Some(at) => self.move_element(word, t + n, at, size, address)?,
                None => {
                    let value = self.memory.read(address, bytes)?;
                    let count = (64 << q) / size;
                    self.v[((t + n) % 32) as usize] =
                        (0..count).fold(0, |v, at| with_element(v, at, size, value));
                }
            }
        }
        self.move_base(word, total);
        Ok(())
    }
}
