//! Runs every example as its first lines say, with a cache directory of their own.

use crate::{assets, guest_image, process, workspace};
use anyhow::{Context, Result, ensure};
use kernel::Assets;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Where the agent listens that one of them speaks to.
const SOCKET: &str = "run/agent";
/// The directory that is the root of the guest of one of them.
const ROOT: &str = "root";
/// What that guest reads there, and what it does.
const HELLO: &str = "a file of the host";
const READ: &str = "init=/bin/busybox -- sh -c \"busybox cat /hello; busybox poweroff -f\"";
/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// An example, what it is told, and what it says when it has worked.
struct Example {
    name: &'static str,
    arguments: Vec<String>,
    says: &'static str,
}

/// Runs them all. They have been built.
pub fn run() -> Result<()> {
    let own = workspace::target_dir()?.join("examples");
    remove(&own)?;
    for name in ["cache", "run", "snapshots"] {
        let dir = own.join(name);
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    let agent = Agent::start(&own.join(SOCKET))?;
    let image = guest_image::busybox()?;
    guest_image::unpack_busybox(&own.join(ROOT))?;
    std::fs::write(own.join(ROOT).join("hello"), HELLO)?;
    for example in examples(&own, &assets::ensure()?, &image) {
        let begun = Instant::now();
        let said = process::output(&mut command(&example, &own)?)?;
        ensure!(
            said.contains(example.says),
            "example {} does not say {:?}:\n{said}",
            example.name,
            example.says
        );
        eprintln!("{}: {:.1} s", example.name, begun.elapsed().as_secs_f64());
    }
    drop(agent);
    remove(&own)
}

fn examples(own: &Path, assets: &Assets, image: &Path) -> Vec<Example> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let image = format!("oci:{}", image.display());
    let example = |name, arguments: &[&str], says| Example {
        name,
        arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        says,
    };
    vec![
        example("bake", &[&image, &text(&own.join("layers"))], "command: ["),
        example(
            "boot",
            &[
                &text(&assets.kernel),
                &text(&assets.init_oci),
                // It has no image: the guest says so, and turns itself off.
                "console=ttyAMA0 panic=-1 sm.selftest=/bin/true",
            ],
            "selftest: status 127",
        ),
        example("copies", &[&image, "2"], "copy 1: ready"),
        example("density", &[&image, "2", "1"], "for 2 machines"),
        example(
            "pages",
            &[&image, &text(&own.join("snapshots"))],
            "every page has run",
        ),
        example("forks", &[&image], "parent still \"parent\\n\""),
        example("stdin_soak", &["16", &image], "16 MiB in"),
        example("drive", &[], "vsock: from the host"),
        example(
            "small_vmm",
            &[&text(&assets.kernel), &text(&own.join(ROOT)), READ],
            HELLO,
        ),
        example("a64-soak", &["--instructions", "1000000"], "no differences"),
        example(
            "round_trip",
            &[&text(&own.join(SOCKET)), "20", "true"],
            "p50",
        ),
    ]
}

/// Tests have the same executables.
fn built(name: &str) -> Result<PathBuf> {
    Ok(workspace::target_dir()?.join("debug").join(name))
}

fn command(example: &Example, own: &Path) -> Result<Command> {
    let mut command = Command::new(built(&format!("examples/{}", example.name))?);
    command
        .args(&example.arguments)
        .env("XDG_CACHE_HOME", own.join("cache"))
        .env("XDG_RUNTIME_DIR", own.join("run"))
        .env("SUPERMACHINE_SNAPSHOTS", own.join("snapshots"));
    Ok(command)
}

/// An agent on this host, for the example that speaks to one.
struct Agent(Child);

impl Agent {
    fn start(socket: &Path) -> Result<Self> {
        let mut command = Command::new(built("init-shim")?);
        let child = command.arg("--serve-unix").arg(socket).spawn();
        let agent = Self(child.context("cannot start init-shim")?);
        let begun = Instant::now();
        while !socket.exists() {
            ensure!(begun.elapsed() < PATIENCE, "init-shim does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended by itself, or does now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_example_of_the_workspace_is_run() {
        let sources = process::output(
            Command::new("git")
                .args(["ls-files", "*/examples/*.rs"])
                .current_dir(workspace::root()),
        )
        .unwrap();
        let there: BTreeSet<&str> = sources
            .lines()
            .filter_map(|path| path.rsplit('/').next()?.strip_suffix(".rs"))
            .collect();
        let own = Path::new("own");
        let assets = Assets {
            kernel: own.into(),
            init_oci: own.into(),
        };
        let run = examples(own, &assets, own);
        let run: BTreeSet<&str> = run.iter().map(|example| example.name).collect();
        assert_eq!(run, there);
    }
}
