//! A package for Debian and what is made of it.

use super::{DOCUMENTS, Dist, PROGRAMS, names};
use crate::process;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
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
    let pages = root.join("usr/share/man/man1");
    for page in names(&pages)? {
        process::shown(
            Command::new("gzip")
                .args(["-9", "-n"])
                .arg(pages.join(page)),
        )?;
    }
    let documents = root.join("usr").join(DOCUMENTS);
    fs::rename(documents.join("LICENSE"), documents.join("copyright"))?;
    process::shown(
        Command::new("chmod")
            .args(["-R", "u+rwX,go+rX,go-w"])
            .arg(&root),
    )?;
    let files = files(&root.join("usr"))?;
    fs::write(root.join("DEBIAN/md5sums"), sums(&root, &files)?)?;
    fs::write(root.join("DEBIAN/control"), control(dist, &files)?)?;
    let architecture = dist.platform.debian;
    let name = format!("supermachine_{}_{architecture}.deb", dist.version);
    process::shown(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(&root)
            .arg(dist.out.join(name))
            .env("SOURCE_DATE_EPOCH", &dist.epoch),
    )
}

/// Files of a directory and those in it, in order.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for name in names(dir)? {
        let path = dir.join(name);
        if path.is_dir() {
            found.append(&mut files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// What `dpkg --verify` compares with.
fn sums(root: &Path, files: &[PathBuf]) -> Result<String> {
    let relative: Vec<&Path> = files
        .iter()
        .map(|file| Ok(file.strip_prefix(root)?))
        .collect::<Result<_>>()?;
    process::output(Command::new("md5sum").args(relative).current_dir(root))
}

fn control(dist: &Dist, files: &[PathBuf]) -> Result<String> {
    let mut kib = 0;
    for file in files {
        kib += fs::metadata(file)?.len().div_ceil(1024);
    }
    Ok(format!(
        "Package: supermachine\n\
         Version: {}\n\
         Architecture: {}\n\
         Maintainer: The supermachine authors <maintainers@supermachine.invalid>\n\
         Homepage: https://github.com/supermachine/supermachine\n\
         Installed-Size: {kib}\n\
         Depends: libc6 (>= {}), libgcc-s1\n\
         Recommends: ca-certificates\n\
         Section: admin\n\
         Priority: optional\n\
         Description: run any OCI image as a microVM with its own Linux kernel\n \
         Bakes an image once into a snapshot, restores copies of it in milliseconds, runs\n \
         commands in them and throws them away. Needs no virtualization on the host.\n",
        dist.version,
        dist.platform.debian,
        libc_version(dist)?
    ))
}

/// The oldest C library that has all that the programs call.
fn libc_version(dist: &Dist) -> Result<String> {
    let mut newest = (0, 0);
    for name in PROGRAMS {
        let path = dist.program(name);
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
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
