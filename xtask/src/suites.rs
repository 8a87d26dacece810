//! `cargo xtask suites`: pjdfstest, fsx and programs of Debian on mounts, in guests of ours
//! and of QEMU.

use crate::init_build::Toolchain;
use crate::packages::{self, QEMU};
use crate::{assets, guest_image, process, test, workspace};
use anyhow::Result;
use std::ffi::OsStr;
use std::path::PathBuf;

/// Packages of crates.io, tools that nothing here is made of.
const PROGRAMS: &[(&str, &str)] = &[("pjdfstest", "0.2.2"), ("fsx", "0.3.2")];
/// What the guests have of Debian.
const PACKAGES: &[&str] = &[
    // pjdfstest asks `which` and mounts.
    "debianutils",
    "diffutils",
    "dpkg",
    "fio",
    "git",
    "mount",
    "nodejs",
    "npm",
    "python3",
    "python3-pip",
    // What pip installs there.
    "python3-pip-whl",
    "python3-setuptools-whl",
    "rsync",
    "stress-ng",
];

pub fn run(arguments: &[String]) -> Result<()> {
    packages::ensure(&[&QEMU])?;
    assets::ensure()?;
    guest_image::busybox()?;
    let layout = guest_image::ensure_with("suites", PACKAGES)?;
    let programs = programs()?;
    let debs = debs()?;
    let places = [&programs, &layout, &debs].map(|place| place.as_os_str());
    let arguments = arguments.iter().map(OsStr::new);
    test::program("suites", places.into_iter().chain(arguments))
}

/// A directory of the packages that dpkg unpacks, which are most of a small system's.
fn debs() -> Result<PathBuf> {
    let place = workspace::target_dir()?.join("suites/debs");
    // What another release had would be unpacked as well.
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place)?;
    for (name, deb) in guest_image::base_packages()? {
        std::fs::copy(deb, place.join(name))?;
    }
    Ok(place)
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
