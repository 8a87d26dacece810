//! Puts a kernel, its initial RAM disk and its device tree into guest RAM.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress};

use crate::arch::aarch64::image::{self, ImageError, ImageHeader};
use crate::arch::aarch64::layout;
use crate::memory::GuestMemory;

/// Initial RAM disks start on a boundary of this many bytes.
pub(crate) const INITRD_ALIGNMENT: u64 = 64 * 1024;

/// Why a guest cannot be booted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The kernel is no kernel.
    #[error("{} is not a kernel: {reason}", path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: ImageError,
    },
    /// The guest's memory is too small for what must go into it.
    #[error("{what} of {bytes} bytes does not fit into the guest's {ram_bytes} bytes of memory")]
    DoesNotFit {
        /// What does not fit.
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// Length of the guest's memory.
        ram_bytes: u64,
    },
    /// A file changed its length while it was read.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

/// What is where in guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Where the first vCPU starts.
    pub entry: u64,
    /// The initial RAM disk's first byte and the one after its last.
    pub initrd: Option<(u64, u64)>,
    /// Where the device tree goes.
    pub fdt: u64,
}

/// Loads the files and decides where everything is.
pub fn load(
    memory: &GuestMemory,
    kernel: &Path,
    initrd: Option<&Path>,
) -> Result<Loaded, BootError> {
    let fdt = (memory.base() + memory.bytes()).saturating_sub(layout::FDT_BYTES);
    let (entry, kernel_end) = load_kernel(memory, kernel, fdt)?;
    let initrd = initrd
        .map(|path| load_initrd(memory, path, kernel_end, fdt))
        .transpose()?;
    Ok(Loaded { entry, initrd, fdt })
}

/// Writes the device tree where [`load`] said.
pub fn write_fdt(memory: &GuestMemory, loaded: &Loaded, blob: &[u8]) -> Result<(), BootError> {
    let does_not_fit = BootError::DoesNotFit {
        what: "a device tree",
        bytes: blob.len() as u64,
        ram_bytes: memory.bytes(),
    };
    if blob.len() as u64 > layout::FDT_BYTES {
        return Err(does_not_fit);
    }
    memory
        .ram()
        .write_slice(blob, GuestAddress(loaded.fdt))
        .map_err(|_| does_not_fit)
}

fn load_kernel(memory: &GuestMemory, path: &Path, limit: u64) -> Result<(u64, u64), BootError> {
    let (mut file, bytes) = open(path)?;
    let mut header = Vec::with_capacity(image::HEADER_BYTES);
    file.by_ref()
        .take(image::HEADER_BYTES as u64)
        .read_to_end(&mut header)
        .and_then(|_| file.seek(SeekFrom::Start(0)))
        .map_err(|source| read_error(path, source))?;
    let header = image::parse(&header, bytes).map_err(|reason| BootError::NotAKernel {
        path: path.to_owned(),
        reason,
    })?;
    let Some((entry, end)) = place_kernel(memory.base(), limit, header, bytes) else {
        return Err(BootError::DoesNotFit {
            what: "a kernel",
            bytes: bytes.max(header.image_bytes),
            ram_bytes: memory.bytes(),
        });
    };
    copy(memory, &mut file, path, entry, bytes)?;
    Ok((entry, end))
}

/// The first byte of a kernel of `file_bytes` bytes and the one after its
/// last, cleared data included, if that is between `base` and `limit`.
pub(crate) fn place_kernel(
    base: u64,
    limit: u64,
    header: ImageHeader,
    file_bytes: u64,
) -> Option<(u64, u64)> {
    let entry = base
        .checked_next_multiple_of(image::BASE_ALIGNMENT)?
        .checked_add(header.text_offset)?;
    let end = entry.checked_add(file_bytes.max(header.image_bytes))?;
    (end <= limit).then_some((entry, end))
}

/// The first byte of an initial RAM disk and the one after its last, between
/// `kernel_end` and `limit` and as high as it goes: kernels clear and use what
/// follows them.
pub(crate) fn place_initrd(kernel_end: u64, limit: u64, bytes: u64) -> Option<(u64, u64)> {
    let start = limit.checked_sub(bytes)? / INITRD_ALIGNMENT * INITRD_ALIGNMENT;
    (start >= kernel_end).then_some((start, start + bytes))
}

fn load_initrd(
    memory: &GuestMemory,
    path: &Path,
    kernel_end: u64,
    limit: u64,
) -> Result<(u64, u64), BootError> {
    let (mut file, bytes) = open(path)?;
    let Some((start, end)) = place_initrd(kernel_end, limit, bytes) else {
        return Err(BootError::DoesNotFit {
            what: "an initial RAM disk",
            bytes,
            ram_bytes: memory.bytes(),
        });
    };
    copy(memory, &mut file, path, start, bytes)?;
    Ok((start, end))
}

fn open(path: &Path) -> Result<(File, u64), BootError> {
    let file = File::open(path).map_err(|source| read_error(path, source))?;
    let metadata = file.metadata().map_err(|source| read_error(path, source))?;
    if !metadata.is_file() {
        // A pipe or a terminal would block, a directory cannot be read.
        return Err(read_error(path, io::ErrorKind::InvalidInput.into()));
    }
    Ok((file, metadata.len()))
}

fn copy(
    memory: &GuestMemory,
    file: &mut File,
    path: &Path,
    address: u64,
    bytes: u64,
) -> Result<(), BootError> {
    let changed = || BootError::Changed {
        path: path.to_owned(),
    };
    let length = usize::try_from(bytes).map_err(|_| changed())?;
    memory
        .ram()
        .read_exact_volatile_from(GuestAddress(address), file, length)
        .map_err(|error| match error {
            vm_memory::GuestMemoryError::IOError(source)
                if source.kind() != io::ErrorKind::UnexpectedEof =>
            {
                read_error(path, source)
            }
            _ => changed(),
        })
}

fn read_error(path: &Path, source: io::Error) -> BootError {
    BootError::Read {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
