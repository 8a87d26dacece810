//! Sparse files: GNU's old header and its three PAX forms (GNU tar manual,
//! "Storing Sparse Files").

use super::header::{BLOCK, number};
use super::pax::decimal;
use crate::section::ReadAt;
use crate::tree::Extent;

/// More extents than this in one file are taken for an attack.
const MAX_EXTENTS: usize = 1 << 20;
/// Extents in the old header and in each continuation block.
const OLD_IN_HEADER: usize = 4;
const OLD_IN_BLOCK: usize = 21;

/// (offset, length) pairs as the archive gives them.
pub(super) type Map = Vec<(u64, u64)>;

/// Turns a map into extents of data stored from `data` on; the pieces must
/// be in order, apart, inside the file, and fill the stored data exactly.
pub(super) fn extents(
    map: &[(u64, u64)],
    size: u64,
    data: u64,
    stored: u64,
) -> Option<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut end = 0u64;
    let mut used = 0u64;
    for &(logical, len) in map {
        if logical < end {
            return None;
        }
        end = logical.checked_add(len)?;
        if end > size {
            return None;
        }
        if len > 0 {
            extents.push(Extent {
                logical,
                source: data.checked_add(used)?,
                len,
            });
        }
        used = used.checked_add(len)?;
    }
    (used == stored).then_some(extents)
}

/// The old GNU form: returns map, real size and how many bytes of
/// continuation blocks follow the header at `after`.
pub(super) fn old_gnu<R: ReadAt + ?Sized>(
    header: &[u8; 512],
    source: &R,
    after: u64,
) -> Option<(Map, u64, u64)> {
    let mut map = Vec::new();
    let real = u64::try_from(number(&header[483..495])?).ok()?;
    read_old(&header[386..], OLD_IN_HEADER, &mut map)?;
    let mut more = header[482] != 0;
    let mut consumed = 0u64;
    while more {
        let mut block = [0; 512];
        source
            .read_exact_at(&mut block, after.checked_add(consumed)?)
            .ok()?;
        consumed += BLOCK;
        read_old(&block, OLD_IN_BLOCK, &mut map)?;
        more = block[504] != 0;
        if map.len() > MAX_EXTENTS || consumed > BLOCK * MAX_EXTENTS as u64 {
            return None;
        }
    }
    Some((map, real, consumed))
}

fn read_old(bytes: &[u8], count: usize, map: &mut Map) -> Option<()> {
    for pair in bytes.chunks_exact(24).take(count) {
        // An unused slot ends the list.
        if pair[0] == 0 || pair[12] == 0 {
            break;
        }
        let offset = u64::try_from(number(&pair[..12])?).ok()?;
        let len = u64::try_from(number(&pair[12..])?).ok()?;
        map.push((offset, len));
    }
    Some(())
}

/// PAX form 0.1: numbers between commas.
pub(super) fn comma_list(text: &[u8]) -> Option<Map> {
    let numbers: Option<Vec<u64>> = text
        .split(|byte| *byte == b',')
        .take(2 * MAX_EXTENTS + 1)
        .map(decimal)
        .collect();
    pairs(&numbers?)
}

/// PAX form 1.0: a count and numbers, one per line, padded to a block, in
/// front of the data. Returns the map and the padded length.
pub(super) fn in_data<R: ReadAt + ?Sized>(
    source: &R,
    data: u64,
    stored: u64,
) -> Option<(Map, u64)> {
    let mut lines = Lines {
        source,
        position: data,
        end: data.checked_add(stored)?,
        block: Vec::new(),
        at: 0,
    };
    let count = usize::try_from(lines.number()?).ok()?;
    if count > MAX_EXTENTS {
        return None;
    }
    let mut map = Vec::new();
    for _ in 0..count {
        map.push((lines.number()?, lines.number()?));
    }
    Some((map, lines.position - data))
}

fn pairs(numbers: &[u64]) -> Option<Map> {
    if !numbers.len().is_multiple_of(2) || numbers.len() > 2 * MAX_EXTENTS {
        return None;
    }
    Some(numbers.chunks_exact(2).map(|p| (p[0], p[1])).collect())
}

struct Lines<'a, R: ?Sized> {
    source: &'a R,
    /// After the block being read.
    position: u64,
    end: u64,
    block: Vec<u8>,
    at: usize,
}

impl<R: ReadAt + ?Sized> Lines<'_, R> {
    fn number(&mut self) -> Option<u64> {
        let mut digits = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return decimal(&digits),
                digit if digits.len() < 20 => digits.push(digit),
                _ => return None,
            }
        }
    }

    fn byte(&mut self) -> Option<u8> {
        if self.at == self.block.len() {
            if self.position.checked_add(BLOCK)? > self.end {
                return None;
            }
            self.block.resize(512, 0);
            self.source
                .read_exact_at(&mut self.block, self.position)
                .ok()?;
            self.position += BLOCK;
            self.at = 0;
        }
        self.at += 1;
        self.block.get(self.at - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_must_be_ordered_bounded_and_complete() {
        assert_eq!(extents(&[(0, 5), (10, 5)], 20, 100, 10).unwrap().len(), 2);
        assert!(extents(&[(10, 5), (0, 5)], 20, 0, 10).is_none());
        assert!(extents(&[(0, 6), (5, 5)], 20, 0, 11).is_none());
        assert!(extents(&[(0, 21)], 20, 0, 21).is_none());
        assert!(extents(&[(0, 5)], 20, 0, 6).is_none());
        assert!(extents(&[(u64::MAX, 2)], u64::MAX, 0, 2).is_none());
    }

    #[test]
    fn map_in_data_is_read_and_bounded() {
        let mut data = b"2\n0\n512\n4096\n512\n".to_vec();
        data.resize(512, 0);
        data.extend([1; 1024]);
        let (map, used) = in_data(&data, 0, data.len() as u64).unwrap();
        assert_eq!((map, used), (vec![(0, 512), (4096, 512)], 512));
        assert!(in_data(&b"9\n".to_vec(), 0, 2).is_none());
        let endless = [b'1'; 1024].to_vec();
        assert!(in_data(&endless, 0, 1024).is_none());
    }
}
