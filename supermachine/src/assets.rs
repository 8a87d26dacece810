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

/// The directory for all that is kept, if the environment variable `SUPERMACHINE_HOME`
/// names one: snapshots, layers of images, and records of detached machines.
pub(crate) fn home() -> Result<Option<PathBuf>, Error> {
    match std::env::var_os("SUPERMACHINE_HOME").map(PathBuf::from) {
        Some(home) if home.is_absolute() => Ok(Some(home)),
        Some(home) if !home.as_os_str().is_empty() => Err(Error::Unsuitable {
            what: "SUPERMACHINE_HOME",
            needs: "an absolute path: set it to one",
        }),
        _ => Ok(None),
    }
}

/// Where snapshots are kept: the directory in the environment variable
/// `SUPERMACHINE_SNAPSHOTS`, else `snapshots` in the one in `SUPERMACHINE_HOME`, else
/// `.local/supermachine-snapshots` in the user's home directory.
///
/// # Errors
/// [`Error::Unsuitable`] if the user has no home directory.
pub fn snapshots_dir() -> Result<PathBuf, Error> {
    if let Some(dir) = std::env::var_os("SUPERMACHINE_SNAPSHOTS").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir));
    }
    if let Some(home) = home()? {
        return Ok(home.join("snapshots"));
    }
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let home = home.ok_or(Error::Unsuitable {
        what: "keeping snapshots",
        needs: "a home directory, SUPERMACHINE_SNAPSHOTS or OciImageBuilder::snapshots_dir",
    })?;
    Ok(home.join(".local/supermachine-snapshots"))
}

/// Where volumes are kept: the directory in the environment variable
/// `SUPERMACHINE_VOLUMES`, else `.local/supermachine-volumes` in the user's home
/// directory.
pub(crate) fn volumes_dir() -> Result<PathBuf, Error> {
    if let Some(dir) = std::env::var_os("SUPERMACHINE_VOLUMES").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir));
    }
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let home = home.ok_or(Error::Unsuitable {
        what: "keeping volumes",
        needs: "a home directory, SUPERMACHINE_VOLUMES or VmConfig::with_volumes_dir",
    })?;
    Ok(home.join(".local/supermachine-volumes"))
}
