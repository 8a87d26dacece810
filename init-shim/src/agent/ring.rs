//! The latest bytes of a stream, and how many there were.

use std::collections::VecDeque;

/// Grows up to its limit; older bytes go then.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    total: u64,
    limit: usize,
}

impl Ring {
    /// Of a stream of which `before` bytes went elsewhere.
    pub(super) fn new(limit: usize, before: u64) -> Self {
        Self {
            bytes: VecDeque::new(),
            total: before,
            limit,
        }
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        self.total = self.total.saturating_add(data.len() as u64);
        let from = data.len().saturating_sub(self.limit);
        let data = data.get(from..).unwrap_or_default();
        let over = (self.bytes.len() + data.len()).saturating_sub(self.limit);
        self.bytes.drain(..over.min(self.bytes.len()));
        self.bytes.extend(data);
    }

    /// All that there ever was, in bytes.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// What it keeps, in bytes.
    pub(super) fn kept(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn tail(&self, most: usize) -> Vec<u8> {
        let from = self.bytes.len().saturating_sub(most);
        self.bytes.range(from..).copied().collect()
    }

    /// Copies what is at `offset` of the stream, as much as fits. Gives how many
    /// bytes from there on are lost, and how many behind these were copied.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> (u64, usize) {
        let oldest = self.total.saturating_sub(self.bytes.len() as u64);
        let lost = oldest.saturating_sub(offset);
        let skip = usize::try_from(offset.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let (front, back) = self.bytes.as_slices();
        let back_skip = skip.saturating_sub(front.len());
        let parts = [
            front.get(skip..).unwrap_or_default(),
            back.get(back_skip..).unwrap_or_default(),
        ];
        let mut count = 0;
        for part in parts {
            let room = into.get_mut(count..).unwrap_or_default();
            let take = part.len().min(room.len());
            if let (Some(room), Some(part)) = (room.get_mut(..take), part.get(..take)) {
                room.copy_from_slice(part);
            }
            count += take;
        }
        (lost, count)
    }

    /// Gives back memory that it does not use.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_bytes_are_kept_and_all_are_counted() {
        let mut ring = Ring::new(10, 0);
        ring.push(b"abc");
        ring.push(b"def");
        assert_eq!(ring.tail(4), b"cdef");
        assert_eq!(ring.tail(100), b"abcdef");
        assert_eq!(ring.tail(0), b"");
        ring.push(&[b'x'; 9]);
        assert_eq!(ring.tail(usize::MAX), b"fxxxxxxxxx");
        ring.push(&[b'y'; 30]);
        assert_eq!(ring.tail(usize::MAX), [b'y'; 10]);
        assert_eq!((ring.total(), ring.kept()), (45, 10));
    }

    #[test]
    fn reading_goes_on_from_any_place_and_tells_what_is_lost() {
        for before in [0, 1000] {
            let mut ring = Ring::new(10, before);
            let mut told = before;
            let mut seen = Vec::new();
            let mut lost = 0;
            for number in 0_u8..40 {
                ring.push(&[number; 3]);
                if number % 5 != 4 {
                    continue;
                }
                loop {
                    let mut piece = [0; 4];
                    let (gap, count) = ring.read(told, &mut piece);
                    lost += gap;
                    told += gap + count as u64;
                    seen.extend_from_slice(&piece[..count]);
                    if count == 0 {
                        break;
                    }
                }
                assert_eq!(told, ring.total());
            }
            assert_eq!((lost, seen.len()), (8 * 5, 8 * 10));
            assert_eq!(seen[..4], [1, 2, 2, 2]);
            assert_eq!(ring.read(told + 50, &mut [0; 4]), (0, 0));
        }
    }
}
