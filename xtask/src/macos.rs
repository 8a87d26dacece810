//! `cargo xtask macos`: builds the product for macOS and links its executables and the
//! native part of the npm package as Mach-O, all from Linux.
//!
//! The distribution's Rust builds the standard library from its sources, zig
//! links, and `hvf/link` says what Apple's framework exports.

use crate::mach_o::{self, Use};
use crate::packages::{self, Set};
use crate::{process, workspace};
use anyhow::{Context, Result, ensure};
use codesign::{Entitlements, HYPERVISOR, Signature};
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "aarch64-apple-darwin";
/// What is linked, by its name in cargo's directory.
const LINKED: [(&str, Use); 3] = [
    ("supermachine", Use::Program),
    ("supermachine-worker", Use::Program),
    ("libsupermachine_node.dylib", Use::Addon),
];
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
        .args([
            "-p",
            "supermachine",
            "--bins",
            "-p",
            "supermachine-node",
            "--lib",
        ])
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
    for (name, for_use) in LINKED {
        let file = target_dir()?.join(TARGET).join("debug").join(name);
        let found = mach_o::inspect(&file, for_use)?;
        signed(&file, for_use)?;
        let libraries = found.libraries.len();
        eprintln!("{name}: Mach-O for arm64, with {libraries} libraries of macOS, signed");
    }
    Ok(())
}

/// Python with zig in it, in the user's cache directory.
fn zig() -> Result<PathBuf> {
    Ok(packages::from_pypi("ziglang", ZIG_VERSION)?.join("python"))
}

/// Signs what zig's linker signed without entitlements, and reads the signature. What is
/// loaded has those of the program that loads it, and none of its own.
fn signed(path: &Path, for_use: Use) -> Result<()> {
    let is_program = for_use == Use::Program;
    let signed = path.with_extension("signed");
    std::fs::copy(path, &signed).with_context(|| signed.display().to_string())?;
    let entitlements = match is_program {
        true => Entitlements::hypervisor(),
        false => Entitlements::default(),
    };
    codesign::sign_file(&signed, &entitlements)?;
    let bytes = std::fs::read(&signed)?;
    let signature = Signature::read(&bytes)?.context("no signature")?;
    signature.verify(&bytes)?;
    ensure!(
        signature.entitlements()?.has(HYPERVISOR) == is_program,
        "{} has other entitlements than it should",
        signed.display()
    );
    Ok(())
}
