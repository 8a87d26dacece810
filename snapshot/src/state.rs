//! `state.bin`: everything of a machine but its memory, in checked sections.
//!
//! ```text
//! 0   6  "SMSNAP"
//! 6   2  zero
//! 8   2  major version       10  2  minor version
//! 12  4  number of sections  16  8  length of the file
//! 24  4  CRC32C of the table 28  4  CRC32C of bytes 0 to 27
//! 32     table: kind u32, instance u16, version u16, scope u32, length u32, CRC32C u32
//!        payloads in the order of the table, nothing between them, nothing after
//! ```
//! All numbers are little-endian. A newer minor version only adds kinds of
//! sections; a reader that does not know one refuses it as unclaimed.

use crate::error::cap;
use crate::limits::{MAX_DEVICES, MAX_SECTIONS, MAX_STATE_BYTES, MAX_VCPUS};
use crate::section_kind::SectionKind;
use crate::{Result, SnapshotError};
use std::ops::{Range, RangeInclusive};

/// Version of the layout of `state.bin`: a reader refuses any other major.
pub const STATE_MAJOR: u16 = 2;
/// Minor version: a reader refuses a newer one.
pub const STATE_MINOR: u16 = 0;

const FILE: &str = "state.bin";
const MAGIC: &[u8; 6] = b"SMSNAP";
/// What follows the magic number. Version 1 had the architecture and the engine
/// there, which are facts of the manifest.
const ZERO: [u8; 2] = [0; 2];
const HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 20;

/// Who could make use of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Defined by the architecture or a device's specification: any engine of
    /// this architecture needs it.
    Machine,
    /// Only for the engine that wrote it.
    Engine,
}

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// What it holds.
    pub kind: SectionKind,
    /// Which of its kind.
    pub instance: u16,
    /// Version of the payload's layout.
    pub version: u16,
    /// Who can use it.
    pub scope: Scope,
    /// The payload.
    pub bytes: &'a [u8],
}

/// Collects sections and writes `state.bin`.
#[derive(Debug, Default)]
pub struct StateWriter {
    table: Vec<u8>,
    names: Vec<(SectionKind, u16)>,
    payload: Vec<u8>,
}

