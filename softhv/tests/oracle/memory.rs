//! What is mapped at EL0, and with which rights, byte by byte.

use super::{Step, Stop};
use crate::a64::{READ_ONLY, STREAM_BYTES, STREAMS, WINDOW, WRITABLE};

/// What an access wants to do.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Access {
    Load,
    Store,
    Fetch,
}

/// Where the engine's side maps its kernel, 2 MiB without any right for EL0.
const KERNEL: u64 = 0x75_4320_0000;
const KERNEL_BYTES: u64 = 0x20_0000;
const PAGE: u64 = 4096;

/// Where a byte is.
enum Place {
    Code(usize),
    Fixed(usize),
    Writable(usize),
}

/// Memory as one run sees it.
pub struct Memory<'a> {
    code: &'a [u8],
    fixed: &'a [u8],
    writable: Vec<u8>,
}

impl<'a> Memory<'a> {
    /// Streams, content of the read-only page, of the writable pages.
    pub fn new(code: &'a [u8], fixed: &'a [u8], image: &[u8]) -> Self {
        let writable = image.to_vec();
        Self {
            code,
            fixed,
            writable,
        }
    }

    /// The writable pages.
    pub fn writable(&self) -> &[u8] {
        &self.writable
    }

    /// Translates the address of one byte. The top byte is a tag.
    fn place(&self, address: u64, access: Access) -> Result<Place, Stop> {
        let at = address & (u64::MAX >> 8);
        let inside = |start: u64, bytes: u64| at.checked_sub(start).filter(|o| *o < bytes);
        if let Some(offset) = inside(STREAMS, STREAM_BYTES) {
            return match access {
                Access::Store => Err(Stop::Denied(at)),
                _ => Ok(Place::Code(offset as usize)),
            };
        }
        if inside(KERNEL, KERNEL_BYTES).is_some() {
            return Err(Stop::Denied(at));
        }
        if let Some(offset) = inside(WINDOW + READ_ONLY * PAGE, PAGE) {
            return match access {
                Access::Load => Ok(Place::Fixed(offset as usize)),
                _ => Err(Stop::Denied(at)),
            };
        }
        for (page, image) in WRITABLE {
            if let Some(offset) = inside(WINDOW + page * PAGE, PAGE) {
                return match access {
                    Access::Fetch => Err(Stop::Denied(at)),
                    _ => Ok(Place::Writable(image + offset as usize)),
                };
            }
        }
        Err(Stop::Unmapped(at))
    }

    /// Whether all of `bytes` bytes may be accessed; the fault is the first
    /// byte's that may not.
    pub fn check(&self, address: u64, bytes: u64, access: Access) -> Step {
        for offset in 0..bytes {
            let at = address.wrapping_add(offset);
            // The rights change at the edges of pages only.
            if offset == 0 || at % PAGE == 0 {
                self.place(at, access)?;
            }
        }
        Ok(())
    }

    /// Whether `address` is a multiple of `bytes`, as some accesses must be.
    pub fn aligned(&self, address: u64, bytes: u64) -> Step {
        if address.is_multiple_of(bytes) {
            Ok(())
        } else {
            Err(Stop::Unaligned(address & (u64::MAX >> 8)))
        }
    }

    fn load(&self, address: u64, bytes: u64, access: Access) -> Result<u128, Stop> {
        let mut value = 0;
        for offset in (0..bytes).rev() {
            let byte = match self.place(address.wrapping_add(offset), access)? {
                Place::Code(at) => self.code[at],
                Place::Fixed(at) => self.fixed[at],
                Place::Writable(at) => self.writable[at],
            };
            value = value << 8 | u128::from(byte);
        }
        Ok(value)
    }

    /// Loads up to 16 bytes.
    pub fn read(&self, address: u64, bytes: u64) -> Result<u128, Stop> {
        self.check(address, bytes, Access::Load)?;
        self.load(address, bytes, Access::Load)
    }

    /// Stores up to 16 bytes, all or none.
    pub fn write(&mut self, address: u64, bytes: u64, value: u128) -> Step {
        self.check(address, bytes, Access::Store)?;
        for offset in 0..bytes {
            let place = self.place(address.wrapping_add(offset), Access::Store)?;
            if let Place::Writable(at) = place {
                self.writable[at] = (value >> (8 * offset)) as u8;
            }
        }
        Ok(())
    }

    /// The instruction at `pc`.
    pub fn fetch(&self, pc: u64) -> Result<u32, Stop> {
        self.aligned(pc, 4)?;
        Ok(self.load(pc, 4, Access::Fetch)? as u32)
    }
}
