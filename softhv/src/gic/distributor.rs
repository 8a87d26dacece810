//! The distributor: state and routing of SPIs.

use super::bank::{Bank, BankReg, Candidate};

/// SPIs of this controller: INTIDs 32 to 127.
///
/// A guest writes several registers per 32 of them while it boots, and each
/// of those writes is slow in a software engine, so it has as many as a machine
/// with some dozens of devices needs and not the architectural 988.
/// `GICD_TYPER` and `hv_gic_get_spi_interrupt_range` both say so.
pub const SPI_COUNT: u32 = 96;
/// First SPI.
pub const SPI_BASE: u32 = 32;
pub(super) const BANKS: usize = SPI_COUNT as usize / 32;

/// GICD_CTLR.EnableGrp0 and EnableGrp1, the writable bits.
const CTLR_ENABLES: u32 = 0b11;
const CTLR_ENABLE_GROUP1: u32 = 1 << 1;
/// GICD_CTLR: affinity routing on, one security state; both read-only.
const CTLR_FIXED: u32 = 1 << 4 | 1 << 6;
/// GICD_TYPER: ITLinesNumber, 10 INTID bits, A3V.
const TYPER: u32 = (SPI_COUNT / 32) | 9 << 19 | 1 << 24;
/// PIDR2.ArchRev = 3 and the JEP106 bits every GICv3 has.
pub(super) const PIDR2: u32 = 0x3b;
/// GICD_IROUTER: affinity fields and Interrupt_Routing_Mode.
const ROUTE_MASK: u64 = 0xff_80ff_ffff;
const ROUTE_ANY: u64 = 1 << 31;

/// No vCPU has the affinity an SPI is routed to.
pub(super) const NOWHERE: u8 = u8::MAX;

/// GICD_IROUTER layout to the packed affinity of a slot.
fn packed(route: u64) -> u64 {
    route & 0xff_ffff | (route >> 32 & 0xff) << 24
}

/// State of all SPIs.
#[derive(Clone, Debug)]
pub(super) struct Distributor {
    pub(super) ctlr: u32,
    pub(super) banks: [Bank; BANKS],
    pub(super) routes: [u64; SPI_COUNT as usize],
    /// Index of the vCPU each route leads to, or [`NOWHERE`].
    targets: [u8; SPI_COUNT as usize],
}

impl Distributor {
    pub(super) fn new() -> Self {
        Self {
            ctlr: 0,
            banks: std::array::from_fn(|_| Bank::new(0)),
            routes: [0; SPI_COUNT as usize],
            targets: [NOWHERE; SPI_COUNT as usize],
        }
    }

    /// Whether Group 1 interrupts are forwarded to the CPU interfaces.
    pub(super) fn forwarding(&self) -> bool {
        self.ctlr & CTLR_ENABLE_GROUP1 != 0
    }

    /// Follows all routes again. `affinities` lists (affinity, vCPU index) in
    /// ascending order of index.
    pub(super) fn route_all(&mut self, affinities: &[(u64, u8)]) {
        for spi in 0..self.routes.len() {
            self.route(spi, affinities);
        }
    }

    fn route(&mut self, spi: usize, affinities: &[(u64, u8)]) {
        let route = self.routes[spi];
        let found = if route & ROUTE_ANY != 0 {
            affinities.first()
        } else {
            affinities.iter().find(|(a, _)| *a == packed(route))
        };
        self.targets[spi] = found.map_or(NOWHERE, |(_, index)| *index);
    }

    /// The vCPU that SPI `intid` leads to, or [`NOWHERE`].
    pub(super) fn target(&self, intid: u32) -> u8 {
        let spi = intid.wrapping_sub(SPI_BASE) as usize;
        self.targets.get(spi).copied().unwrap_or(NOWHERE)
    }

