//! The state of 32 interrupts with consecutive INTIDs: the SGIs and PPIs of one
//! vCPU, or one word of SPIs.

/// Implemented priority bits: 5, so that one active-priority register is enough
/// (`hv_gic` exposes `ICC_AP1R0` only).
pub(super) const PRIORITY_MASK: u8 = 0xf8;

/// A pending interrupt that could be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// Compared first: the lower value is more urgent.
    pub(super) priority: u8,
    /// Ties go to the lower INTID.
    pub(super) intid: u16,
}

/// A 32-bit register that exists once per bank (IHI 0069, 12.9 and 12.11).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BankReg {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
    ConfigLow,
    ConfigHigh,
}

impl BankReg {
    /// The register and bank number at an offset that the distributor and the
    /// SGI frame of a redistributor lay out alike; priorities excepted.
    pub(super) fn at(offset: u64) -> Option<(Self, usize)> {
        let word = (offset & 0x7f) as usize / 4;
        Some(match offset & !0x7f {
            0x080 => (Self::Group, word),
            0x100 => (Self::SetEnable, word),
            0x180 => (Self::ClearEnable, word),
            0x200 => (Self::SetPending, word),
            0x280 => (Self::ClearPending, word),
            0x300 => (Self::SetActive, word),
            0x380 => (Self::ClearActive, word),
            0xc00 | 0xc80 => {
                let pair = (offset & 0xff) as usize / 4;
                let half = if pair.is_multiple_of(2) {
                    Self::ConfigLow
                } else {
                    Self::ConfigHigh
                };
                (half, pair / 2)
            }
            _ => return None,
        })
    }
}

/// 32 interrupts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Bank {
    /// Set: Group 1. Only those are ever signalled.
    pub(super) group: u32,
    pub(super) enabled: u32,
    /// Pending by an edge, an SGI, a message or a write.
    pub(super) latch: u32,
    /// Input lines of level-sensitive interrupts.
    pub(super) level: u32,
    pub(super) active: u32,
    /// Set: edge-triggered.
    pub(super) edge: u32,
    pub(super) priority: [u8; 32],
}

impl Bank {
    /// Reset state with the given trigger configuration. All in Group 1, as
    /// the only group that is delivered; Linux writes the same value.
    pub(super) fn new(edge: u32) -> Self {
        Self {
            group: u32::MAX,
            enabled: 0,
            latch: 0,
            level: 0,
            active: 0,
            edge,
            priority: [0; 32],
        }
    }

    pub(super) fn pending(&self) -> u32 {
        self.latch | (self.level & !self.edge)
    }

    /// The interrupts that may be signalled.
    pub(super) fn candidates(&self) -> u32 {
        self.pending() & self.enabled & self.group & !self.active
    }

