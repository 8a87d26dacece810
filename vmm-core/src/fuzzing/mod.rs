//! Fuzz logic as plain functions over bytes, for fuzzers and for the replay
//! in this crate's own tests. A function panics if a promise is broken; the
//! expected results are computed apart from the code they are held against.

mod boot;
mod exits;
mod fdt;
mod spec;
mod tree;

#[cfg(test)]
mod replay;

pub use boot::fuzz_kernel_image;
pub use exits::{fuzz_psci, fuzz_syndrome};
pub use fdt::fuzz_fdt;
pub use spec::fuzz_spec;

/// A saved machine, damaged under good checksums, is refused, or runs and ends
/// like any other.
///
/// # Panics
/// When a thread of the machine panics, or it cannot be stopped.
#[cfg(feature = "softhv")]
pub fn fuzz_saved_machine(data: &[u8]) {
    crate::machine::fuzz_saved_machine(data);
}

/// The input, taken apart from its front; zeroes after its end.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let head = self.slice(N);
        bytes[..head.len()].copy_from_slice(head);
        bytes
    }

    /// At most `len` bytes, fewer at the end.
    pub(crate) fn slice(&mut self, len: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(len.min(self.0.len()));
        self.0 = tail;
        head
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.bytes())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A length or an address: small, or near a power of two, or anything.
    pub(crate) fn number(&mut self) -> u64 {
        match self.u8() % 4 {
            0 => self.u64(),
            1 => u64::from(self.u32()),
            2 => u64::from(self.u16()),
            _ => (1_u64 << (self.u8() % 64))
                .wrapping_add(u64::from(self.u8()))
                .wrapping_sub(128),
        }
    }

    /// Text of at most `max` bytes before what is not UTF-8 is replaced.
    pub(crate) fn text(&mut self, max: u16) -> String {
        let len = usize::from(self.u16() % max);
        String::from_utf8_lossy(self.slice(len)).into_owned()
    }
}
