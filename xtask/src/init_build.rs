//! The guest's init: `init-shim` as a static arm64 binary, wrapped as `/init`
//! of an initial file system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use kernel::Asset;
use kernel::initrd::Archive;
use sha2::{Digest, Sha256};

use crate::lock::Lock;
use crate::{packages, process, prune, workspace};

const PACKAGE: &str = "supermachine-init-shim";
const BINARY: &str = "init-shim";
/// What init is compiled from, besides the manifests at the root.
const SOURCES: [&str; 2] = ["init-shim", "exec-proto"];
/// Raised when the archive's layout changes.
const LAYOUT: u32 = 1;

/// Returns the path of the initial file system, building it if its sources,
/// lock file or compiler changed.
pub fn ensure() -> Result<PathBuf> {
    let toolchain = Toolchain::find()?;
    let name = format!(
        "init-{}",
        source_hash(&workspace::root(), &toolchain.identity)?
    );
    let cache = kernel::cache_dir()?;
    let finished = kernel::cached(&name)?;
    let initrd = finished.join(Asset::InitOci.file_name());
    kernel::mark_used(&finished);
    if initrd.is_file() {
        return Ok(initrd);
    }
    let _lock = Lock::take(&cache.join("init.lock"), "guest init")?;
    if initrd.is_file() {
        return Ok(initrd);
    }
    let log = cache.join("init.log");
    eprintln!(
        "building the guest's init with {}; log: {}",
        toolchain.name,
        log.display()
    );
    let binary = toolchain.build(&log)?;
    let bytes = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    check_static_arm64(&bytes)?;
    fs::create_dir_all(&finished)?;
    kernel::write_durably(archive(&bytes)?.as_slice(), &initrd)?;
    prune::old_builds(&cache, "init", &finished);
    Ok(initrd)
}

/// The initial file system: init, and the two nodes it needs before it can
/// mount a /dev of its own.
fn archive(init: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    archive.directory("dev", 0o755)?;
    archive.character_device("dev/console", 0o600, 5, 1)?;
    archive.character_device("dev/null", 0o666, 1, 3)?;
    archive.file("init", 0o755, init)?;
    Ok(archive.finish())
}

/// A Rust that can build for arm64 Linux.
pub struct Toolchain {
    name: &'static str,
    /// What sets its output apart from another's.
    identity: String,
    cargo: PathBuf,
    rustc: PathBuf,
    target: &'static str,
    flags: Vec<&'static str>,
}

impl Toolchain {
    /// One that is there, or else the distribution's, which is installed.
    pub fn find() -> Result<Self> {
        if let Some(toolchain) = Self::installed()? {
            return Ok(toolchain);
        }
        packages::ensure(&[&packages::guest_rust()])?;
        Self::distribution()?.context(
            "no Rust for arm64 guests: `rustup target add aarch64-unknown-linux-musl` installs one",
        )
    }

    fn installed() -> Result<Option<Self>> {
        match Self::rustup()? {
            Some(toolchain) => Ok(Some(toolchain)),
            None => Self::distribution(),
        }
    }

    /// The toolchain in use, if it has the musl target. Its own linker does:
    /// nothing of the host's is linked.
    fn rustup() -> Result<Option<Self>> {
        const TARGET: &str = "aarch64-unknown-linux-musl";
        let tool = |variable, name: &str| {
            std::env::var_os(variable).map_or_else(|| PathBuf::from(name), PathBuf::from)
        };
        let rustc = tool("RUSTC", "rustc");
        let flags = vec![
            "-Ctarget-feature=+crt-static",
            "-Clinker=rust-lld",
            "-Clink-self-contained=yes",
        ];
        Self::probe(
            "rustup's musl target",
            tool("CARGO", "cargo"),
            rustc,
            TARGET,
            flags,
        )
    }

    /// Debian's Rust with its arm64 standard library, and the cross compiler's
    /// static C library.
    fn distribution() -> Result<Option<Self>> {
        const TARGET: &str = "aarch64-unknown-linux-gnu";
        let linker = if workspace::host_is_arm64() {
            "-Clinker=gcc"
        } else {
            "-Clinker=aarch64-linux-gnu-gcc"
        };
        let cross = Path::new("/usr/bin").join(&linker["-Clinker=".len()..]);
        if !cross.is_file() {
            return Ok(None);
        }
        Self::probe(
            "the distribution's Rust",
            "/usr/bin/cargo".into(),
            "/usr/bin/rustc".into(),
            TARGET,
            vec!["-Ctarget-feature=+crt-static", linker],
        )
    }

    fn probe(
        name: &'static str,
        cargo: PathBuf,
        rustc: PathBuf,
        target: &'static str,
        flags: Vec<&'static str>,
    ) -> Result<Option<Self>> {
        let ask = |arguments: &[&str]| process::output(Command::new(&rustc).args(arguments));
        let Ok(libraries) = ask(&["--print", "target-libdir", "--target", target]) else {
            return Ok(None);
        };
        if !has_standard_library(Path::new(libraries.trim())) {
            return Ok(None);
        }
        let version = ask(&["-vV"])?;
        let identity = format!("{version}{target}\n{}", flags.join(" "));
        Ok(Some(Self {
            name,
            identity,
            cargo,
            rustc,
            target,
            flags,
        }))
    }

