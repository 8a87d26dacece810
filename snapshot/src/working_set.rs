//! `ws.bin`: which pages the guest touched first, to read them ahead.
//!
//! ```text
//! 0   8  "SMWSET\0\1"      8   4  page size in bytes (4096)
//! 12  4  number of runs    16  8  pages in all runs
//! 24  4  CRC32C of runs    28  4  CRC32C of bytes 0 to 27
//! 32     runs: first page u64, pages u64; ascending, with a gap between any two
//! ```

use crate::error::cap;
use crate::fields::{FieldReader, FieldWriter};
use crate::limits::{MAX_WORKING_SET_BYTES, MAX_WORKING_SET_RUNS, PAGE_BYTES};
use crate::{Result, SnapshotError};
use std::ops::Range;

const FILE: &str = "ws.bin";
/// The last byte is the version.
const MAGIC: &[u8; 8] = b"SMWSET\0\x01";
const HEADER_BYTES: usize = 32;
const RUN_BYTES: usize = 16;

/// Runs of pages of [`PAGE_BYTES`], ascending, neither empty nor touching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkingSet {
    runs: Vec<Range<u64>>,
}

impl WorkingSet {
    /// Pages in any order, as often as they come. Should there be more runs
    /// than a file may hold, the ones with the smallest gaps are joined.
    #[must_use]
    pub fn from_pages(pages: impl IntoIterator<Item = u64>) -> Self {
        let mut pages: Vec<u64> = pages.into_iter().collect();
        pages.sort_unstable();
        let mut runs: Vec<Range<u64>> = Vec::new();
        for page in pages {
            let after = page.saturating_add(1);
            match runs.last_mut() {
                Some(run) if page <= run.end => run.end = run.end.max(after),
                _ => runs.push(page..after),
            }
        }
        let mut gap = 2;
        while runs.len() > MAX_WORKING_SET_RUNS {
            let mut joined: Vec<Range<u64>> = Vec::with_capacity(runs.len());
            for run in runs {
                match joined.last_mut() {
                    Some(last) if run.start - last.end <= gap => last.end = run.end,
                    _ => joined.push(run),
                }
            }
            runs = joined;
            gap = gap.saturating_mul(2);
        }
        Self { runs }
    }

    /// The runs, as page numbers.
    #[must_use]
    pub fn runs(&self) -> &[Range<u64>] {
        &self.runs
    }

    /// Number of pages in all runs.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut runs = FieldWriter::new();
        for run in &self.runs {
            runs.u64(run.start).u64(run.end - run.start);
        }
        let runs = runs.finish();
        let mut header = FieldWriter::new();
        let count = u32::try_from(self.runs.len()).unwrap_or(u32::MAX);
        let page_bytes = u32::try_from(PAGE_BYTES).unwrap_or(u32::MAX);
        header.raw(MAGIC).u32(page_bytes).u32(count);
        header.u64(self.pages()).u32(crc32c::crc32c(&runs));
        let mut bytes = header.finish();
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes.extend(runs);
        bytes
    }

    /// Reads a file about a machine with `memory_bytes` of memory.
    ///
    /// # Errors
    /// When anything is not as the writer would have written it.
    pub fn decode(bytes: &[u8], memory_bytes: u64) -> Result<Self> {
        cap(FILE, bytes.len() as u64, MAX_WORKING_SET_BYTES)?;
        let (header, body) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(SnapshotError::Truncated { what: FILE })?;
        let mut fields = FieldReader::new(FILE, header);
        if fields.raw(MAGIC.len())? != MAGIC {
            return Err(malformed("magic number of ws.bin"));
        }
        let page_bytes = fields.u32()?;
        let count = fields.u32()?;
        let pages = fields.u64()?;
        let body_crc = fields.u32()?;
        if fields.u32()? != crc32c::crc32c(&header[..28]) {
            return Err(checksum("ws.bin header"));
        }
        fields.finish()?;
        if u64::from(page_bytes) != PAGE_BYTES {
            return Err(malformed("page size of ws.bin"));
        }
        cap("number of runs", count.into(), MAX_WORKING_SET_RUNS as u64)?;
        let expected = count as usize * RUN_BYTES;
        if body.len() < expected {
            return Err(SnapshotError::Truncated { what: FILE });
        }
        if body.len() > expected {
            return Err(SnapshotError::TrailingBytes { what: FILE });
        }
        if crc32c::crc32c(body) != body_crc {
            return Err(checksum("ws.bin runs"));
        }
        let set = Self {
            runs: runs(body, memory_bytes / PAGE_BYTES)?,
        };
        if set.pages() != pages {
            return Err(malformed("number of pages of ws.bin"));
        }
        Ok(set)
    }
}

fn runs(body: &[u8], memory_pages: u64) -> Result<Vec<Range<u64>>> {
    let mut fields = FieldReader::new(FILE, body);
    let mut runs: Vec<Range<u64>> = Vec::with_capacity(body.len() / RUN_BYTES);
    for _ in 0..body.len() / RUN_BYTES {
        let (start, pages) = (fields.u64()?, fields.u64()?);
        let end = start
            .checked_add(pages)
            .filter(|end| pages > 0 && *end <= memory_pages)
            .ok_or(malformed("run of ws.bin"))?;
        if runs.last().is_some_and(|last| start <= last.end) {
            return Err(malformed("order of the runs of ws.bin"));
        }
        runs.push(start..end);
    }
    fields.finish()?;
    Ok(runs)
}

fn malformed(what: &'static str) -> SnapshotError {
    SnapshotError::Malformed { what }
}

fn checksum(section: &str) -> SnapshotError {
    SnapshotError::Checksum {
        section: section.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: u64 = 1 << 20;

    fn sample() -> WorkingSet {
        WorkingSet::from_pages([9, 3, 4, 5, 4, 200, 255])
    }

    #[test]
    fn pages_become_runs_and_come_back() {
        let set = sample();
        assert_eq!(set.runs(), [3..6, 9..10, 200..201, 255..256]);
        assert_eq!(set.pages(), 6);
        assert_eq!(WorkingSet::decode(&set.encode(), MEMORY).unwrap(), set);
        let none = WorkingSet::default();
        assert_eq!(WorkingSet::decode(&none.encode(), MEMORY).unwrap(), none);
    }

    #[test]
    fn pages_outside_of_memory_are_refused() {
        assert!(WorkingSet::decode(&sample().encode(), MEMORY - PAGE_BYTES).is_err());
    }

    #[test]
    fn too_many_runs_are_joined() {
        let pages = 0..(MAX_WORKING_SET_RUNS as u64 + 10);
        let set = WorkingSet::from_pages(pages.map(|page| page * 3));
        assert!(set.runs().len() <= MAX_WORKING_SET_RUNS);
        assert!(set.encode().len() as u64 <= MAX_WORKING_SET_BYTES);
    }

    #[test]
    fn every_flipped_bit_and_every_length_is_found() {
        let good = sample().encode();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(WorkingSet::decode(&bad, MEMORY).is_err(), "{at}/{bit}");
            }
            assert!(WorkingSet::decode(&good[..at], MEMORY).is_err());
        }
        assert!(WorkingSet::decode(&[good, vec![0]].concat(), MEMORY).is_err());
    }

    #[test]
    fn runs_out_of_order_are_refused() {
        let set = WorkingSet {
            runs: vec![5..6, 3..4],
        };
        assert!(WorkingSet::decode(&set.encode(), MEMORY).is_err());
        let touching = WorkingSet {
            runs: vec![3..4, 4..5],
        };
        assert!(WorkingSet::decode(&touching.encode(), MEMORY).is_err());
    }
}
