//! Puts a kernel, its initial RAM disk and its device tree into guest RAM.

mod image;

use std::fs::File;
use std::io::{self, Seek};
use std::path::Path;

use vm_memory::{Bytes, GuestAddress};

use super::image::{BASE_ALIGNMENT, ImageHeader};
use super::layout;
use crate::boot::{BootError, BootFiles};
use crate::memory::GuestMemory;
use crate::spec::HostFile;
use image::Failure;

pub use image::ArmImage;

/// Initial RAM disks start on a boundary of this many bytes.
pub(crate) const INITRD_ALIGNMENT: u64 = 64 * 1024;

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
pub fn load(memory: &GuestMemory, files: &BootFiles<'_>) -> Result<Loaded, BootError> {
    let BootFiles { kernel, initrd } = *files;
    let fdt = (memory.base() + memory.bytes()).saturating_sub(layout::FDT_BYTES);
    let (entry, kernel_end) = load_kernel(memory, kernel, fdt)?;
    let initrd = initrd
        .map(|file| load_initrd(memory, file, kernel_end, fdt))
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

fn load_kernel(
    memory: &GuestMemory,
    kernel: &HostFile,
    limit: u64,
) -> Result<(u64, u64), BootError> {
    let (mut file, _) = open(kernel)?;
    let loaded = image::load(&**memory.ram(), memory.base(), limit, &mut file)
        .map_err(|failure| told(failure, kernel.name(), "a kernel", memory))?;
    Ok((loaded.kernel_load.0, loaded.kernel_end))
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
        .checked_next_multiple_of(BASE_ALIGNMENT)?
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
    initrd: &HostFile,
    kernel_end: u64,
    limit: u64,
) -> Result<(u64, u64), BootError> {
    let (mut file, bytes) = open(initrd)?;
    let told = |failure| told(failure, initrd.name(), "an initial RAM disk", memory);
    let Some((start, end)) = place_initrd(kernel_end, limit, bytes) else {
        return Err(told(Failure::DoesNotFit { bytes }));
    };
    image::copy(&**memory.ram(), &mut file, start, bytes).map_err(told)?;
    Ok((start, end))
}

fn open(file: &HostFile) -> Result<(File, u64), BootError> {
    let read = || {
        let mut file = file.to_file()?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            // A pipe or a terminal would block, a directory cannot be read.
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // One that was open may have been read before.
        file.rewind()?;
        Ok((file, metadata.len()))
    };
    read().map_err(|source| read_error(file.name(), source))
}

/// What stopped a loader, with what it does not know.
fn told(failure: Failure, path: &Path, what: &'static str, memory: &GuestMemory) -> BootError {
    match failure {
        Failure::Read(source) => read_error(path, source),
        Failure::NotAKernel(reason) => BootError::NotAKernel {
            path: path.to_owned(),
            reason,
        },
        Failure::DoesNotFit { bytes } => BootError::DoesNotFit {
            what,
            bytes,
            ram_bytes: memory.bytes(),
        },
        Failure::Changed => BootError::Changed {
            path: path.to_owned(),
        },
    }
}

fn read_error(path: &Path, source: io::Error) -> BootError {
    BootError::Read {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
