//! `cargo xtask macos`: builds the product for macOS and links its executables as
//! Mach-O, all from Linux.
//!
//! The distribution's Rust builds the standard library from its sources, zig
//! links, and `hvf/link` says what Apple's framework exports.

use crate::packages::{self, Set};
use crate::{process, workspace};
use anyhow::{Context, Result, ensure};
use codesign::{Entitlements, HYPERVISOR, Signature};
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "aarch64-apple-darwin";
/// Version of the PyPI package `ziglang`, whose linker knows Mach-O.
const ZIG_VERSION: &str = "0.15.2";
const RUST_SOURCES: Set = Set {
    purpose: "checking for macOS",
    names: &["rust-web-src"],
};

pub fn run(_arguments: &[String]) -> Result<()> {
    packages::ensure(&[&packages::guest_rust(), &packages::PYTHON, &RUST_SOURCES])?;
    // Every library but init-shim, which is for Linux guests only, is in it.
    link()
}

/// The distribution's cargo, set up to build for macOS.
fn cargo(verb: &str) -> Result<Command> {
    let mut command = Command::new("/usr/bin/cargo");
    command
        .args([
            verb,
            "-Zbuild-std",
            "--target",
            TARGET,
            "--locked",
            "--quiet",
        ])
        .current_dir(workspace::root())
        // Building the standard library is an unstable feature, also there.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", "/usr/bin/rustc")
        .env("CARGO_TARGET_DIR", target_dir()?)
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTFLAGS");
    Ok(command)
}

fn target_dir() -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join("macos"))
}

fn link() -> Result<()> {
    let stubs = workspace::root().join("hvf/link");
    let zig = zig()?;
    let mut build = cargo("build")?;
    build
        .args(["-p", "supermachine", "--bins"])
        .env("ZIG", format!("{} -m ziglang", zig.display()))
        .env("SDKROOT", &stubs)
        .env(
            "CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER",
            stubs.join("zig-cc"),
        )
        .env(
            "CARGO_TARGET_AARCH64_APPLE_DARWIN_RUSTFLAGS",
            format!("-Lframework={}", stubs.display()),
        );
    process::shown(&mut build)?;
    for name in ["supermachine", "supermachine-worker"] {
        let executable = target_dir()?.join(TARGET).join("debug").join(name);
        require_mach_o(&executable)?;
        signed(&executable)?;
        eprintln!("{name}: a Mach-O executable for arm64, signed");
    }
    Ok(())
}

/// Python with zig in it, in the user's cache directory.
fn zig() -> Result<PathBuf> {
    Ok(packages::from_pypi("ziglang", ZIG_VERSION)?.join("python"))
}

/// Signs what zig's linker signed without entitlements, and reads the signature.
fn signed(path: &Path) -> Result<()> {
    let entitled = path.with_extension("entitled");
    std::fs::copy(path, &entitled).with_context(|| entitled.display().to_string())?;
    codesign::sign_file(&entitled, &Entitlements::hypervisor())?;
    let bytes = std::fs::read(&entitled)?;
    let signature = Signature::read(&bytes)?.context("no signature")?;
    signature.verify(&bytes)?;
    ensure!(
        signature.entitlements()?.has(HYPERVISOR),
        "{} has not the entitlement",
        entitled.display()
    );
    Ok(())
}

/// Checks magic, processor and file type of the header (mach-o/loader.h).
fn require_mach_o(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let word = |at: usize| {
        let four = bytes.get(at..at + 4).unwrap_or_default();
        four.try_into().map(u32::from_le_bytes).unwrap_or(0)
    };
    ensure!(
        word(0) == 0xfeed_facf && word(4) == 0x0100_000c && word(12) == 2,
        "{} is no Mach-O executable for arm64",
        path.display()
    );
    Ok(())
}
