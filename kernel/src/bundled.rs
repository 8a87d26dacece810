//! The assets inside this program, with the feature `bundled`.

use crate::install::{io_error, write_durably};
use crate::{Asset, Assets, KernelError, cached};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static KERNEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernel"));
static INIT_OCI: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init-oci"));

/// Longest asset, should what is here be no asset: a kernel has some 10 MB.
const MAX_BYTES: u64 = 256 << 20;

const fn compressed(asset: Asset) -> &'static [u8] {
    match asset {
        Asset::Kernel => KERNEL,
        Asset::InitOci => INIT_OCI,
    }
}

/// Reads an asset. The format has a checksum and the length at its end, so what was
/// damaged is an error and not an asset.
fn contents(asset: Asset) -> impl Read {
    GzDecoder::new(compressed(asset)).take(MAX_BYTES)
}

/// Writes an asset to the file `dest`, atomically and durably.
pub fn extract(asset: Asset, dest: &Path) -> Result<(), KernelError> {
    write_durably(contents(asset), dest)
}

/// Both assets, as files in the user's cache directory, where they are put if they are
/// not there.
pub fn installed() -> Result<Assets, KernelError> {
    let dir = directory()?;
    let file = |asset: Asset| -> Result<PathBuf, KernelError> {
        let path = dir.join(asset.file_name());
        // Whole, or not there: it got its name when it was.
        if !path.is_file() {
            fs::create_dir_all(&dir).map_err(io_error("make the directory", &dir))?;
            extract(asset, &path)?;
        }
        Ok(path)
    };
    Ok(Assets {
        kernel: file(Asset::Kernel)?,
        init_oci: file(Asset::InitOci)?,
    })
}

/// A directory for what is in this program, and nothing else.
fn directory() -> Result<PathBuf, KernelError> {
    static DIGEST: OnceLock<String> = OnceLock::new();
    let digest = DIGEST.get_or_init(|| {
        let mut hash = Sha256::new();
        for asset in [Asset::Kernel, Asset::InitOci] {
            hash.update((compressed(asset).len() as u64).to_le_bytes());
            hash.update(compressed(asset));
        }
        let digest = hash.finalize();
        digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    });
    cached(&format!("bundled-{digest}"))
}

/// Compares an asset with a file: whether the file has all of it and nothing else.
#[cfg(test)]
fn same(asset: Asset, path: &Path) -> io::Result<bool> {
    let mut own = Vec::new();
    contents(asset).read_to_end(&mut own)?;
    Ok(fs::read(path)? == own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{extract_init_oci_to, extract_kernel_to, locate};

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("bundled-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn what_is_extracted_by_many_at_once_is_whole() {
        let dir = scratch("many");
        let (kernel, init) = (dir.join("kernel"), dir.join("init-oci"));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| extract(Asset::Kernel, &kernel).unwrap());
                scope.spawn(|| extract(Asset::InitOci, &init).unwrap());
            }
        });
        assert!(same(Asset::Kernel, &kernel).unwrap());
        assert!(same(Asset::InitOci, &init).unwrap());
        // They are what guests boot from.
        locate(&dir).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_link_at_the_destination_is_replaced_and_not_followed() {
        let dir = scratch("link");
        let victim = dir.join("victim");
        fs::write(&victim, "mine").unwrap();
        let dest = dir.join("kernel");
        std::os::unix::fs::symlink(&victim, &dest).unwrap();
        extract_kernel_to(&dest).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
        assert!(!dest.is_symlink());
        assert!(same(Asset::Kernel, &dest).unwrap());
        assert!(extract_init_oci_to(&dir.join("none/init-oci")).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_damaged_asset_is_not_written() {
        let mut bytes = compressed(Asset::InitOci).to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let dir = scratch("damaged");
        let dest = dir.join("init-oci");
        assert!(write_durably(GzDecoder::new(&bytes[..]), &dest).is_err());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        fs::remove_dir_all(&dir).unwrap();
    }
}
