//! Bytes on their way to the guest, kept until it has acknowledged them.

use std::io::IoSliceMut;

/// What a buffer begins with.
pub(crate) const MIN_BYTES: usize = 16 << 10;
/// What a buffer grows to.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// Memory that all flows of a guest share.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    used: usize,
}

impl Memory {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, used: 0 }
    }

    /// Takes some, if there is so much.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let after = self.used.saturating_add(bytes);
        let fits = after <= self.limit;
        if fits {
            self.used = after;
        }
        fits
    }

    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Bytes that are in use.
    pub(crate) fn used(&self) -> usize {
        self.used
    }
}

/// A ring. Empty ones take no memory.
#[derive(Debug, Default)]
pub(crate) struct SendBuffer {
    ring: Vec<u8>,
    head: usize,
    len: usize,
}

impl SendBuffer {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Makes room for at least a byte, if the limits allow it.
    pub(crate) fn make_room(&mut self, memory: &mut Memory) -> bool {
        if self.len < self.ring.len() {
            return true;
        }
        let bytes = (self.ring.len() * 2).clamp(MIN_BYTES, MAX_BYTES);
        let more = bytes - self.ring.len();
        if more == 0 || !memory.take(more) {
            return false;
        }
        let mut ring = vec![0; bytes];
        let [first, second] = self.slices(0, self.len);
        let middle = first.len();
        ring[..middle].copy_from_slice(first);
        ring[middle..self.len].copy_from_slice(second);
        self.ring = ring;
        self.head = 0;
        true
    }

    /// Gives the memory of an empty buffer back.
    pub(crate) fn release(&mut self, memory: &mut Memory) {
        if self.len == 0 && !self.ring.is_empty() {
            memory.give_back(self.ring.len());
            *self = Self::default();
        }
    }

    /// Gives all of it back, whatever is in it.
    pub(crate) fn discard(&mut self, memory: &mut Memory) {
        self.len = 0;
        self.release(memory);
    }

    /// What is free, `most` bytes of it.
    pub(crate) fn room(&mut self, most: usize) -> [IoSliceMut<'_>; 2] {
        let (head, len, bytes) = (self.head, self.len, self.ring.len());
        let most = most.min(bytes - len);
        let tail = head + len;
        if tail >= bytes {
            let start = tail - bytes;
            return [
                IoSliceMut::new(&mut self.ring[start..start + most]),
                IoSliceMut::new(&mut []),
            ];
        }
        let (before, after) = self.ring.split_at_mut(tail);
        let first = most.min(after.len());
        [
            IoSliceMut::new(&mut after[..first]),
            IoSliceMut::new(&mut before[..most - first]),
        ]
    }

    /// So many bytes of [`SendBuffer::room`] were filled.
    pub(crate) fn filled(&mut self, bytes: usize) {
        self.len = (self.len + bytes).min(self.ring.len());
    }

    /// The bytes from `offset` on, `len` of them as far as they exist.
    pub(crate) fn slices(&self, offset: usize, len: usize) -> [&[u8]; 2] {
        let offset = offset.min(self.len);
        let len = len.min(self.len - offset);
        let start = self.head + offset;
        let bytes = self.ring.len();
        if start >= bytes {
            let start = start - bytes;
            return [self.ring.get(start..start + len).unwrap_or_default(), &[]];
        }
        let first = len.min(bytes - start);
        [&self.ring[start..start + first], &self.ring[..len - first]]
    }

    /// The guest has the first `bytes` bytes.
    pub(crate) fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.len);
        self.len -= bytes;
        self.head += bytes;
        if self.head >= self.ring.len() {
            self.head -= self.ring.len();
        }
        if self.len == 0 {
            self.head = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(buffer: &mut SendBuffer, bytes: &[u8], memory: &mut Memory) -> usize {
        let mut done = 0;
        while done < bytes.len() && buffer.make_room(memory) {
            let mut now = 0;
            for part in &mut buffer.room(usize::MAX) {
                let rest = &bytes[done + now..];
                let count = part.len().min(rest.len());
                part[..count].copy_from_slice(&rest[..count]);
                now += count;
            }
            buffer.filled(now);
            done += now;
        }
        done
    }

    fn all(buffer: &SendBuffer) -> Vec<u8> {
        buffer.slices(0, buffer.len()).concat()
    }

    #[test]
    fn bytes_come_out_as_they_went_in_over_growth_and_wraps() {
        let mut memory = Memory::new(4 << 20);
        let mut buffer = SendBuffer::default();
        let (mut next_in, mut next_out) = (0_u32, 0_u32);
        let byte = |n: u32| n.wrapping_mul(0x9e37_79b1).to_le_bytes()[3];
        // Sizes that are no divisors of the ring's.
        for round in 0..200_usize {
            let count = 1 + round * 7919 % 23_456;
            let bytes: Vec<u8> = (0..count)
                .map(|n| byte(next_in.wrapping_add(u32::try_from(n).unwrap())))
                .collect();
            let taken = push(&mut buffer, &bytes, &mut memory);
            next_in = next_in.wrapping_add(u32::try_from(taken).unwrap());
            let out = (round * 104_729 % 20_000).min(buffer.len());
            for got in buffer.slices(0, out).concat() {
                assert_eq!(got, byte(next_out), "at {next_out}");
                next_out = next_out.wrapping_add(1);
            }
            buffer.consume(out);
        }
        assert_eq!(buffer.len(), usize::try_from(next_in - next_out).unwrap());
        assert!(next_in > 1 << 20);
    }

    #[test]
    fn growth_ends_at_the_limits_and_empty_buffers_take_nothing() {
        let mut memory = Memory::new(3 << 20);
        let mut buffers = [const { None }; 4].map(|_: Option<()>| SendBuffer::default());
        let long = vec![7; 2 << 20];
        let taken = buffers
            .each_mut()
            .map(|buffer| push(buffer, &long, &mut memory));
        assert_eq!(taken, [MAX_BYTES, MAX_BYTES, MAX_BYTES, 0]);
        assert_eq!(memory.used(), 3 << 20);
        assert_eq!(all(&buffers[0]).len(), MAX_BYTES);
        for buffer in &mut buffers {
            buffer.release(&mut memory);
            buffer.consume(usize::MAX);
            buffer.release(&mut memory);
        }
        assert_eq!(memory.used(), 0);
    }
}
