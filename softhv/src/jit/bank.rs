//! Which host registers of one kind have which guest registers.

/// In place of a register.
pub const NONE: u8 = 0xff;
/// Guest registers at most, of either kind.
const SLOTS: usize = 34;

/// By host register, the guest register that it has.
pub type Hosts = [u8; 16];

/// Guest registers by host register: what has to be stored where a block is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spill {
    /// General ones.
    pub general: Hosts,
    /// Vector registers.
    pub vectors: Hosts,
}

/// The host registers of one kind that keep guest registers. Where one is newer than
/// what the vCPU has in memory, it is called dirty.
#[derive(Clone, Debug)]
pub struct Bank {
    pool: &'static [u8],
    map: [u8; SLOTS],
    held: Hosts,
    dirty: u64,
    /// Guest registers that were ever set.
    written: u64,
    /// How often each was asked for.
    uses: [u8; SLOTS],
    turn: usize,
    /// Host registers that the current instruction uses.
    locked: u16,
    /// Host registers that have the same guest register all the time.
    pinned: u16,
    /// There were too few for one instruction: what was emitted is of no use.
    pub is_short: bool,
}

impl Bank {
    /// The host registers in `pool`, which have nothing yet.
    pub fn new(pool: &'static [u8]) -> Self {
        Self {
            pool,
            map: [NONE; SLOTS],
            held: [NONE; 16],
            dirty: 0,
            written: 0,
            uses: [0; SLOTS],
            turn: 0,
            locked: 0,
            pinned: 0,
            is_short: false,
        }
    }

    /// Nothing is known any more, and nothing was dirty.
    pub fn forget(&mut self) {
        debug_assert!(self.dirty == 0 && self.pinned == 0);
        self.map = [NONE; SLOTS];
        self.held = [NONE; 16];
        self.dirty = 0;
    }

    /// The next instruction may use them all.
    pub fn unlock(&mut self) {
        self.locked = 0;
    }

    /// The host register that has `slot`, for this instruction.
    pub fn find(&mut self, slot: u8) -> Option<u8> {
        let uses = &mut self.uses[usize::from(slot)];
        *uses = uses.saturating_add(1);
        let host = self.map[usize::from(slot)];
        if host == NONE {
            return None;
        }
        self.locked |= 1 << host;
        Some(host)
    }

    /// A host register for `slot`, which has none, for this instruction, and which
    /// guest register's value has to be stored from it first.
    pub fn take(&mut self, slot: u8) -> (u8, Option<u8>) {
        for _ in 0..self.pool.len() {
            let host = self.pool[self.turn];
            self.turn = (self.turn + 1) % self.pool.len();
            if (self.locked | self.pinned) & 1 << host != 0 {
                continue;
            }
            let before = std::mem::replace(&mut self.held[usize::from(host)], slot);
            let mut stored = None;
            if before != NONE {
                self.map[usize::from(before)] = NONE;
                stored = (self.dirty & 1 << before != 0).then_some(before);
                self.dirty &= !(1 << before);
            }
            self.map[usize::from(slot)] = host;
            self.locked |= 1 << host;
            return (host, stored);
        }
        self.is_short = true;
        (self.pool[0], None)
    }

    /// `slot` is about to be set elsewhere. False if it cannot be: its host register
    /// is pinned.
    pub fn release(&mut self, slot: u8) -> bool {
        let host = self.map[usize::from(slot)];
        if host == NONE {
            return true;
        }
        if self.pinned & 1 << host != 0 {
            return false;
        }
        self.held[usize::from(host)] = NONE;
        self.map[usize::from(slot)] = NONE;
        self.dirty &= !(1 << slot);
        true
    }

    /// Where `slot` is, if it is in a register.
    pub fn place(&self, slot: u8) -> Option<u8> {
        Some(self.map[usize::from(slot)]).filter(|host| *host != NONE)
    }

