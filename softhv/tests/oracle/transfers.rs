//! Loads and stores of one register or a pair (Arm ARM C4.1.94).

use super::arithmetic::{bit, bits, extend, ones, sign_extend, signed_bits};
use super::memory::Access;
use super::{Oracle, Step, UNDEFINED};

/// What is moved, and how.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Move {
    /// From a general register.
    Store { bytes: u64 },
    /// To a general register; the sign is copied up to bit `sign_to - 1`, and
    /// nothing if that is zero.
    Load { bytes: u64, sign_to: u32 },
    /// From a vector register.
    StoreVector { bytes: u64 },
    /// To a vector register.
    LoadVector { bytes: u64 },
    /// Nothing: a prefetch.
    Prefetch,
}

impl Move {
    /// By size, V and opc of the forms with one register.
    fn one(word: u32) -> Option<Self> {
        let (size, opc) = (bits(word, 31, 30), bits(word, 23, 22));
        let bytes = 1 << size;
        if bit(word, 26) {
            let scale = opc >> 1 << 2 | size;
            if scale > 4 {
                return None;
            }
            let bytes = 1 << scale;
            return Some(if opc & 1 == 0 {
                Self::StoreVector { bytes }
            } else {
                Self::LoadVector { bytes }
            });
        }
        match (opc, size) {
            (0, _) => Some(Self::Store { bytes }),
            (1, _) => Some(Self::Load { bytes, sign_to: 0 }),
            (2, 3) => Some(Self::Prefetch),
            (2, _) => Some(Self::Load { bytes, sign_to: 64 }),
            (_, 0 | 1) => Some(Self::Load { bytes, sign_to: 32 }),
            _ => None,
        }
    }

    /// By opc and V of the literal forms.
    fn literal(word: u32) -> Option<Self> {
        let opc = bits(word, 31, 30);
        match (bit(word, 26), opc) {
            (false, 0 | 1) => Some(Self::Load {
                bytes: 4 << opc,
                sign_to: 0,
            }),
            (false, 2) => Some(Self::Load {
                bytes: 4,
                sign_to: 64,
            }),
            (false, _) => Some(Self::Prefetch),
            (true, 3) => None,
            (true, _) => Some(Self::LoadVector { bytes: 4 << opc }),
        }
    }

    /// By opc, V and L of the pair forms.
    fn pair(word: u32) -> Option<Self> {
        let (opc, load) = (bits(word, 31, 30), bit(word, 22));
        let no_allocate = bits(word, 24, 23) == 0;
        match (bit(word, 26), opc, load) {
            (_, 3, _) => None,
            (true, _, true) => Some(Self::LoadVector { bytes: 4 << opc }),
            (true, _, false) => Some(Self::StoreVector { bytes: 4 << opc }),
            (false, 1, true) if !no_allocate => Some(Self::Load {
                bytes: 4,
                sign_to: 64,
            }),
            (false, 1, _) => None,
            (false, _, true) => Some(Self::Load {
                bytes: 4 << (opc >> 1),
                sign_to: 0,
            }),
            (false, _, false) => Some(Self::Store {
                bytes: 4 << (opc >> 1),
            }),
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Store { bytes }
            | Self::Load { bytes, .. }
            | Self::StoreVector { bytes }
            | Self::LoadVector { bytes } => bytes,
            Self::Prefetch => 8,
        }
    }

    fn access(self) -> Access {
        match self {
            Self::Store { .. } | Self::StoreVector { .. } => Access::Store,
            _ => Access::Load,
        }
    }
}

