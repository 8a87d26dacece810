//! `cargo xtask demo`: from nothing to a program in a microVM.

use crate::{assets, guest_image, packages, workspace};
use anyhow::{Context, Result, bail};
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

/// How often to look whether one of the two has ended.
const POLL: Duration = Duration::from_millis(100);

pub fn run(_arguments: &[String]) -> Result<()> {
    build()?;
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

/// Packages, kernel, init and the tool. The tool needs none of the others, and
/// the kernel does not keep all processors busy all the time: packages are
/// fetched, the source is unpacked, and it is linked by one of them.
fn build() -> Result<()> {
    thread::scope(|scope| {
        let guest = scope.spawn(|| {
            packages::ensure(&[&packages::kernel(), &packages::guest_rust()])?;
            assets::ensure().map(|_| ())
        });
        let mut tool = Command::new(env!("CARGO"));
        tool.args([
            "build",
            "--release",
            "--locked",
            "-p",
            "supermachine",
            "--bins",
        ]);
        tool.current_dir(workspace::root())
            .stdin(Stdio::null())
            .stdout(std::io::stderr());
        let mut tool = tool.spawn().context("cannot run cargo")?;
        // A missing package is reported at once.
        while !guest.is_finished() && tool.try_wait()?.is_none() {
            thread::sleep(POLL);
        }
        let built = if guest.is_finished() {
            let guest = joined(guest);
            if guest.is_err() {
                let _ = tool.kill();
            }
            let status = tool.wait()?;
            guest?;
            status
        } else {
            let status = tool.wait()?;
            joined(guest)?;
            status
        };
        if !built.success() {
            bail!("cargo build: {built}");
        }
        Ok(())
    })
}

fn joined(thread: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
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
