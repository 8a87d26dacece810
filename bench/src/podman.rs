//! The peer of `churn`: podman, where it can run a container at all.

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What is said besides, from the usual to what hosts with hybrid control groups, or
/// without the right to raise limits, need.
const WAYS: &[&[&str]] = &[
    &[],
    &["--runtime=crun", "--cgroups=disabled"],
    &["--runtime=runc"],
];
/// Limits that no host refuses, since they are lower than its own.
const LIMITS: &[&str] = &["--ulimit=nofile=1000:1000", "--ulimit=nproc=1000:1000"];

/// A podman with storage of its own, and a container of busybox alone: no network, as
/// the machine it is compared with has none that it waits for.
pub struct Podman {
    dir: PathBuf,
    way: Vec<&'static str>,
}

impl Podman {
    /// `None` where there is no podman, no busybox that runs alone, or no way to run a
    /// container; what was tried is said.
    pub fn find(dir: &Path) -> Result<Option<Self>> {
        let Some(busybox) = on_path("busybox") else {
            eprintln!("churn: no busybox for podman's container");
            return Ok(None);
        };
        if on_path("podman").is_none() {
            eprintln!("churn: no podman to compare with");
            return Ok(None);
        }
        let bin = dir.join("rootfs/bin");
        std::fs::create_dir_all(&bin).with_context(|| bin.display().to_string())?;
        std::fs::copy(&busybox, bin.join("busybox")).context("cannot copy busybox")?;
        for way in WAYS {
            for limits in [&[][..], LIMITS] {
                let found = Self {
                    dir: dir.to_owned(),
                    way: [way, limits].concat(),
                };
                match found.run() {
                    Ok(_) => return Ok(Some(found)),
                    Err(error) => eprintln!("churn: podman {:?}: {error:#}", found.way),
                }
            }
        }
        Ok(None)
    }

    /// One run; what it took in milliseconds.
    pub fn run(&self) -> Result<f64> {
        let begun = Instant::now();
        let out = Command::new("podman")
            .arg("--root")
            .arg(self.dir.join("storage"))
            .arg("--runroot")
            .arg(self.dir.join("run"))
            .args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"])
            .args(self.way.iter().filter(|word| word.starts_with("--runtime")))
            .args(["run", "--rm", "--network=none"])
            .args(
                self.way
                    .iter()
                    .filter(|word| !word.starts_with("--runtime")),
            )
            .arg("--rootfs")
            .arg(self.dir.join("rootfs"))
            .args(["/bin/busybox", "echo", "hi"])
            .stdin(Stdio::null())
            .output()
            .context("cannot start podman")?;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        if !out.status.success() || out.stdout != b"hi\n" {
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            bail!("{}: {}", out.status, said.trim_end());
        }
        Ok(took)
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join(program));
    found.into_iter().find(|file| file.is_file())
}