    /// The most urgent SPI for vCPU `index`.
    pub(super) fn best_for(&self, index: u8) -> Option<Candidate> {
        let mut best: Option<Candidate> = None;
        for (word, bank) in self.banks.iter().enumerate() {
            let mut all = bank.candidates();
            let mut mine = 0;
            while all != 0 {
                let bit = all.trailing_zeros();
                all &= all - 1;
                if self.targets[word * 32 + bit as usize] == index {
                    mine |= 1 << bit;
                }
            }
            let base = (SPI_BASE as usize + word * 32) as u16;
            best = match (best, bank.best(mine, base)) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        best
    }

    /// The bank and bit of SPI `intid`.
    pub(super) fn spi(&mut self, intid: u32) -> Option<(&mut Bank, u32)> {
        let spi = intid.checked_sub(SPI_BASE)?;
        let bank = self.banks.get_mut(spi as usize / 32)?;
        Some((bank, spi % 32))
    }

    /// The register at `offset`, a multiple of 4.
    pub(super) fn read(&self, offset: u64) -> u32 {
        match offset {
            0x0 => CTLR_FIXED | self.ctlr,
            0x4 => TYPER,
            0xffe8 => PIDR2,
            0x400..0x800 => (0..4).fold(0, |word, byte| {
                word | u32::from(self.read_priority(offset + byte)) << (8 * byte)
            }),
            0x6000..0x8000 => {
                let spi = (offset as usize - 0x6000) / 8;
                let route = spi
                    .checked_sub(SPI_BASE as usize)
                    .and_then(|n| self.routes.get(n))
                    .copied()
                    .unwrap_or(0);
                (route >> (8 * (offset & 4))) as u32
            }
            _ => self
                .bank_at(offset)
                .map_or(0, |(reg, bank)| self.banks[bank].read(reg)),
        }
    }

    /// Writes the register at `offset`, a multiple of 4.
    pub(super) fn write(&mut self, offset: u64, value: u32, affinities: &[(u64, u8)]) {
        match offset {
            0x0 => self.ctlr = value & CTLR_ENABLES,
            0x400..0x800 => {
                for byte in 0..4 {
                    self.write_priority(offset + byte, (value >> (8 * byte)) as u8);
                }
            }
            0x6000..0x8000 => {
                let index = (offset as usize - 0x6000) / 8;
                let Some(spi) = index.checked_sub(SPI_BASE as usize) else {
                    return;
                };
                let Some(route) = self.routes.get_mut(spi) else {
                    return;
                };
                let shift = 8 * (offset & 4);
                let kept = *route & !(0xffff_ffff << shift);
                *route = (kept | u64::from(value) << shift) & ROUTE_MASK;
                self.route(spi, affinities);
            }
            _ => {
                if let Some((reg, bank)) = self.bank_at(offset) {
                    self.banks[bank].write(reg, value, u32::MAX);
                }
            }
        }
    }

    /// The banked register at `offset`; none for INTIDs 0..=31, which are the
    /// redistributors' with affinity routing on.
    fn bank_at(&self, offset: u64) -> Option<(BankReg, usize)> {
        let (reg, word) = BankReg::at(offset)?;
        let bank = word.checked_sub(1)?;
        (bank < self.banks.len()).then_some((reg, bank))
    }

    /// The priority byte at `offset` in `0x400..0x800`.
    pub(super) fn read_priority(&self, offset: u64) -> u8 {
        let spi = (offset as usize).checked_sub(0x400 + SPI_BASE as usize);
        spi.and_then(|n| Some(*self.banks.get(n / 32)?.priority.get(n % 32)?))
            .unwrap_or(0)
    }

    /// Writes the priority byte at `offset` in `0x400..0x800`.
    pub(super) fn write_priority(&mut self, offset: u64, value: u8) {
        let Some(spi) = (offset as usize).checked_sub(0x400 + SPI_BASE as usize) else {
            return;
        };
        if let Some(bank) = self.banks.get_mut(spi / 32) {
            bank.set_priority(spi % 32, value);
        }
    }

    /// Clamps what came from outside to what the registers could hold.
    pub(super) fn sanitize(&mut self) {
        self.ctlr &= CTLR_ENABLES;
        for route in &mut self.routes {
            *route &= ROUTE_MASK;
        }
    }
}