    /// `slot` was set in its host register.
    pub fn mark(&mut self, slot: u8) {
        self.dirty |= 1 << slot;
        self.written |= 1 << slot;
    }

    /// The host register that `slot` has to be stored from, which it is then.
    pub fn clean(&mut self, slot: u8) -> Option<u8> {
        let was = self.dirty & 1 << slot != 0;
        self.dirty &= !(1 << slot);
        was.then(|| self.map[usize::from(slot)])
    }

    /// What has to be stored, by host register, which it is then.
    pub fn clean_all(&mut self) -> Hosts {
        let hosts = self.dirty();
        self.dirty = 0;
        hosts
    }

    /// What is dirty, by host register.
    pub fn dirty(&self) -> Hosts {
        self.held.map(|slot| {
            let is_dirty = slot != NONE && self.dirty & 1 << slot != 0;
            if is_dirty { slot } else { NONE }
        })
    }

    /// The same without what is pinned.
    pub fn dirty_unpinned(&self) -> Hosts {
        let mut hosts = self.dirty();
        for (host, slot) in hosts.iter_mut().enumerate() {
            if self.pinned & 1 << host != 0 {
                *slot = NONE;
            }
        }
        hosts
    }

    /// All that the host registers have.
    pub fn held(&self) -> Hosts {
        self.held
    }

    /// Gives as many of the guest registers that `survey` found in use a host register
    /// for good, and counts as dirty what it found written; which has what. Where not
    /// all can have one, `spare` host registers stay for the others.
    pub fn pin(&mut self, survey: &Self, spare: usize) -> Hosts {
        let used = |slot: &u8| survey.uses[usize::from(*slot)] > 0;
        let mut slots: Vec<u8> = (0..SLOTS as u8).filter(used).collect();
        slots.sort_by_key(|slot| std::cmp::Reverse(survey.uses[usize::from(*slot)]));
        if slots.len() > self.pool.len() {
            slots.truncate(self.pool.len() - spare);
        }
        for slot in slots {
            let (host, _) = self.take(slot);
            self.pinned |= 1 << host;
            self.dirty |= survey.written & 1 << slot;
        }
        self.written = self.dirty;
        self.locked = 0;
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: [u8; 4] = [3, 5, 8, 9];

    #[test]
    fn what_is_dirty_is_stored_when_its_register_is_taken() {
        let mut bank = Bank::new(&POOL);
        for slot in 0..4 {
            assert_eq!(bank.take(slot), (POOL[usize::from(slot)], None));
        }
        bank.mark(1);
        bank.unlock();
        assert_eq!(bank.find(0), Some(3));
        assert_eq!(bank.take(10), (5, Some(1)), "the first is in use");
        assert_eq!(bank.take(11), (8, None));
        assert_eq!(bank.dirty(), [NONE; 16]);
    }

    #[test]
    fn an_instruction_that_needs_too_many_is_found_out() {
        let mut bank = Bank::new(&POOL);
        for slot in 0..5 {
            bank.take(slot);
        }
        assert!(bank.is_short);
    }

    #[test]
    fn pinned_registers_stay_and_leave_some_for_others() {
        let mut survey = Bank::new(&POOL);
        for slot in [7, 7, 8, 8, 1, 2, 3] {
            survey.find(slot);
        }
        survey.mark(8);
        let mut bank = Bank::new(&POOL);
        bank.pin(&survey, 2);
        let places = [7, 8].map(|slot| bank.place(slot));
        assert!(places.iter().all(Option::is_some));
        assert!(!bank.release(7));
        for slot in 20..30 {
            bank.take(slot);
            bank.unlock();
        }
        assert_eq!([7, 8].map(|slot| bank.place(slot)), places);
        assert_eq!(bank.dirty().iter().filter(|slot| **slot == 8).count(), 1);
        assert_eq!(bank.dirty_unpinned(), [NONE; 16]);
    }
}
