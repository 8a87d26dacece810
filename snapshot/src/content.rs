//! Which file has which part of guest memory: `mem.bin`, and for what it has in
//! common with others, its base.

use crate::holes::next_data;
use crate::limits::GRANULE_BYTES;
use crate::manifest::MemoryTable;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The files of a guest's memory.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    file: Arc<File>,
    base: Option<Base>,
}

#[derive(Clone, Debug)]
struct Base {
    file: Arc<File>,
    /// What is in it instead of in `mem.bin`: bytes, ascending.
    shared: Arc<[Range<u64>]>,
}

impl Content {
    /// Everything is in `file` but for what `table` says is in `base`.
    pub(crate) fn new(file: Arc<File>, base: Option<Arc<File>>, table: &MemoryTable) -> Self {
        Self {
            file,
            base: base.map(|file| Base {
                file,
                shared: table.shared().collect(),
            }),
        }
    }

    /// `mem.bin`.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// What the base has.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (&File, Range<u64>)> {
        let base = self.base.iter();
        base.flat_map(|base| base.shared.iter().map(|run| (&*base.file, run.clone())))
    }

    /// Where there is anything but zeros in the first `bytes` of memory, as far as the
    /// files' systems tell without reading: ranges in no order, which may overlap.
    pub(crate) fn data(&self, bytes: u64) -> io::Result<Vec<Range<u64>>> {
        let mut data: Vec<_> = self.shared().map(|(_, run)| run).collect();
        let mut at = 0;
        while let Some((start, end)) = next_data(&self.file, at, bytes)? {
            data.push(start..end);
            at = end;
        }
        Ok(data)
    }

    /// A range of memory in pieces, and who has them.
    pub(crate) fn pieces(&self, range: Range<u64>) -> Vec<(&File, Range<u64>)> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        for (base, run) in self.shared() {
            let (start, end) = (run.start.max(at), run.end.min(range.end));
            if start < end {
                if at < start {
                    pieces.push((&*self.file, at..start));
                }
                pieces.push((base, start..end));
                at = end;
            }
        }
        if at < range.end {
            pieces.push((&*self.file, at..range.end));
        }
        pieces
    }
}

impl MemoryTable {
    /// What is in the base, in bytes.
    pub(crate) fn shared(&self) -> impl Iterator<Item = Range<u64>> {
        self.base_runs.iter().map(|(first, count)| {
            let start = u64::from(*first) * GRANULE_BYTES;
            start..start + u64::from(*count) * GRANULE_BYTES
        })
    }

    /// Bytes that are in the base.
    #[must_use]
    pub fn shared_bytes(&self) -> u64 {
        self.shared().map(|run| run.end - run.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_falls_apart_where_the_base_begins_and_ends() {
        let file = || Arc::new(File::open("/dev/null").unwrap());
        let table = MemoryTable {
            stored_bytes: 0,
            chunks: Vec::new(),
            base_runs: vec![(1, 2), (5, 1)],
        };
        let content = Content::new(file(), Some(file()), &table);
        let own = std::ptr::from_ref(content.file());
        let pieces = |range: Range<u64>| -> Vec<(bool, u64, u64)> {
            let pieces = content.pieces(range.start * 4096..range.end * 4096);
            let piece = |(file, run): (&File, Range<u64>)| {
                (std::ptr::eq(file, own), run.start / 4096, run.end / 4096)
            };
            pieces.into_iter().map(piece).collect()
        };
        assert_eq!(pieces(0..4), [(true, 0, 4)]);
        assert_eq!(
            pieces(3..13),
            [(true, 3, 4), (false, 4, 12), (true, 12, 13)]
        );
        assert_eq!(pieces(5..7), [(false, 5, 7)]);
        let all = [
            (true, 0, 4),
            (false, 4, 12),
            (true, 12, 20),
            (false, 20, 24),
            (true, 24, 30),
        ];
        assert_eq!(pieces(0..30), all);
        let alone = Content::new(file(), None, &table);
        assert_eq!(alone.pieces(0..1 << 20).len(), 1);
    }
}
