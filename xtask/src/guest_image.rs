//! `cargo xtask images`: OCI image layouts made of Debian's arm64 packages, for
//! the demo, the guest tests and the benches.
//!
//! apt resolves and downloads as if for an empty arm64 system. Packages become
//! layers as they are: no maintainer script runs, nothing is unpacked on the
//! host, so owners and modes survive without root.

mod members;

use crate::{packages, process, workspace};
use anyhow::{Context, Result, bail};
use members::Packages;
use oci_bake::{ImageBuilder, LayerBuilder, LayerCompression};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One image: a base layer that most share, and one of its own.
struct Image {
    name: &'static str,
    base: &'static [&'static str],
    packages: &'static [&'static str],
}

const BASE: &[&str] = &[
    "bash",
    "coreutils",
    // For /bin/sh, which zcat and many others are scripts of.
    "dash",
    "findutils",
    "grep",
    "gzip",
    "mawk",
    "procps",
    "sed",
    "tar",
];

const IMAGES: &[Image] = &[
    Image {
        name: "base",
        base: BASE,
        packages: &[],
    },
    Image {
        name: "python3",
        base: BASE,
        packages: &["python3"],
    },
    Image {
        name: "perl",
        base: BASE,
        packages: &["perl"],
    },
    Image {
        name: "redis",
        base: BASE,
        packages: &["redis-server", "redis-tools"],
    },
    Image {
        name: "nginx",
        base: BASE,
        packages: &["nginx-light", "curl"],
    },
    Image {
        name: "nodejs",
        base: BASE,
        packages: &["nodejs"],
    },
    Image {
        name: "gcc",
        base: BASE,
        packages: &["gcc", "libc6-dev", "make"],
    },
    Image {
        name: "network",
        base: BASE,
        // Debian's iptables works on nf_tables.
        packages: &["busybox-static", "iproute2", "iptables", "nftables"],
    },
    Image {
        name: "clients",
        base: BASE,
        packages: &[
            "apt",
            "bind9-dnsutils",
            "curl",
            "dpkg",
            "git",
            "iproute2",
            "iputils-ping",
            "netcat-openbsd",
            "nftables",
            "nghttp2-server",
            "nginx-light",
            "openssh-client",
            "openssh-server",
            "python3",
            "redis-server",
            "redis-tools",
            "rsync",
            "wget",
        ],
    },
    Image {
        name: "openssl",
        base: BASE,
        packages: &["openssl"],
    },
    Image {
        name: "bench",
        base: BASE,
        packages: &["nodejs", "python3"],
    },
];

/// Programs of busybox that the demo image offers by name.
const APPLETS: &[&str] = &[
    "[",
    "ash",
    "awk",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "grep",
    "head",
    "hostname",
    "id",
    "ip",
    "kill",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mknod",
    "mount",
    "mv",
    "nc",
    "nproc",
    "od",
    "ping",
    "ps",
    "pwd",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tar",
    "tee",
    "test",
    "time",
    "top",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "uniq",
    "uptime",
    "vi",
    "wc",
    "wget",
    "which",
    "whoami",
    "xargs",
    "yes",
];

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub fn run(arguments: &[String]) -> Result<()> {
    let names: Vec<&str> = if arguments.is_empty() {
        IMAGES.iter().map(|image| image.name).collect()
    } else {
        arguments.iter().map(String::as_str).collect()
    };
    for name in names {
        println!("{}", ensure(name)?.display());
    }
    println!("{}", busybox()?.display());
    Ok(())
}

/// The names of all images but the demo's.
pub fn names() -> impl Iterator<Item = &'static str> {
    IMAGES.iter().map(|image| image.name)
}

/// The layout of image `name`, made if it is not there yet.
pub fn ensure(name: &str) -> Result<PathBuf> {
    let Some(image) = IMAGES.iter().find(|image| image.name == name) else {
        bail!("no such image: {name}");
    };
    of_packages(name, image.base, image.packages)
}

/// The layout of an image of [`BASE`] and further packages, made if it is not there yet.
pub fn ensure_with(name: &str, packages: &[&str]) -> Result<PathBuf> {
    of_packages(name, BASE, packages)
}

/// The packages of [`BASE`] and what they need, by file name.
pub fn base_packages() -> Result<BTreeMap<String, PathBuf>> {
    debs(BASE)
}

fn of_packages(name: &str, base: &[&str], packages: &[&str]) -> Result<PathBuf> {
    let layout = workspace::target_dir()?.join("guest-images").join(name);
    let wanted: Vec<&str> = base.iter().chain(packages).copied().collect();
    let base = debs(base)?;
    let mut all = base.clone();
    if !packages.is_empty() {
        all = debs(&wanted)?;
    }
    let own: BTreeMap<_, _> = all
        .iter()
        .filter(|(file, _)| !base.contains_key(*file))
        .collect();
    let stamp = stamp(all.keys().map(String::as_str));
    make(&layout, &stamp, || {
        let mut builder = ImageBuilder::new()
            .compression(LayerCompression::None)
            .env("PATH", PATH)
            .cmd(["/bin/bash"])
            .layer(system_files())
            .layer_tar(Packages::new(base.values().cloned().collect()));
        if !own.is_empty() {
            let own = own.values().map(|path| path.to_path_buf()).collect();
            builder = builder.layer_tar(Packages::new(own));
        }
        Ok(builder)
    })
}

