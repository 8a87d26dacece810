//! A package for Debian and what is made of it.

use super::{Dist, PROGRAMS};
use crate::process;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes it of the prefix.
pub fn package(dist: &Dist, tree: &Path) -> Result<()> {
    let root = dist.scratch.join("deb");
    fs::create_dir_all(root.join("DEBIAN"))?;
    process::shown(
        Command::new("cp")
            .args(["-a", "--no-preserve=ownership"])
            .arg(tree)
            .arg(root.join("usr")),
    )?;
    // Debian has them compressed.
    for page in super::names(&root.join("usr/share/man/man1"))? {
        process::shown(
            Command::new("gzip")
                .args(["-9", "-n"])
                .arg(root.join("usr/share/man/man1").join(page)),
        )?;
    }
    let doc = root.join("usr/share/doc/supermachine");
    fs::rename(doc.join("LICENSE"), doc.join("copyright"))?;
    process::shown(
        Command::new("chmod")
            .args(["-R", "u+rwX,go+rX,go-w"])
            .arg(&root),
    )?;
    fs::write(root.join("DEBIAN/control"), control(dist, &root)?)?;
    let name = format!("supermachine_{}_amd64.deb", dist.version);
    process::shown(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(&root)
            .arg(dist.out.join(name))
            .env("SOURCE_DATE_EPOCH", &dist.epoch),
    )
}

fn control(dist: &Dist, root: &Path) -> Result<String> {
    let size = process::output(
        Command::new("du")
            .args(["-sk", "--apparent-size"])
            .arg(root),
    )?;
    let size = size.split_whitespace().next().context("a size")?;
    Ok(format!(
        "Package: supermachine\n\
         Version: {}\n\
         Architecture: amd64\n\
         Maintainer: the supermachine authors <supermachine@localhost>\n\
         Installed-Size: {size}\n\
         Depends: libc6 (>= {}), libgcc-s1\n\
         Recommends: ca-certificates\n\
         Section: admin\n\
         Priority: optional\n\
         Description: run any OCI image as a microVM with its own Linux kernel\n \
         Bakes an image once into a snapshot, restores copies of it in milliseconds, runs\n \
         commands in them and throws them away. Needs no virtualization on the host.\n",
        dist.version,
        libc_version(dist)?
    ))
}

/// The oldest C library that has all that the programs call.
fn libc_version(dist: &Dist) -> Result<String> {
    let mut newest = (0, 0);
    for name in PROGRAMS {
        let bytes = fs::read(dist.program(name))?;
        for found in versions(&bytes) {
            newest = newest.max(found);
        }
    }
    Ok(format!("{}.{}", newest.0, newest.1))
}

/// Versions of glibc's symbols that a program names: `GLIBC_2.34` and the like.
fn versions(bytes: &[u8]) -> Vec<(u32, u32)> {
    const NAME: &[u8] = b"GLIBC_";
    let starts = bytes
        .windows(NAME.len())
        .enumerate()
        .filter(|(_, window)| *window == NAME)
        .map(|(at, _)| at + NAME.len());
    let version = |at: usize| {
        let rest = bytes.get(at..)?;
        let end = rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'.'))?;
        let text = std::str::from_utf8(rest.get(..end)?).ok()?;
        let mut numbers = text.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    starts.filter_map(version).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_symbols_are_found() {
        let bytes = b"\0GLIBC_2.34\0x\0GLIBC_2.2.5\0GLIBC_PRIVATE\0GLIBC_2.17\0GLIBC_2";
        assert_eq!(versions(bytes), [(2, 34), (2, 2), (2, 17)]);
    }
}
