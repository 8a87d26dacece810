//! `cargo xtask demo`: from nothing to a program in a microVM.

use crate::{assets, guest_image, packages, process, workspace};
use anyhow::{Context, Result, bail};
use std::process::Command;

pub fn run(_arguments: &[String]) -> Result<()> {
    packages::ensure(&[&packages::kernel(), &packages::guest_rust()])?;
    assets::ensure()?;
    process::shown(
        Command::new(env!("CARGO"))
            .args([
                "build",
                "--release",
                "--locked",
                "-p",
                "supermachine",
                "--bins",
            ])
            .current_dir(workspace::root()),
    )?;
    let layout = guest_image::busybox()?;
    let shown = layout.strip_prefix(workspace::root()).unwrap_or(&layout);
    let reference = format!("oci:{}", shown.display());
    let executable = workspace::target_dir()?.join("release/supermachine");
    let arguments = [
        "run",
        "--timings",
        &reference,
        "--",
        "echo",
        "hello from a microVM",
    ];
    eprintln!("$ supermachine {}", shell_words(&arguments));
    let status = Command::new(executable)
        .args(arguments)
        .current_dir(workspace::root())
        .status()
        .context("cannot run supermachine")?;
    if !status.success() {
        bail!("supermachine: {status}");
    }
    Ok(())
}

fn shell_words(words: &[&str]) -> String {
    let quoted = words.iter().map(|word| {
        if word.contains(' ') {
            format!("\"{word}\"")
        } else {
            (*word).to_owned()
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}
