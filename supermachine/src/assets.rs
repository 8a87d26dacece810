//! Where the guest kernel and init are.

use crate::Error;
use std::path::{Path, PathBuf};

/// The files every guest boots from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssetPaths {
    /// The kernel: an arm64 Linux `Image`, not compressed.
    pub kernel: PathBuf,
    /// The initial file system with PID 1: a `newc` archive.
    pub init_oci: PathBuf,
}

impl AssetPaths {
    /// The files `kernel` and `init-oci` of a directory, as
    /// `supermachine_kernel::extract_kernel_to` and its sibling put them there.
    /// Whether they are there shows when a machine starts.
    pub fn from_dir(dir: impl AsRef<Path>) -> Self {
        let dir = dir.as_ref();
        Self {
            kernel: dir.join("kernel"),
            init_oci: dir.join("init-oci"),
        }
    }

    /// Looks where `cargo xtask assets` and installations put them: beside the
    /// executable and in `assets` around it, then in the user's cache directory.
    ///
    /// # Errors
    /// [`Error::Assets`], whose text names the directories searched and the
    /// command that builds the files.
    pub fn discover() -> Result<Self, Error> {
        let found = kernel::discover()?;
        Ok(Self {
            kernel: found.kernel,
            init_oci: found.init_oci,
        })
    }
}
