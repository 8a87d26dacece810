//! Finding and handing out the built assets.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

#[cfg(not(feature = "bundled"))]
use crate::copy_durably;
use crate::image::ImageHeader;
use crate::install::io_error;
use crate::{KernelError, assets_dir, initrd, mark_used};

/// One of the two files a guest boots from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asset {
    /// The arm64 Linux `Image`.
    Kernel,
    /// The initial file system with the init shim as `/init`.
    InitOci,
}

impl Asset {
    /// The published file name: `kernel` or `init-oci`.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::InitOci => "init-oci",
        }
    }
}

impl fmt::Display for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::InitOci => "init (init-oci)",
        })
    }
}

/// Both assets, found in one directory so that they belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assets {
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initial file system.
    pub init_oci: PathBuf,
}

/// Finds both assets in `dir`, and nowhere else.
///
/// # Errors
/// [`KernelError::Missing`] if one is not there, [`KernelError::Unusable`] if
/// it is something else, [`KernelError::Io`] if it cannot be read.
pub fn locate(dir: &Path) -> Result<Assets, KernelError> {
    let dirs = [dir.to_path_buf()];
    Ok(Assets {
        kernel: find_in(Asset::Kernel, &dirs)?,
        init_oci: find_in(Asset::InitOci, &dirs)?,
    })
}

/// Finds both assets in the first of [`search_dirs`] that holds both.
///
/// # Errors
/// As [`locate`]; [`KernelError::Missing`] lists every directory searched.
pub fn discover() -> Result<Assets, KernelError> {
    let found = match discover_in(&search_dirs()) {
        #[cfg(feature = "bundled")]
        Err(KernelError::Missing { .. }) => crate::bundled::installed(),
        found => found.map_err(or_cache_is_unusable),
    }?;
    mark_if_cached(&found.kernel);
    Ok(found)
}

/// The reason why the cache was not searched, if there is one that can be mended.
fn or_cache_is_unusable(error: KernelError) -> KernelError {
    match assets_dir() {
        Err(unusable @ KernelError::NotDirectory { .. }) => unusable,
        _ => error,
    }
}

/// Directories of ours in the cache are kept while they are used; any other
/// belongs to someone else.
fn mark_if_cached(asset: &Path) {
    if let (Some(dir), Ok(cached)) = (asset.parent(), assets_dir())
        && dir == cached
    {
        mark_used(dir);
    }
}

fn discover_in(dirs: &[PathBuf]) -> Result<Assets, KernelError> {
    let whole = dirs.iter().find(|dir| {
        dir.join(Asset::Kernel.file_name()).is_file()
            && dir.join(Asset::InitOci.file_name()).is_file()
    });
    if let Some(dir) = whole {
        return locate(dir);
    }
    // Say which half is missing; a kernel alone is the usual halfway house.
    find_in(Asset::Kernel, dirs)?;
    Err(KernelError::Missing {
        asset: Asset::InitOci,
        searched: dirs.to_vec(),
    })
}

/// Finds one asset in the first of [`search_dirs`] that holds it.
///
/// # Errors
/// As [`locate`].
pub fn find(asset: Asset) -> Result<PathBuf, KernelError> {
    let found = match find_in(asset, &search_dirs()) {
        #[cfg(feature = "bundled")]
        Err(KernelError::Missing { .. }) => crate::bundled::installed().map(|both| match asset {
            Asset::Kernel => both.kernel,
            Asset::InitOci => both.init_oci,
        }),
        found => found.map_err(or_cache_is_unusable),
    }?;
    mark_if_cached(&found);
    Ok(found)
}

/// The directories searched when none is given, in order:
///
/// 1. the running executable's directory;
/// 2. `assets` in that directory and in the two above it, which finds
///    `target/assets` from `target/release` and `target/debug/deps`;
/// 3. `../Resources` (a macOS bundle) and `../share/supermachine` (a Unix
///    prefix), relative to the executable's directory;
/// 4. [`assets_dir`] in the user's cache.
#[must_use]
pub fn search_dirs() -> Vec<PathBuf> {
    let executable = env::current_exe().and_then(|path| path.canonicalize()).ok();
    let beside = executable.as_deref().and_then(Path::parent);
    dirs_around(beside, assets_dir().ok())
}

fn dirs_around(beside: Option<&Path>, cached: Option<PathBuf>) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Some(beside) = beside {
        dirs.push(beside.to_path_buf());
        dirs.extend(beside.ancestors().take(3).map(|dir| dir.join("assets")));
        if let Some(prefix) = beside.parent() {
            dirs.push(prefix.join("Resources"));
            dirs.push(prefix.join("share/supermachine"));
        }
    }
    dirs.extend(cached);
    dirs
}

