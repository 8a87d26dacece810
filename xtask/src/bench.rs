//! `cargo xtask bench`: sets up what the benches need and runs them.

use crate::packages::{self, QEMU};
use crate::workspace::Profile;
use crate::{assets, guest_image, newer_qemu, node, process, python, registry, workspace};
use anyhow::{Context, Result, bail};
use std::process::Command;

/// What the programs of `compute` need beside the base of all images.
const COMPUTE_PACKAGES: &[&str] = &[
    "esbuild",
    "gcc",
    "libc6-dev",
    "nodejs",
    "openjdk-17-jdk-headless",
    "perl",
    "python3",
    "python3-cryptography",
    "python3-numpy",
    "zstd",
];

pub fn run(arguments: &[String]) -> Result<()> {
    packages::ensure(&[
        &packages::kernel(),
        &packages::guest_rust(),
        &packages::guest_c(),
        &QEMU,
        &packages::NETWORKS,
        &packages::IMAGE_TOOLS,
    ])?;
    assets::ensure()?;
    let small = guest_image::busybox()?;
    let large = guest_image::ensure("bench")?;
    let nginx = guest_image::ensure("nginx")?;
    let registry = registry::ensure()?;
    process::shown(
        Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--quiet"])
            .args(["-p", "supermachine", "-p", "supermachine-bench", "--bins"])
            .current_dir(workspace::root()),
    )?;
    let target = workspace::target_dir()?;
    let mut bench = Command::new(target.join("release/supermachine-bench"));
    bench
        .args(["--at", &commit()?, "--assets"])
        .arg(target.join("assets"))
        .arg("--dir")
        .arg(target.join("bench"))
        .arg("--small")
        .arg(small)
        .arg("--large")
        .arg(large)
        .arg("--nginx")
        .arg(nginx)
        .arg("--registry")
        .arg(registry);
    if let Some(qemu) = newer_qemu::ensure() {
        bench.arg("--qemu").arg(qemu);
    }
    if wants(arguments, &["compute", "census", "translate"]) {
        let compute = guest_image::ensure_with("compute", COMPUTE_PACKAGES)?;
        bench.arg("--compute").arg(compute);
    }
    if wants(arguments, &["churn"]) {
        packages::ensure(&[&packages::CONTAINERS])?;
    }
    if wants(arguments, &["bindings"]) {
        packages::ensure(&[&packages::NODE, &packages::PYTHON])?;
        bench.arg("--node").arg(node::build(Profile::Release)?);
        bench
            .arg("--python")
            .arg(python::assemble(Profile::Release)?);
    }
    let status = bench
        .args(arguments)
        .status()
        .context("cannot run the benches")?;
    if !status.success() {
        bail!("the benches: {status}");
    }
    Ok(())
}

/// Whether one of `benches` is to run, which need minutes of preparation: if one is
/// named, or nothing is.
fn wants(arguments: &[String], benches: &[&str]) -> bool {
    let mut words = arguments.iter();
    let mut names = Vec::new();
    while let Some(word) = words.next() {
        match word.strip_prefix("--") {
            Some(_) => drop(words.next()),
            None => names.push(word),
        }
    }
    names.is_empty() || names.iter().any(|name| benches.contains(&name.as_str()))
}

/// The commit that is measured, and whether the tree differs from it.
fn commit() -> Result<String> {
    let git = |arguments: &[&str]| {
        process::output(
            Command::new("git")
                .args(arguments)
                .current_dir(workspace::root()),
        )
    };
    let head = git(&["rev-parse", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let mark = if changes.is_empty() { "" } else { "-dirty" };
    Ok(format!("{}{mark}", head.trim()))
}
