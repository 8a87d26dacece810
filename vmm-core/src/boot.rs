//! What a guest boots from, and why it may not.

use std::io;
use std::path::PathBuf;

use crate::arch::aarch64::image::ImageError;
use crate::spec::HostFile;

/// The files that a guest boots from.
#[derive(Clone, Copy, Debug)]
pub struct BootFiles<'a> {
    /// The kernel.
    pub kernel: &'a HostFile,
    /// The initial RAM disk.
    pub initrd: Option<&'a HostFile>,
}

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
    /// The kernel's command line cannot be handed over.
    #[error("the kernel command line must be at most {max} printable ASCII characters")]
    BadCommandLine {
        /// How long it may be.
        max: usize,
    },
}