/// Copies the guest kernel to the file `dest`, atomically and durably: the one in this
/// program, with the feature `bundled`, and else the one that is found.
///
/// # Errors
/// As [`find`], and [`KernelError::Io`] if `dest` cannot be written.
pub fn extract_kernel_to(dest: &Path) -> Result<(), KernelError> {
    extract(Asset::Kernel, dest)
}

#[cfg(feature = "bundled")]
fn extract(asset: Asset, dest: &Path) -> Result<(), KernelError> {
    crate::bundled::extract(asset, dest)
}

#[cfg(not(feature = "bundled"))]
fn extract(asset: Asset, dest: &Path) -> Result<(), KernelError> {
    copy_durably(&find(asset)?, dest)
}

/// Copies the initial file system to the file `dest`, as [`extract_kernel_to`] does.
///
/// # Errors
/// As [`extract_kernel_to`].
pub fn extract_init_oci_to(dest: &Path) -> Result<(), KernelError> {
    extract(Asset::InitOci, dest)
}

fn find_in(asset: Asset, dirs: &[PathBuf]) -> Result<PathBuf, KernelError> {
    for dir in dirs {
        let path = dir.join(asset.file_name());
        if path.is_file() {
            check(asset, &path)?;
            return Ok(path);
        }
    }
    Err(KernelError::Missing {
        asset,
        searched: dirs.to_vec(),
    })
}

/// A cheap look at the first bytes: enough to tell a truncated download or a
/// compressed kernel from the real thing before a guest is built around it.
fn check(asset: Asset, path: &Path) -> Result<(), KernelError> {
    let mut head = Vec::with_capacity(64);
    File::open(path)
        .map_err(io_error("open", path))?
        .take(64)
        .read_to_end(&mut head)
        .map_err(io_error("read", path))?;
    let verdict = match asset {
        Asset::Kernel => ImageHeader::parse(&head).map(drop),
        Asset::InitOci if head.starts_with(&initrd::NEWC_MAGIC) => Ok(()),
        Asset::InitOci => Err("it is not a newc archive"),
    };
    verdict.map_err(|reason| KernelError::Unusable {
        asset,
        path: path.to_path_buf(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn target_assets_is_found_from_binaries_and_test_binaries() {
        for beside in ["/t/release", "/t/debug/deps"] {
            let dirs = dirs_around(Some(Path::new(beside)), None);
            assert!(dirs.contains(&PathBuf::from("/t/assets")), "{dirs:?}");
        }
    }

    #[test]
    fn cache_comes_after_everything_near_the_executable() {
        let dirs = dirs_around(Some(Path::new("/opt/bin")), Some("/cache".into()));
        assert_eq!(dirs.first(), Some(&PathBuf::from("/opt/bin")));
        assert_eq!(dirs.last(), Some(&PathBuf::from("/cache")));
    }

    #[test]
    fn missing_assets_are_reported_with_the_command_that_builds_them() {
        let error = locate(Path::new("/nonexistent/assets")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("cargo xtask assets"), "{text}");
        assert!(text.contains("/nonexistent/assets"), "{text}");
    }

    #[test]
    fn half_a_pair_names_the_missing_half() {
        let dir = temporary_dir("half");
        fs::write(dir.join("kernel"), crate::image::sample()).unwrap();
        let error = discover_in(std::slice::from_ref(&dir)).unwrap_err();
        assert!(matches!(
            error,
            KernelError::Missing {
                asset: Asset::InitOci,
                ..
            }
        ));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn both_assets_come_from_the_same_directory() {
        let half = temporary_dir("pair-half");
        let whole = temporary_dir("pair-whole");
        for dir in [&half, &whole] {
            fs::write(dir.join("kernel"), crate::image::sample()).unwrap();
        }
        fs::write(whole.join("init-oci"), b"070701").unwrap();
        let assets = discover_in(&[half.clone(), whole.clone()]).unwrap();
        assert!(assets.kernel.starts_with(&whole));
        assert!(assets.init_oci.starts_with(&whole));
        fs::remove_dir_all(half).unwrap();
        fs::remove_dir_all(whole).unwrap();
    }

    #[test]
    fn a_file_that_is_no_kernel_is_refused() {
        let dir = temporary_dir("no-kernel");
        fs::write(dir.join("kernel"), b"\x1f\x8b compressed").unwrap();
        let error = find_in(Asset::Kernel, std::slice::from_ref(&dir)).unwrap_err();
        assert!(matches!(error, KernelError::Unusable { .. }));
        fs::remove_dir_all(dir).unwrap();
    }

    fn temporary_dir(name: &str) -> PathBuf {
        let dir =
            env::temp_dir().join(format!("supermachine-kernel-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}
