//! `supermachine assets`: the guest's kernel and init.

use super::output::{print, print_json};
use crate::{AssetPaths, Error};
use kernel::Asset;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub enum AssetsCommand {
    /// Say where the guest's kernel and init are
    Ls(ListArguments),
    /// Put the guest's kernel and init into the user's cache, where every program that
    /// uses the library finds them
    Install(InstallArguments),
}

#[derive(clap::Args)]
pub struct ListArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct InstallArguments {
    /// Directory with the files kernel and init-oci, of a release or of `cargo xtask
    /// assets`; by default those that this tool finds
    #[arg(value_name = "DIR")]
    from: Option<PathBuf>,
}

pub fn run(command: &AssetsCommand) -> Result<u8, Error> {
    match command {
        AssetsCommand::Ls(arguments) => list(arguments),
        AssetsCommand::Install(arguments) => install(arguments.from.as_deref()),
    }
}

fn list(arguments: &ListArguments) -> Result<u8, Error> {
    let found = AssetPaths::discover()?;
    if arguments.json {
        let paths = serde_json::json!({"kernel": found.kernel, "init_oci": found.init_oci});
        print_json(&paths, true)?;
    } else {
        show(&found)?;
    }
    Ok(0)
}

fn show(paths: &AssetPaths) -> Result<(), Error> {
    for path in [&paths.kernel, &paths.init_oci] {
        print(&format!(
            "{}\n",
            super::output::plain(&path.to_string_lossy())
        ))?;
    }
    Ok(())
}

fn install(from: Option<&Path>) -> Result<u8, Error> {
    let found = match from {
        Some(dir) => kernel::locate(dir)?,
        None => kernel::discover()?,
    };
    let to = kernel::assets_dir()?;
    fs::create_dir_all(&to).map_err(Error::host("cannot make the directory", &to))?;
    for (asset, from) in [
        (Asset::Kernel, &found.kernel),
        (Asset::InitOci, &found.init_oci),
    ] {
        let place = to.join(asset.file_name());
        // What is there already stays, so that whoever uses it keeps it.
        if !is_same(from, &place) {
            kernel::copy_durably(from, &place)?;
        }
    }
    // As whoever starts a machine next finds them.
    let installed = kernel::locate(&to)?;
    show(&AssetPaths {
        kernel: installed.kernel,
        init_oci: installed.init_oci,
    })?;
    Ok(0)
}

fn is_same(left: &Path, right: &Path) -> bool {
    matches!((fs::read(left), fs::read(right)), (Ok(left), Ok(right)) if left == right)
}
