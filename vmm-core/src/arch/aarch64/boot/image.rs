//! The loader of arm64 kernel images, for guests on any host.

use std::io::{self, Read, Seek, SeekFrom};

use linux_loader::loader::{Error as LoaderError, KernelLoader, KernelLoaderResult};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory, GuestMemoryError, ReadVolatile};

use super::place_kernel;
use crate::arch::aarch64::image::{self, ImageError};

/// linux-loader's [`KernelLoader`] for arm64 `Image` files. Its own is only
/// there on arm64 hosts.
///
/// The kernel goes to the first 2 MiB boundary from `kernel_offset` (zero if
/// there is none) on, plus the offset its header asks for; the memory it will
/// clear after that must be there too, and counts in
/// [`KernelLoaderResult::kernel_end`]. The last argument has no meaning here.
///
/// linux-loader's errors have no word for some causes on every host: a file
/// that is no kernel is [`LoaderError::InvalidKernelStartAddress`], everything
/// else [`LoaderError::MemoryOverflow`]. [`super::load`] tells more.
#[derive(Clone, Copy, Debug)]
pub struct ArmImage;

impl KernelLoader for ArmImage {
    fn load<F, M: GuestMemory>(
        guest_mem: &M,
        kernel_offset: Option<GuestAddress>,
        kernel_image: &mut F,
        _highmem_start_address: Option<GuestAddress>,
    ) -> Result<KernelLoaderResult, LoaderError>
    where
        F: Read + ReadVolatile + Seek,
    {
        let base = kernel_offset.unwrap_or(GuestAddress(0));
        let limit = guest_mem.last_addr().raw_value().saturating_add(1);
        load(guest_mem, base.raw_value(), limit, kernel_image).map_err(|failure| match failure {
            Failure::NotAKernel(_) => LoaderError::InvalidKernelStartAddress,
            Failure::Read(_) | Failure::DoesNotFit { .. } | Failure::Changed => {
                LoaderError::MemoryOverflow
            }
        })
    }
}

/// Why an image was not loaded.
#[derive(Debug)]
pub(super) enum Failure {
    Read(io::Error),
    NotAKernel(ImageError),
    DoesNotFit { bytes: u64 },
    Changed,
}

/// Loads an image into the memory between `base` and `limit`.
pub(super) fn load<F, M: GuestMemory>(
    memory: &M,
    base: u64,
    limit: u64,
    file: &mut F,
) -> Result<KernelLoaderResult, Failure>
where
    F: Read + ReadVolatile + Seek,
{
    let bytes = file.seek(SeekFrom::End(0)).map_err(Failure::Read)?;
    file.rewind().map_err(Failure::Read)?;
    let mut header = Vec::with_capacity(image::HEADER_BYTES);
    file.by_ref()
        .take(image::HEADER_BYTES as u64)
        .read_to_end(&mut header)
        .map_err(Failure::Read)?;
    file.rewind().map_err(Failure::Read)?;
    let header = image::parse(&header, bytes).map_err(Failure::NotAKernel)?;
    let Some((entry, end)) = place_kernel(base, limit, header, bytes) else {
        return Err(Failure::DoesNotFit {
            bytes: bytes.max(header.image_bytes),
        });
    };
    copy(memory, file, entry, bytes)?;
    Ok(KernelLoaderResult {
        kernel_load: GuestAddress(entry),
        kernel_end: end,
        ..KernelLoaderResult::default()
    })
}

/// Reads exactly `bytes` bytes into guest memory.
pub(super) fn copy<F: ReadVolatile, M: GuestMemory>(
    memory: &M,
    file: &mut F,
    address: u64,
    bytes: u64,
) -> Result<(), Failure> {
    let length = usize::try_from(bytes).map_err(|_| Failure::Changed)?;
    let copied = memory.read_exact_volatile_from(GuestAddress(address), file, length);
    copied.map_err(|error| match error {
        GuestMemoryError::IOError(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            Failure::Read(source)
        }
        _ => Failure::Changed,
    })
}