    /// The most urgent interrupt of `mask`, the first having INTID `base`.
    pub(super) fn best(&self, mask: u32, base: u16) -> Option<Candidate> {
        let mut best: Option<Candidate> = None;
        let mut rest = mask;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            let priority = self.priority[bit as usize];
            if best.is_none_or(|b| priority < b.priority) {
                let intid = base + bit as u16;
                best = Some(Candidate { priority, intid });
            }
        }
        best
    }

    /// Pending becomes active; a level-sensitive one stays pending while its
    /// line is high.
    pub(super) fn acknowledge(&mut self, bit: u32) {
        self.active |= 1 << bit;
        self.latch &= !(1 << bit);
    }

    pub(super) fn deactivate(&mut self, bit: u32) {
        self.active &= !(1 << bit);
    }

    /// An input line moved. For an edge-triggered one, high is one edge.
    pub(super) fn set_line(&mut self, bit: u32, high: bool) {
        let mask = 1 << bit;
        if self.edge & mask != 0 {
            if high {
                self.latch |= mask;
            }
        } else if high {
            self.level |= mask;
        } else {
            self.level &= !mask;
        }
    }

    pub(super) fn read(&self, reg: BankReg) -> u32 {
        match reg {
            BankReg::Group => self.group,
            BankReg::SetEnable | BankReg::ClearEnable => self.enabled,
            BankReg::SetPending | BankReg::ClearPending => self.pending(),
            BankReg::SetActive | BankReg::ClearActive => self.active,
            BankReg::ConfigLow => spread(self.edge as u16),
            BankReg::ConfigHigh => spread((self.edge >> 16) as u16),
        }
    }

    /// A write to `reg`; configuration only moves for `configurable` ones.
    pub(super) fn write(&mut self, reg: BankReg, value: u32, configurable: u32) {
        match reg {
            BankReg::Group => self.group = value,
            BankReg::SetEnable => self.enabled |= value,
            BankReg::ClearEnable => self.enabled &= !value,
            BankReg::SetPending => self.latch |= value,
            BankReg::ClearPending => self.latch &= !value,
            BankReg::SetActive => self.active |= value,
            BankReg::ClearActive => self.active &= !value,
            BankReg::ConfigLow => {
                self.configure(u32::from(gather(value)), configurable & 0xffff);
            }
            BankReg::ConfigHigh => {
                self.configure(u32::from(gather(value)) << 16, configurable & 0xffff_0000);
            }
        }
    }

    fn configure(&mut self, edge: u32, mask: u32) {
        self.edge = self.edge & !mask | edge & mask;
        // A line that nobody will lower any more must not stay high.
        self.level &= !self.edge;
    }

    pub(super) fn set_priority(&mut self, bit: usize, value: u8) {
        if let Some(slot) = self.priority.get_mut(bit) {
            *slot = value & PRIORITY_MASK;
        }
    }
}

/// ICFGR layout: bit 2n+1 of each pair says edge.
fn spread(bits: u16) -> u32 {
    (0..16).fold(0, |word, n| word | u32::from(bits >> n & 1) << (2 * n + 1))
}

fn gather(word: u32) -> u16 {
    (0..16).fold(0, |bits, n| {
        bits | (((word >> (2 * n + 1)) & 1) as u16) << n
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_stays_pending_after_acknowledge_until_the_line_falls() {
        let mut bank = Bank::new(0);
        bank.enabled = 1 << 3;
        bank.set_line(3, true);
        bank.acknowledge(3);
        assert_eq!(bank.candidates(), 0);
        bank.deactivate(3);
        assert_eq!(bank.candidates(), 1 << 3);
        bank.set_line(3, false);
        assert_eq!(bank.pending(), 0);
    }

    #[test]
    fn an_edge_is_pending_once_and_a_low_line_does_not_take_it_back() {
        let mut bank = Bank::new(u32::MAX);
        bank.enabled = u32::MAX;
        bank.set_line(7, true);
        bank.set_line(7, false);
        assert_eq!(bank.candidates(), 1 << 7);
        bank.acknowledge(7);
        bank.deactivate(7);
        assert_eq!(bank.candidates(), 0);
    }

    #[test]
    fn an_edge_while_active_is_kept_for_later() {
        let mut bank = Bank::new(u32::MAX);
        bank.enabled = u32::MAX;
        bank.set_line(1, true);
        bank.acknowledge(1);
        bank.set_line(1, true);
        assert_eq!(bank.candidates(), 0);
        bank.deactivate(1);
        assert_eq!(bank.candidates(), 2);
    }

    #[test]
    fn configuration_words_round_trip_through_the_two_bit_fields() {
        let mut bank = Bank::new(0);
        bank.write(BankReg::ConfigLow, 0x8000_000a, u32::MAX);
        bank.write(BankReg::ConfigHigh, 0x2, u32::MAX);
        assert_eq!(bank.edge, 1 << 16 | 1 << 15 | 0b11);
        assert_eq!(bank.read(BankReg::ConfigLow), 0x8000_000a);
        assert_eq!(bank.read(BankReg::ConfigHigh), 2);
    }

    #[test]
    fn equal_priorities_go_to_the_lower_intid() {
        let mut bank = Bank::new(0);
        bank.priority = [0xa0; 32];
        bank.priority[9] = 0x80;
        let at = |mask| bank.best(mask, 32).map(|c| c.intid);
        assert_eq!(at(0b1100), Some(34));
        assert_eq!(at(0b10_0000_1100), Some(41));
        assert_eq!(at(0), None);
    }
}
