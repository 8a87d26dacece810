//! Debian's docker-registry, which tests pull from. Its package is unpacked and not
//! installed: that would start a registry of the machine's own.

use crate::{process, workspace};
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const PACKAGE: &str = "docker-registry";

/// The program, below the target directory, where tests look for it.
pub fn ensure() -> Result<PathBuf> {
    let dir = workspace::target_dir()?.join("registry");
    let program = dir.join(PACKAGE);
    if program.is_file() {
        return Ok(program);
    }
    let scratch = dir.join("unfinished");
    // What an interrupted run left.
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
    let mut download = Command::new("apt-get");
    process::shown(download.args(["download", PACKAGE]).current_dir(&scratch))?;
    let package = fs::read_dir(&scratch)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .context("apt-get downloaded no package")?;
    let root = scratch.join("root");
    let mut extract = Command::new("dpkg-deb");
    process::shown(extract.arg("--extract").arg(package).arg(&root))?;
    fs::rename(root.join("usr/bin").join(PACKAGE), &program)?;
    fs::remove_dir_all(&scratch)?;
    Ok(program)
}
