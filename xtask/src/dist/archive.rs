//! Archives whose bytes do not depend on when and by whom they are made.

use super::Dist;
use crate::process;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// `NAME.tar.gz` of a directory of that name.
pub fn tarball(dist: &Dist, tree: &Path) -> Result<()> {
    let name = dist.name();
    pack(dist, tree, &name, &dist.out.join(format!("{name}.tar.gz")))
}

/// An archive of a directory, as `name` in it.
pub fn pack(dist: &Dist, tree: &Path, name: &str, to: &Path) -> Result<()> {
    let parent = tree.parent().context("a directory in another")?;
    let own = tree.file_name().context("a directory with a name")?;
    process::shown(
        Command::new("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .args(["--mode=u+rw,go+r,go-w,a+X", "--format=ustar"])
            .arg(format!("--mtime=@{}", dist.epoch))
            .arg(format!("--transform=s,^{},{name},", own.to_string_lossy()))
            // No name and no time in its header.
            .args(["--use-compress-program", "gzip -9 -n"])
            .arg("-cf")
            .arg(to)
            .arg("-C")
            .arg(parent)
            .arg(own),
    )
}