impl StateWriter {
    /// No sections yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a section.
    ///
    /// # Errors
    /// When kind and instance are there already, or a cap would be exceeded.
    pub fn section(&mut self, section: &Section<'_>) -> Result<()> {
        let name = (section.kind, section.instance);
        if self.names.contains(&name) {
            return Err(SnapshotError::Malformed {
                what: "repeated section",
            });
        }
        let count = self.names.len() + 1;
        cap("number of sections", count as u64, MAX_SECTIONS as u64)?;
        let total = HEADER_BYTES + count * ENTRY_BYTES + self.payload.len();
        let total = total.saturating_add(section.bytes.len());
        cap(FILE, total as u64, MAX_STATE_BYTES)?;
        let length = u32::try_from(section.bytes.len()).unwrap_or(u32::MAX);
        self.names.push(name);
        self.table.extend(section.kind.0.to_le_bytes());
        self.table.extend(section.instance.to_le_bytes());
        self.table.extend(section.version.to_le_bytes());
        self.table.extend((section.scope as u32).to_le_bytes());
        self.table.extend(length.to_le_bytes());
        self.table
            .extend(crc32c::crc32c(section.bytes).to_le_bytes());
        self.payload.extend_from_slice(section.bytes);
        Ok(())
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// When there are more virtual CPUs or devices than a reader accepts.
    pub fn finish(self) -> Result<Vec<u8>> {
        population(self.names.iter().copied())?;
        let total = HEADER_BYTES + self.table.len() + self.payload.len();
        let count = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let mut file = Vec::with_capacity(total);
        file.extend(MAGIC);
        file.extend(ZERO);
        file.extend(STATE_MAJOR.to_le_bytes());
        file.extend(STATE_MINOR.to_le_bytes());
        file.extend(count.to_le_bytes());
        file.extend((total as u64).to_le_bytes());
        file.extend(crc32c::crc32c(&self.table).to_le_bytes());
        file.extend(crc32c::crc32c(&file).to_le_bytes());
        file.extend(self.table);
        file.extend(self.payload);
        Ok(file)
    }
}

/// Checks how many virtual CPUs and devices there are.
fn population(names: impl Iterator<Item = (SectionKind, u16)>) -> Result<()> {
    let (mut vcpus, mut devices) = (0, 0);
    for (kind, _) in names {
        vcpus += u64::from(kind == SectionKind::VCPU);
        devices += u64::from(kind.is_device());
    }
    cap("number of vCPUs", vcpus, u64::from(MAX_VCPUS))?;
    cap("number of devices", devices, u64::from(MAX_DEVICES))
}

/// A section's place in the file.
#[derive(Clone, Debug)]
struct Entry {
    kind: SectionKind,
    instance: u16,
    version: u16,
    scope: Scope,
    payload: Range<usize>,
}

/// A whole and checked `state.bin`.
#[derive(Clone, Debug)]
pub struct StateFile {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or(SnapshotError::Truncated { what: FILE })
}

fn number_u16(bytes: &[u8], at: usize) -> Result<u16> {
    number(bytes, at).map(u16::from_le_bytes)
}

fn number_u32(bytes: &[u8], at: usize) -> Result<u32> {
    number(bytes, at).map(u32::from_le_bytes)
}

fn checksum(section: impl Into<String>, bytes: &[u8], stored: u32) -> Result<()> {
    if crc32c::crc32c(bytes) != stored {
        return Err(SnapshotError::Checksum {
            section: section.into(),
        });
    }
    Ok(())
}

impl StateFile {
    /// Reads a file and checks all of it.
    ///
    /// # Errors
    /// When anything is not as the writer would have written it.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        cap(FILE, bytes.len() as u64, MAX_STATE_BYTES)?;
        let header: [u8; HEADER_BYTES] = number(&bytes, 0)?;
        if !header.starts_with(MAGIC) {
            return Err(SnapshotError::Malformed {
                what: "magic number of state.bin",
            });
        }
        // Before the checksum, so that a file of another version says so even
        // if that version has another header.
        let (major, minor) = (number_u16(&header, 8)?, number_u16(&header, 10)?);
        checksum("state.bin header", &header[..28], number_u32(&header, 28)?).or_else(|error| {
            if major == STATE_MAJOR {
                Err(error)
            } else {
                Ok(())
            }
        })?;
        if major != STATE_MAJOR || minor > STATE_MINOR {
            return Err(SnapshotError::Version {
                what: FILE,
                found: format!("{major}.{minor}"),
                supported: format!("{STATE_MAJOR}.0 to {STATE_MAJOR}.{STATE_MINOR}"),
            });
        }
        if header[6..8] != ZERO {
            return Err(SnapshotError::Malformed {
                what: "header of state.bin",
            });
        }
        let total = u64::from_le_bytes(number(&header, 16)?);
        if total > bytes.len() as u64 {
            return Err(SnapshotError::Truncated { what: FILE });
        }
        if total < bytes.len() as u64 {
            return Err(SnapshotError::TrailingBytes { what: FILE });
        }
        let count = number_u32(&header, 12)?;
        cap("number of sections", count.into(), MAX_SECTIONS as u64)?;
        let count = count as usize;
        let table_end = HEADER_BYTES + count * ENTRY_BYTES;
        let table = bytes
            .get(HEADER_BYTES..table_end)
            .ok_or(SnapshotError::Truncated { what: FILE })?;
        checksum("state.bin table", table, number_u32(&header, 24)?)?;
        let entries = entries(&bytes, table, table_end)?;
        Ok(Self { entries, bytes })
    }

    /// All sections in the order they were written, to look at.
    pub fn sections(&self) -> impl ExactSizeIterator<Item = Section<'_>> {
        self.entries.iter().map(|entry| self.at(entry))
    }

    /// Starts to hand the sections out.
    pub fn claim(&self) -> Claims<'_> {
        Claims {
            file: self,
            left: self.entries.iter().collect(),
        }
    }

    fn at(&self, entry: &Entry) -> Section<'_> {
        Section {
            kind: entry.kind,
            instance: entry.instance,
            version: entry.version,
            scope: entry.scope,
            bytes: &self.bytes[entry.payload.clone()],
        }
    }
}

/// Reads the table and checks each payload.
fn entries(bytes: &[u8], table: &[u8], first: usize) -> Result<Vec<Entry>> {
    let mut at = first;
    let mut entries: Vec<Entry> = Vec::with_capacity(table.len() / ENTRY_BYTES);
    for entry in table.chunks_exact(ENTRY_BYTES) {
        let kind = SectionKind(number_u32(entry, 0)?);
        let instance = number_u16(entry, 4)?;
        if entries
            .iter()
            .any(|other| (other.kind, other.instance) == (kind, instance))
        {
            return Err(SnapshotError::Malformed {
                what: "repeated section",
            });
        }
        let scope = match number_u32(entry, 8)? {
            0 => Scope::Machine,
            1 => Scope::Engine,
            _ => {
                return Err(SnapshotError::Malformed {
                    what: "scope of a section",
                });
            }
        };
        let end = at
            .checked_add(number_u32(entry, 12)? as usize)
            .filter(|end| *end <= bytes.len())
            .ok_or(SnapshotError::Truncated { what: FILE })?;
        checksum(
            format!("section {kind}/{instance}"),
            &bytes[at..end],
            number_u32(entry, 16)?,
        )?;
        entries.push(Entry {
            kind,
            instance,
            version: number_u16(entry, 6)?,
            scope,
            payload: at..end,
        });
        at = end;
    }
    if at != bytes.len() {
        return Err(SnapshotError::TrailingBytes { what: FILE });
    }
    population(entries.iter().map(|entry| (entry.kind, entry.instance)))?;
    Ok(entries)
}

