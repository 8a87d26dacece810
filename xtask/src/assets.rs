//! `cargo xtask assets`: kernel and init where the binaries look for them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kernel::{Asset, Assets};

use crate::{init_build, kernel_build, workspace};

/// The subcommand.
pub fn run(arguments: &[String]) -> Result<()> {
    let assets: &[Asset] = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => &[Asset::Kernel, Asset::InitOci],
        ["kernel"] => &[Asset::Kernel],
        ["init"] => &[Asset::InitOci],
        _ => bail!("expected nothing, `kernel` or `init`"),
    };
    for asset in assets {
        println!("{}: {}", asset.file_name(), provide(*asset)?.display());
    }
    Ok(())
}

/// Builds what is not cached and returns where both assets are.
#[allow(dead_code, reason = "used by the demo, test and bench commands")]
pub fn ensure() -> Result<Assets> {
    Ok(Assets {
        kernel: provide(Asset::Kernel)?,
        init_oci: provide(Asset::InitOci)?,
    })
}

/// Puts one asset under its published name into the user's cache, for
/// installed binaries, and into `target/assets`, for those of this checkout.
/// Returns the latter.
fn provide(asset: Asset) -> Result<PathBuf> {
    let built = match asset {
        Asset::Kernel => kernel_build::ensure()?,
        Asset::InitOci => init_build::ensure()?,
    };
    let local = workspace::target_dir()?.join("assets");
    for dir in [kernel::assets_dir()?, local.clone()] {
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let place = dir.join(asset.file_name());
        if !same_contents(&built, &place) {
            kernel::copy_durably(&built, &place)?;
        }
    }
    Ok(local.join(asset.file_name()))
}

/// Whether both files can be read and are equal. Some megabytes: cheaper than
/// an unneeded flush to storage, and no clock to trust.
fn same_contents(left: &Path, right: &Path) -> bool {
    matches!((fs::read(left), fs::read(right)), (Ok(left), Ok(right)) if left == right)
}