    /// Its cargo, at work for arm64 in this workspace. `output` is a directory
    /// below the workspace's own: another compiler wrote that.
    pub fn cargo(&self, verb: &str, output: &str) -> Result<(Command, PathBuf)> {
        let target_dir = workspace::target_dir()?.join(output);
        let mut cargo = Command::new(&self.cargo);
        // What rustup and the cargo above us export would choose their compiler.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let kept = text == "CARGO_HOME" || text.starts_with("RUSTUP_");
            if !kept && (text.starts_with("CARGO") || text.starts_with("RUST")) {
                cargo.env_remove(&name);
            }
        }
        cargo
            .current_dir(workspace::root())
            .env("RUSTC", &self.rustc)
            .env("CARGO_TARGET_DIR", &target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags.join("\x1f"))
            .args([verb, "--locked", "--target", self.target]);
        Ok((cargo, target_dir))
    }

    /// The variable that names what runs its programs.
    pub fn runner_variable(&self) -> String {
        let target = self.target.to_uppercase().replace('-', "_");
        format!("CARGO_TARGET_{target}_RUNNER")
    }

    fn build(&self, log: &Path) -> Result<PathBuf> {
        fs::write(log, "")?;
        let (mut cargo, target_dir) = self.cargo("build", "init")?;
        cargo
            // The whole file is copied into every guest's memory at boot.
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .env("CARGO_PROFILE_RELEASE_LTO", "fat")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
            .args(["--release", "--package", PACKAGE, "--bin", BINARY]);
        process::logged(&mut cargo, log)?;
        Ok(target_dir.join(self.target).join("release").join(BINARY))
    }
}

/// rustc names a directory for targets it knows; only a standard library in it
/// means that it can build for them.
fn has_standard_library(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
    })
}

/// Hash of everything init is built from: 16 hex digits.
fn source_hash(root: &Path, toolchain: &str) -> Result<String> {
    let mut files = vec![root.join("Cargo.lock"), root.join("Cargo.toml")];
    for source in SOURCES {
        let dir = root.join(source);
        files.push(dir.join("Cargo.toml"));
        collect(&dir.join("src"), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update(bytes.len().to_le_bytes());
        hash.update(bytes);
    };
    add(&LAYOUT.to_le_bytes());
    add(toolchain.as_bytes());
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file);
        add(name.to_string_lossy().as_bytes());
        add(&fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    Ok(hash.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Refuses a binary that the guest could not start: PID 1 has no loader.
fn check_static_arm64(elf: &[u8]) -> Result<()> {
    const PT_INTERP: u32 = 3;
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(elf.get(at..at + 8)?.try_into().ok()?));
    // ELFCLASS64, little-endian, EM_AARCH64.
    if !elf.starts_with(b"\x7fELF\x02\x01") || half(18) != Some(183) {
        bail!("{BINARY} was not built for arm64");
    }
    let table = long(32).and_then(|offset| usize::try_from(offset).ok());
    let (Some(table), Some(size), Some(count)) = (table, half(54), half(56)) else {
        bail!("{BINARY} is truncated");
    };
    for index in 0..usize::from(count) {
        let kind = table.checked_add(index * usize::from(size)).and_then(word);
        if kind == Some(PT_INTERP) {
            bail!("{BINARY} needs a dynamic loader: it was not linked statically");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u16, segment: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&segment.to_le_bytes());
        bytes
    }

    #[test]
    fn foreign_and_dynamic_binaries_are_refused() {
        assert!(check_static_arm64(&elf(183, 1)).is_ok());
        assert!(check_static_arm64(&elf(62, 1)).is_err());
        assert!(check_static_arm64(&elf(183, 3)).is_err());
        assert!(check_static_arm64(&elf(183, 1)[..40]).is_err());
        assert!(check_static_arm64(b"#!/bin/sh").is_err());
    }

    #[test]
    fn a_changed_source_or_compiler_changes_the_hash() {
        let root = std::env::temp_dir().join(format!("xtask-init-{}", std::process::id()));
        for source in SOURCES {
            fs::create_dir_all(root.join(source).join("src/deep")).unwrap();
            fs::write(root.join(source).join("Cargo.toml"), "").unwrap();
            fs::write(root.join(source).join("src/deep/a.rs"), "a").unwrap();
        }
        fs::write(root.join("Cargo.toml"), "").unwrap();
        fs::write(root.join("Cargo.lock"), "").unwrap();
        let first = source_hash(&root, "rustc 1").unwrap();
        assert_eq!(first, source_hash(&root, "rustc 1").unwrap());
        assert_ne!(first, source_hash(&root, "rustc 2").unwrap());
        fs::write(root.join("exec-proto/src/deep/a.rs"), "b").unwrap();
        assert_ne!(first, source_hash(&root, "rustc 1").unwrap());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_archive_is_recognised_as_an_asset() {
        assert!(
            archive(b"\x7fELF")
                .unwrap()
                .starts_with(&kernel::initrd::NEWC_MAGIC)
        );
    }
}