/// Sections still to be claimed. Whoever restores takes what it knows and then
/// calls [`Claims::finish`], which refuses whatever is left.
#[derive(Debug)]
#[must_use = "finish() tells whether sections are left over"]
pub struct Claims<'a> {
    file: &'a StateFile,
    left: Vec<&'a Entry>,
}

impl<'a> Claims<'a> {
    /// Takes a section that must be there in one of the given versions.
    ///
    /// # Errors
    /// When it is not there, or in another version.
    pub fn take(
        &mut self,
        kind: SectionKind,
        instance: u16,
        versions: RangeInclusive<u16>,
    ) -> Result<Section<'a>> {
        self.take_if_there(kind, instance, versions)?
            .ok_or(SnapshotError::Missing { kind, instance })
    }

    /// Takes a section that may be there, but only in one of the given versions.
    ///
    /// # Errors
    /// When it is there in another version.
    pub fn take_if_there(
        &mut self,
        kind: SectionKind,
        instance: u16,
        versions: RangeInclusive<u16>,
    ) -> Result<Option<Section<'a>>> {
        let found = self
            .left
            .iter()
            .position(|entry| (entry.kind, entry.instance) == (kind, instance));
        let Some(index) = found else {
            return Ok(None);
        };
        let entry = self.left.remove(index);
        if !versions.contains(&entry.version) {
            return Err(SnapshotError::Version {
                what: "a section of state.bin",
                found: format!("{} ({kind}/{instance})", entry.version),
                supported: format!("{} to {}", versions.start(), versions.end()),
            });
        }
        Ok(Some(self.file.at(entry)))
    }

    /// Confirms that every section was taken.
    ///
    /// # Errors
    /// When one was not.
    pub fn finish(self) -> Result<()> {
        match self.left.first() {
            None => Ok(()),
            Some(entry) => Err(SnapshotError::Unclaimed {
                kind: entry.kind,
                instance: entry.instance,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(kind: SectionKind, instance: u16, bytes: &[u8]) -> Section<'_> {
        Section {
            kind,
            instance,
            version: 1,
            scope: Scope::Machine,
            bytes,
        }
    }

    fn sample() -> Vec<u8> {
        let mut writer = StateWriter::new();
        for (kind, instance, bytes) in [
            (SectionKind::MACHINE, 0, &b"board"[..]),
            (SectionKind::VCPU, 0, &[1; 100]),
            (SectionKind::VCPU, 1, &[2; 100]),
            (SectionKind::device(2), 0, &[]),
        ] {
            writer.section(&section(kind, instance, bytes)).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn sections_come_back_as_written() {
        let file = StateFile::parse(sample()).unwrap();
        assert_eq!(file.sections().len(), 4);
        let mut claims = file.claim();
        let board = claims.take(SectionKind::MACHINE, 0, 1..=1).unwrap();
        assert_eq!(board.bytes, b"board");
        assert!(matches!(
            claims.take(SectionKind::MACHINE, 0, 1..=1),
            Err(SnapshotError::Missing { .. })
        ));
        assert!(matches!(
            claims.take(SectionKind::VCPU, 1, 2..=3),
            Err(SnapshotError::Version { .. })
        ));
        assert!(matches!(
            claims.finish(),
            Err(SnapshotError::Unclaimed {
                kind: SectionKind::VCPU,
                instance: 0
            })
        ));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = sample();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(StateFile::parse(bad).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn every_truncation_and_every_extension_is_found() {
        let good = sample();
        for len in 0..good.len() {
            let error = StateFile::parse(good[..len].to_vec()).unwrap_err();
            assert!(
                matches!(error, SnapshotError::Truncated { .. }),
                "{len}: {error}"
            );
        }
        let longer = [good, vec![0]].concat();
        assert!(matches!(
            StateFile::parse(longer),
            Err(SnapshotError::TrailingBytes { .. })
        ));
    }

    #[test]
    fn other_major_version_is_told_apart_from_damage() {
        let mut other = sample();
        other[8] = 1;
        assert!(matches!(
            StateFile::parse(other),
            Err(SnapshotError::Version { .. })
        ));
    }

    #[test]
    fn caps_hold_for_the_writer() {
        let mut writer = StateWriter::new();
        let big = vec![0; usize::try_from(MAX_STATE_BYTES).unwrap()];
        assert!(matches!(
            writer.section(&section(SectionKind::MACHINE, 0, &big)),
            Err(SnapshotError::TooLarge { .. })
        ));
        for vcpu in 0..=MAX_VCPUS {
            writer
                .section(&section(SectionKind::VCPU, vcpu, &[]))
                .unwrap();
        }
        assert!(writer.section(&section(SectionKind::VCPU, 0, &[])).is_err());
        assert!(matches!(
            writer.finish(),
            Err(SnapshotError::TooLarge { .. })
        ));
    }
}