/// The demo's image: Debian's static busybox and names for its applets.
pub fn busybox() -> Result<PathBuf> {
    let layout = workspace::target_dir()?.join("demo/busybox");
    let debs = debs(&["busybox-static"])?;
    let only = busybox_package(&debs);
    let stamp = stamp(debs.keys().map(String::as_str));
    make(&layout, &stamp, || {
        let links = APPLETS.iter().fold(system_files(), |layer, name| {
            layer.symlink(&format!("usr/bin/{name}"), "/bin/busybox")
        });
        Ok(ImageBuilder::new()
            .env("PATH", PATH)
            .cmd(["/bin/sh"])
            .layer(links.symlink("bin/sh", "busybox"))
            .layer_tar(Packages::new(only.clone())))
    })
}

/// What Debian's static busybox is packed in.
fn busybox_package(debs: &BTreeMap<String, PathBuf>) -> Vec<PathBuf> {
    debs.iter()
        .filter(|(file, _)| file.starts_with("busybox-static_"))
        .map(|(_, path)| path.clone())
        .collect()
}

/// Unpacks Debian's static busybox into a directory, as a guest's whole system.
pub fn unpack_busybox(root: &Path) -> Result<()> {
    for package in busybox_package(&debs(&["busybox-static"])?) {
        let mut extract = Command::new("dpkg-deb");
        process::shown(extract.arg("--extract").arg(package).arg(root))?;
    }
    Ok(())
}

/// What maintainer scripts would have made.
fn system_files() -> LayerBuilder {
    LayerBuilder::new()
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\n\
             daemon:x:1:1:daemon:/:/bin/false\n\
             www-data:x:33:33:www-data:/var/www:/bin/false\n\
             user:x:1000:1000:A User:/home/user:/bin/sh\n\
             sshd:x:100:65534:sshd:/run/sshd:/bin/false\n\
             nobody:x:65534:65534:nobody:/:/bin/false\n",
        )
        .file(
            "etc/group",
            0o644,
            "root:x:0:\nadm:x:4:\nwww-data:x:33:\nusers:x:100:user\naudio:x:29:user\n\
             user:x:1000:\nnogroup:x:65534:\n",
        )
        .dir("root", 0o700)
        .dir("tmp", 0o1777)
        .dir("var/tmp", 0o1777)
        .symlink("usr/bin/awk", "mawk")
        .symlink("usr/bin/cc", "gcc")
}

/// Changes when this module would make other images of the same packages.
const MAKER: &str = include_str!("guest_image.rs");

fn stamp<'a>(files: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    hash.update(MAKER);
    for file in files {
        hash.update(file);
        hash.update("\n");
    }
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a layout unless the one there has this stamp. Whole or absent.
fn make(
    layout: &Path,
    stamp: &str,
    builder: impl FnOnce() -> Result<ImageBuilder>,
) -> Result<PathBuf> {
    let mark = layout.join("made-by-xtask");
    if std::fs::read_to_string(&mark).is_ok_and(|text| text == stamp) {
        return Ok(layout.to_path_buf());
    }
    let parent = layout.parent().context("a layout has a parent")?;
    std::fs::create_dir_all(parent)?;
    let temporary = layout.with_extension(format!("tmp{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&temporary);
    builder()?.write_layout(&temporary)?;
    std::fs::write(temporary.join("made-by-xtask"), stamp)?;
    let _ = std::fs::remove_dir_all(layout);
    std::fs::rename(&temporary, layout)?;
    Ok(layout.to_path_buf())
}

/// The packages that `names` need on an empty arm64 system, by file name,
/// downloaded to the user's cache directory.
fn debs(names: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    packages::ensure_arm64_lists()?;
    let cache = kernel::cached("debs")?;
    std::fs::create_dir_all(cache.join("partial"))?;
    let status = cache.join("empty-status");
    std::fs::write(&status, "")?;
    let apt = |last: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(["-y", "-qq", "-o"])
            .arg(format!("Dir::State::status={}", status.display()))
            .arg("-o")
            .arg(format!("Dir::Cache::archives={}", cache.display()))
            .args(["-o", "APT::Architecture=arm64"])
            .args(["-o", "APT::Architectures=arm64"])
            .args(["-o", "APT::Install-Recommends=false"])
            .args(["-o", "Debug::NoLocking=true"])
            .args(["-o", "APT::Sandbox::User=root"])
            .args(last)
            .args(names);
        command
    };
    let listed = process::output(&mut apt(&["install", "--print-uris"]))?;
    // Lines are: 'URI' FILE SIZE HASH; what is downloaded already has none.
    let missing: BTreeSet<&str> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    if !missing.is_empty() {
        eprintln!(
            "downloading {} packages for {}",
            missing.len(),
            names.join(" ")
        );
        process::output(&mut apt(&["install", "--download-only"]))?;
    }
    let plan = process::output(&mut apt(&["install", "--simulate"]))?;
    // Lines are: Inst NAME (VERSION ARCHIVE [ARCH]).
    let mut found = BTreeMap::new();
    for line in plan.lines().filter(|line| line.starts_with("Inst ")) {
        let mut words = line.split_whitespace().skip(1);
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            continue;
        };
        let version = version.trim_start_matches('(').replace(':', "%3a");
        let architectures = ["arm64", "all"];
        let file = architectures
            .iter()
            .map(|architecture| format!("{name}_{version}_{architecture}.deb"))
            .find(|file| cache.join(file).is_file())
            .with_context(|| format!("apt downloaded no {name} {version}"))?;
        let path = cache.join(&file);
        found.insert(file, path);
    }
    Ok(found)
}
