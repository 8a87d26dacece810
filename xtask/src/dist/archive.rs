//! Archives whose bytes do not depend on when and by whom they are made.

use super::Dist;
use crate::process;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// `NAME.tar.gz` of a directory of that name.
pub fn tarball(dist: &Dist, tree: &Path) -> Result<()> {
    let parent = tree.parent().context("a directory in another")?;
    let name = tree.file_name().context("a directory with a name")?;
    process::shown(
        Command::new("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .args(["--mode=u+rw,go+r,go-w,a+X", "--format=ustar"])
            .arg(format!("--mtime=@{}", dist.epoch))
            // No name and no time in its header.
            .args(["--use-compress-program", "gzip -9 -n"])
            .arg("-cf")
            .arg(dist.out.join(format!("{}.tar.gz", dist.name())))
            .arg("-C")
            .arg(parent)
            .arg(name),
    )
}
