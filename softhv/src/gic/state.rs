//! The saved form of the controller: distributor and redistributors, without
//! the CPU interfaces, as `hv_gic_state_t` has it.
//!
//! Little-endian: magic, version, body, CRC-32 of all before it. The bytes come
//! from a file someone may have edited, so that everything is checked before
//! anything changes.

use super::Gic;
use super::bank::{Bank, PRIORITY_MASK};
use super::cpu_interface::PRIVATE_EDGES;
use super::distributor::{BANKS, Distributor, SPI_COUNT};
use crate::vm::MAX_VCPUS;

/// Not Apple's format: the blobs of two engines never mix.
const MAGIC: [u8; 8] = *b"SOFTHVGI";
const VERSION: u32 = 1;
const CRC_BYTES: usize = 4;

/// Why a saved state was refused. The controller is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StateError {
    /// Not a state of this engine.
    #[error("not a saved interrupt controller of this engine")]
    Foreign,
    /// Written by another version of it.
    #[error("saved interrupt controller has version {found}, expected {VERSION}")]
    Version {
        /// The version in the file.
        found: u32,
    },
    /// Cut short, too long or damaged.
    #[error("saved interrupt controller is damaged")]
    Corrupt,
    /// It has a vCPU that this VM does not.
    #[error("saved interrupt controller has a vCPU that this machine does not have")]
    Topology,
}

/// A redistributor as saved.
struct SavedRedistributor {
    affinity: u64,
    asleep: bool,
    bank: Bank,
}

impl Gic {
    /// Saves everything but the CPU interfaces. No vCPU may be running, or the
    /// parts are of different moments.
    pub fn save(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2048);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        {
            let distributor = self.lock();
            out.extend_from_slice(&distributor.ctlr.to_le_bytes());
            out.extend_from_slice(&SPI_COUNT.to_le_bytes());
            for bank in &distributor.banks {
                write_bank(&mut out, bank);
            }
            for route in distributor.routes {
                out.extend_from_slice(&route.to_le_bytes());
            }
        }
        let attached = || self.used().iter().filter(|slot| slot.is_attached());
        out.extend_from_slice(&(attached().count() as u32).to_le_bytes());
        for slot in attached() {
            let interface = slot.lock();
            out.extend_from_slice(&slot.affinity().to_le_bytes());
            out.extend_from_slice(&u32::from(interface.asleep).to_le_bytes());
            write_bank(&mut out, &interface.bank);
        }
        let crc = crc32(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Restores what [`Self::save`] gave. All vCPUs in it must exist with their
    /// affinities set; the redistributors of others are reset.
    ///
    /// # Errors
    /// [`StateError`]; nothing has changed then.
    pub fn restore(&self, data: &[u8]) -> Result<(), StateError> {
        let (mut distributor, redistributors) = parse(data)?;
        let affinities = self.affinities();
        let mut placed = Vec::with_capacity(redistributors.len());
        for saved in redistributors {
            let (_, index) = affinities
                .iter()
                .find(|(affinity, _)| *affinity == saved.affinity)
                .ok_or(StateError::Topology)?;
            if placed.iter().any(|(taken, _)| taken == index) {
                return Err(StateError::Corrupt);
            }
            placed.push((*index, saved));
        }
        distributor.sanitize();
        // A machine may have got vCPUs that were not there yet.
        let is_new = |index: &u8| placed.iter().all(|(taken, _)| taken != index);
        for (_, index) in affinities.iter().filter(|(_, index)| is_new(index)) {
            self.slots[usize::from(*index)].restore(Bank::new(PRIVATE_EDGES), true);
        }
        for (index, saved) in placed {
            self.slots[usize::from(index)].restore(saved.bank, saved.asleep);
        }
        self.with_distributor(|current, affinities| {
            *current = distributor;
            current.route_all(affinities);
        });
        Ok(())
    }
}

fn parse(data: &[u8]) -> Result<(Distributor, Vec<SavedRedistributor>), StateError> {
    if data.get(..MAGIC.len()) != Some(&MAGIC) {
        return Err(StateError::Foreign);
    }
    let body_end = data
        .len()
        .checked_sub(CRC_BYTES)
        .ok_or(StateError::Corrupt)?;
    let (body, crc) = data.split_at(body_end);
    let mut reader = Reader(body.get(MAGIC.len()..).ok_or(StateError::Corrupt)?);
    let found = reader.u32()?;
    if found != VERSION {
        return Err(StateError::Version { found });
    }
    if crc != crc32(body).to_le_bytes() {
        return Err(StateError::Corrupt);
    }
    let mut distributor = Distributor::new();
    distributor.ctlr = reader.u32()?;
    if reader.u32()? != SPI_COUNT {
        return Err(StateError::Corrupt);
    }
    for index in 0..BANKS {
        distributor.banks[index] = reader.bank()?;
    }
    for route in &mut distributor.routes {
        *route = reader.u64()?;
    }
    let count = reader.u32()? as usize;
    if count > MAX_VCPUS {
        return Err(StateError::Corrupt);
    }
    let mut redistributors = Vec::with_capacity(count);
    for _ in 0..count {
        redistributors.push(SavedRedistributor {
            affinity: reader.u64()?,
            asleep: reader.u32()? & 1 != 0,
            bank: reader.bank()?,
        });
    }
    if !reader.0.is_empty() {
        return Err(StateError::Corrupt);
    }
    Ok((distributor, redistributors))
}

fn write_bank(out: &mut Vec<u8>, bank: &Bank) {
    for word in [
        bank.group,
        bank.enabled,
        bank.latch,
        bank.level,
        bank.active,
        bank.edge,
    ] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&bank.priority);
}

/// Takes fixed-size fields off the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(StateError::Corrupt)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, StateError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, StateError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn bank(&mut self) -> Result<Bank, StateError> {
        Ok(Bank {
            group: self.u32()?,
            enabled: self.u32()?,
            latch: self.u32()?,
            level: self.u32()?,
            active: self.u32()?,
            edge: self.u32()?,
            priority: self.array::<32>()?.map(|p| p & PRIORITY_MASK),
        })
    }
}

/// Makes the checksum of `data` right, for fuzzing past it.
pub(crate) fn fix_checksum(data: &mut [u8]) {
    if let Some((body, crc)) = data.split_last_chunk_mut::<CRC_BYTES>() {
        *crc = crc32(body).to_le_bytes();
    }
}

/// CRC-32 as IEEE 802.3 has it (reflected polynomial 0xEDB88320).
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 != 0 { 0xedb8_8320 } else { 0 }
        })
    })
}
