//! Fuzz logic as plain functions over bytes, for fuzzers and for the replay
//! in this crate's own tests. Inputs are lists of operations, mostly valid,
//! so that what is behind the first check gets its share. A function panics
//! if the device breaks a promise.

use vm_memory::{Bytes, GuestAddress};

use crate::GuestRam;
use crate::testing::guest_ram;

mod balloon;
mod blk;
mod fs;
mod mem;
mod mmio;
mod net;
mod vsock;

pub use balloon::fuzz_balloon;
pub use blk::fuzz_blk;
pub use fs::fuzz_fs;
pub use mem::fuzz_mem;
pub use mmio::fuzz_mmio;
pub use net::fuzz_net;
pub use vsock::fuzz_vsock;

/// Guest RAM of every run.
const RAM_BYTES: usize = 1 << 18;
/// Operations of one run; longer inputs are cut.
const MAX_OPS: usize = 256;

/// The input, taken apart from its front; zeroes after its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let len = N.min(self.0.len());
        let (head, tail) = self.0.split_at(len);
        bytes[..len].copy_from_slice(head);
        self.0 = tail;
        bytes
    }

    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.bytes())
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// One of `choices`.
    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.u8()) % choices.len()]
    }

    /// An address, most often within RAM and sometimes just past its end.
    fn address(&mut self) -> u64 {
        match self.u8() {
            0 => self.u64(),
            1 => (RAM_BYTES as u64 - 16).wrapping_add(u64::from(self.u8() % 32)),
            _ => u64::from(self.u32()) % RAM_BYTES as u64,
        }
    }

    /// A length, most often small.
    fn len(&mut self) -> u32 {
        match self.u8() {
            0 => self.u32(),
            1 => u32::from(self.u16()),
            2 => 512 * u32::from(self.u8() % 16),
            _ => u32::from(self.u8()),
        }
    }
}

/// RAM without a byte that is zero by chance.
fn patterned_ram() -> GuestRam {
    let ram = guest_ram(RAM_BYTES);
    ram.write_slice(&vec![0xa5; RAM_BYTES], GuestAddress(0))
        .expect("RAM is there");
    ram
}

#[cfg(test)]
mod tests;
