//! Exclusives, ordered accesses, compare-and-swap, atomic updates. One
//! processor alone sees its own accesses in order, so ordering needs nothing.

use super::arithmetic::{bit, bits, ones, sign_extend};
use super::memory::Access;
use super::{Marked, Oracle, Step, UNDEFINED};

/// An address without its tag, which marks no other location.
const ADDRESS: u64 = u64::MAX >> 8;

impl Oracle<'_> {
    pub fn exclusive_or_ordered(&mut self, word: u32) -> Step {
        let one = bits(word, 14, 10) == 31;
        let bytes = 1 << bits(word, 31, 30);
        match (bit(word, 23), bit(word, 21)) {
            (false, false) if bit(word, 22) => self.load_exclusive(word, bytes, false),
            (false, false) => self.store_exclusive(word, bytes, false),
            (false, true) if !bit(word, 31) && one => self.swap_pair_if_equal(word),
            (false, true) if !bit(word, 31) => UNDEFINED,
            (false, true) if bit(word, 22) => self.load_exclusive(word, bytes, true),
            (false, true) => self.store_exclusive(word, bytes, true),
            // Without LORegions only the forms with o0 = 1.
            (true, false) if bit(word, 15) => self.ordered(word, bytes),
            (true, true) if one => self.swap_if_equal(word, bytes),
            _ => UNDEFINED,
        }
    }

    /// The address of an aligned access that may be made.
    fn aligned(&self, word: u32, bytes: u64, access: Access) -> Result<u64, super::Stop> {
        let address = self.x_or_sp(bits(word, 9, 5));
        self.memory.aligned(address, bytes)?;
        self.memory.check(address, bytes, access)?;
        Ok(address)
    }

    /// The same for an update, which loads first.
    fn updatable(&self, word: u32, bytes: u64) -> Result<u64, super::Stop> {
        self.aligned(word, bytes, Access::Load)?;
        self.aligned(word, bytes, Access::Store)
    }

    fn load_exclusive(&mut self, word: u32, bytes: u64, pair: bool) -> Step {
        let all = if pair { 2 * bytes } else { bytes };
        let address = self.aligned(word, all, Access::Load)?;
        let value = self.memory.read(address, all)?;
        self.marked = Some(Marked {
            address: address & ADDRESS,
            bytes: all,
            value,
        });
        let width = 8 * bytes as u32;
        self.set_x(bits(word, 4, 0), value as u64 & ones(width));
        if pair {
            self.set_x(bits(word, 14, 10), (value >> width) as u64 & ones(width));
        }
        Ok(())
    }

    fn store_exclusive(&mut self, word: u32, bytes: u64, pair: bool) -> Step {
        let all = if pair { 2 * bytes } else { bytes };
        let address = self.aligned(word, all, Access::Store)?;
        let current = Marked {
            address: address & ADDRESS,
            bytes: all,
            value: self.memory.read(address, all)?,
        };
        let succeeds = self.marked == Some(current);
        self.marked = None;
        if succeeds {
            let width = 8 * bytes as u32;
            let mut value = u128::from(self.x(bits(word, 4, 0)) & ones(width));
            if pair {
                value |= u128::from(self.x(bits(word, 14, 10)) & ones(width)) << width;
            }
            self.memory.write(address, all, value)?;
        }
        self.set_x(bits(word, 20, 16), u64::from(!succeeds));
        Ok(())
    }

    /// LDAR and STLR.
    fn ordered(&mut self, word: u32, bytes: u64) -> Step {
        let t = bits(word, 4, 0);
        if bit(word, 22) {
            let address = self.aligned(word, bytes, Access::Load)?;
            let value = self.memory.read(address, bytes)?;
            self.set_x(t, value as u64);
            return Ok(());
        }
        let address = self.aligned(word, bytes, Access::Store)?;
        self.memory.write(address, bytes, u128::from(self.x(t)))
    }

    /// CAS.
    fn swap_if_equal(&mut self, word: u32, bytes: u64) -> Step {
        let address = self.updatable(word, bytes)?;
        let s = bits(word, 20, 16);
        let old = self.memory.read(address, bytes)? as u64;
        if old == self.x(s) & ones(8 * bytes as u32) {
            let new = self.x(bits(word, 4, 0));
            self.memory.write(address, bytes, u128::from(new))?;
        }
        self.set_x(s, old);
        Ok(())
    }

    /// CASP.
    fn swap_pair_if_equal(&mut self, word: u32) -> Step {
        let (s, t) = (bits(word, 20, 16), bits(word, 4, 0));
        if s & 1 == 1 || t & 1 == 1 {
            return UNDEFINED;
        }
        let bytes = if bit(word, 30) { 8 } else { 4 };
        let width = 8 * bytes as u32;
        let address = self.updatable(word, 2 * bytes)?;
        let both = |first: u64, second: u64| {
            u128::from(first & ones(width)) | u128::from(second & ones(width)) << width
        };
        let old = self.memory.read(address, 2 * bytes)?;
        if old == both(self.x(s), self.x(s + 1)) {
            let new = both(self.x(t), self.x(t + 1));
            self.memory.write(address, 2 * bytes, new)?;
        }
        self.set_x(s, old as u64 & ones(width));
        self.set_x(s + 1, (old >> width) as u64 & ones(width));
        Ok(())
    }

    /// LDADD and its kin, SWP, LDAPR.
    pub fn atomic(&mut self, word: u32) -> Step {
        let bytes = 1 << bits(word, 31, 30);
        let width = 8 * bytes as u32;
        let (how, t) = (bits(word, 15, 12), bits(word, 4, 0));
        if how == 0b1100 && bits(word, 23, 22) == 0b10 {
            let address = self.aligned(word, bytes, Access::Load)?;
            let value = self.memory.read(address, bytes)?;
            self.set_x(t, value as u64);
            return Ok(());
        }
        if how > 8 {
            return UNDEFINED;
        }
        let address = self.updatable(word, bytes)?;
        let old = self.memory.read(address, bytes)? as u64;
        let operand = self.x(bits(word, 20, 16)) & ones(width);
        let signed = |value| sign_extend(value, width) as i64;
        let new = match how {
            0 => old.wrapping_add(operand),
            1 => old & !operand,
            2 => old ^ operand,
            3 => old | operand,
            4 => signed(old).max(signed(operand)) as u64,
            5 => signed(old).min(signed(operand)) as u64,
            6 => old.max(operand),
            7 => old.min(operand),
            _ => operand,
        };
        self.memory.write(address, bytes, u128::from(new))?;
        self.set_x(t, old);
        Ok(())
    }
}