impl Oracle<'_> {
    pub fn load_or_store(&mut self, word: u32) -> Step {
        let (kind, is_vector) = (bits(word, 29, 28) << 1 | bits(word, 24, 24), bit(word, 26));
        match kind {
            0b000 if is_vector && !bit(word, 31) => self.multiple_structures(word),
            0b001 if is_vector && !bit(word, 31) => self.single_structure(word),
            0b000 if !is_vector => self.exclusive_or_ordered(word),
            0b010 => self.load_literal(word),
            0b100 | 0b101 => self.pair(word),
            0b110 if !bit(word, 21) => self.small_offset(word),
            0b110 => match bits(word, 11, 10) {
                0 if !is_vector => self.atomic(word),
                2 => self.register_offset(word),
                _ => UNDEFINED,
            },
            0b111 => self.scaled_offset(word),
            _ => UNDEFINED,
        }
    }

    /// Moves between register `t` and memory, where access was checked.
    fn transfer(&mut self, what: Move, t: u32, address: u64) -> Step {
        match what {
            Move::Store { bytes } => self.memory.write(address, bytes, u128::from(self.x(t)))?,
            Move::Load { bytes, sign_to } => {
                let value = self.memory.read(address, bytes)? as u64;
                let value = if sign_to == 0 {
                    value
                } else {
                    sign_extend(value, 8 * bytes as u32) & ones(sign_to)
                };
                self.set_x(t, value);
            }
            Move::StoreVector { bytes } => {
                self.memory.write(address, bytes, self.v[t as usize])?;
            }
            Move::LoadVector { bytes } => {
                self.v[t as usize] = self.memory.read(address, bytes)?;
            }
            Move::Prefetch => {}
        }
        Ok(())
    }

    fn load_literal(&mut self, word: u32) -> Step {
        let Some(what) = Move::literal(word) else {
            return UNDEFINED;
        };
        let address = self.pc.wrapping_add(signed_bits(word, 23, 5) << 2);
        self.transfer(what, bits(word, 4, 0), address)
    }

    fn pair(&mut self, word: u32) -> Step {
        let Some(what) = Move::pair(word) else {
            return UNDEFINED;
        };
        let bytes = what.bytes();
        let base = self.x_or_sp(bits(word, 9, 5));
        let moved = base.wrapping_add(signed_bits(word, 21, 15).wrapping_mul(bytes));
        let post = bits(word, 24, 23) == 1;
        let address = if post { base } else { moved };
        let second = address.wrapping_add(bytes);
        self.memory.check(address, bytes, what.access())?;
        self.memory.check(second, bytes, what.access())?;
        self.transfer(what, bits(word, 4, 0), address)?;
        self.transfer(what, bits(word, 14, 10), second)?;
        if bit(word, 23) {
            self.set_x_or_sp(bits(word, 9, 5), moved);
        }
        Ok(())
    }

    /// Unscaled, post-index, unprivileged and pre-index forms. At EL0 the
    /// unprivileged are like the unscaled.
    fn small_offset(&mut self, word: u32) -> Step {
        let how = bits(word, 11, 10);
        let what = Move::one(word).filter(|what| match how {
            0 => true,
            2 => !bit(word, 26) && *what != Move::Prefetch,
            _ => *what != Move::Prefetch,
        });
        let Some(what) = what else {
            return UNDEFINED;
        };
        let base = self.x_or_sp(bits(word, 9, 5));
        let moved = base.wrapping_add(signed_bits(word, 20, 12));
        let address = if how == 1 { base } else { moved };
        self.transfer(what, bits(word, 4, 0), address)?;
        if how & 1 == 1 {
            self.set_x_or_sp(bits(word, 9, 5), moved);
        }
        Ok(())
    }

    fn scaled_offset(&mut self, word: u32) -> Step {
        let Some(what) = Move::one(word) else {
            return UNDEFINED;
        };
        let offset = u64::from(bits(word, 21, 10)) * what.bytes();
        let address = self.x_or_sp(bits(word, 9, 5)).wrapping_add(offset);
        self.transfer(what, bits(word, 4, 0), address)
    }

    fn register_offset(&mut self, word: u32) -> Step {
        let option = bits(word, 15, 13);
        let Some(what) = Move::one(word).filter(|_| option & 2 != 0) else {
            return UNDEFINED;
        };
        let by = if bit(word, 12) {
            what.bytes().ilog2()
        } else {
            0
        };
        let offset = extend(self.x(bits(word, 20, 16)), option, by);
        let address = self.x_or_sp(bits(word, 9, 5)).wrapping_add(offset);
        self.transfer(what, bits(word, 4, 0), address)
    }
}
