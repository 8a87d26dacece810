//! `cargo xtask suites`: pjdfstest and fsx on mounts, in guests of ours and of QEMU.

use crate::init_build::Toolchain;
use crate::packages::{self, QEMU};
use crate::{assets, guest_image, process, test, workspace};
use anyhow::{Result, bail};
use std::ffi::OsStr;
use std::iter;
use std::path::PathBuf;

/// Packages of crates.io, tools that nothing here is made of.
const PROGRAMS: &[(&str, &str)] = &[("pjdfstest", "0.2.2"), ("fsx", "0.3.2")];
/// Whose directory the guest has, as `supermachine-tests` calls them.
const SIDES: &[&str] = &["ours", "ours-dax", "ours-qemu", "virtiofsd"];

pub fn run(arguments: &[String]) -> Result<()> {
    if let Some(word) = arguments
        .iter()
        .find(|word| !SIDES.contains(&word.as_str()))
    {
        bail!("no side {word}; there are {}", SIDES.join(", "));
    }
    packages::ensure(&[&QEMU])?;
    assets::ensure()?;
    guest_image::busybox()?;
    let programs = programs()?;
    let arguments = arguments.iter().map(OsStr::new);
    test::program("suites", iter::once(programs.as_os_str()).chain(arguments))
}

/// Builds the programs for guests, unless they are there; the directory they are in.
fn programs() -> Result<PathBuf> {
    let root = workspace::target_dir()?.join("suites");
    let toolchain = Toolchain::find()?;
    for (name, version) in PROGRAMS {
        let place = root.join(format!("{name}-{version}"));
        let program = place.join("bin").join(name);
        if !program.is_file() {
            let (mut cargo, _) = toolchain.cargo("install", "suites/build")?;
            cargo.arg("--root").arg(&place).arg("--no-track");
            process::shown(cargo.arg(format!("{name}@{version}")))?;
        }
        std::fs::copy(program, root.join(name))?;
    }
    Ok(root)
}
