//! `cargo xtask python`: the Python package `supermachine`.
//!
//! `python` alone puts it together for this host, as a directory for `PYTHONPATH`;
//! `python sync` writes `_sync.py` anew from `aio.py`; `python wheel` makes a wheel with
//! worker, kernel and init in it. The step `python` of the tests does the first, checks
//! the types, and runs `python/tests`.

use crate::workspace::Profile;
use crate::{assets, guest_image, packages, process, workspace};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crate with the native part.
const PACKAGE: &str = "supermachine-python";
/// What checks the types, from PyPI.
const MYPY: (&str, &str) = ("mypy", "2.4.1");
/// What makes wheels, from PyPI.
const MATURIN: (&str, &str) = ("maturin", "1.16.0");

pub fn run(arguments: &[String]) -> Result<()> {
    match arguments {
        [] => {
            println!("{}", assemble(Profile::Dev)?.display());
            Ok(())
        }
        [word] if word == "sync" => {
            process::shown(Command::new("python3").arg(directory().join("sync.py")))
        }
        [word] if word == "wheel" => wheel(),
        _ => bail!("usage: cargo xtask python [sync|wheel]"),
    }
}

fn directory() -> PathBuf {
    workspace::root().join("python")
}

/// Builds the native part and puts it beside the rest; what `PYTHONPATH` must have.
pub fn assemble(profile: Profile) -> Result<PathBuf> {
    packages::ensure(&[&packages::PYTHON])?;
    process::shown(
        Command::new(env!("CARGO"))
            .args(["build", "--locked", "--quiet", "-p", PACKAGE])
            .args(["--profile", profile.name()])
            .current_dir(workspace::root()),
    )?;
    let path = workspace::target_dir()?.join("python");
    let package = path.join("supermachine");
    let _ = fs::remove_dir_all(&package);
    fs::create_dir_all(&package)?;
    for entry in fs::read_dir(directory().join("supermachine"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), package.join(entry.file_name()))?;
        }
    }
    let built = if cfg!(target_os = "macos") {
        "lib_native.dylib"
    } else {
        "lib_native.so"
    };
    let built = profile.dir()?.join(built);
    fs::copy(&built, package.join("_native.abi3.so"))
        .with_context(|| built.display().to_string())?;
    Ok(path)
}

/// The step of `cargo xtask test`.
pub fn test() -> Result<()> {
    let path = assemble(Profile::Dev)?;
    let mypy = packages::from_pypi(MYPY.0, MYPY.1)?.join("mypy");
    process::shown(
        Command::new(&mypy)
            .args(["--strict", "--no-error-summary", "--cache-dir", "/dev/null"])
            .arg(directory().join("supermachine"))
            .current_dir(directory()),
    )?;
    // Against the package as it is put together, one by one: each is a program.
    let examples = examples()?;
    for example in &examples {
        process::shown(
            Command::new(&mypy)
                .args(["--strict", "--no-error-summary", "--cache-dir", "/dev/null"])
                .arg(example)
                .env("MYPYPATH", &path),
        )?;
    }
    let scratch = workspace::target_dir()?.join("python-test");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    let worker = workspace::target_dir()?.join("release/supermachine-worker");
    let image = format!("oci:{}", guest_image::busybox()?.display());
    let python = || {
        let mut command = Command::new("python3");
        command
            // Where no directory is called as the package.
            .current_dir(&scratch)
            .env("PYTHONPATH", &path)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("SUPERMACHINE_WORKER", &worker)
            .env("SUPERMACHINE_SNAPSHOTS", scratch.join("snapshots"))
            .env("SUPERMACHINE_VOLUMES", scratch.join("volumes"))
            .env("TMPDIR", &scratch)
            .env("TEST_IMAGE", &image);
        command
    };
    process::shown(
        python()
            .args(["-m", "unittest", "discover", "-s"])
            .arg(directory().join("tests")),
    )?;
    for example in &examples {
        let name = example.file_name().unwrap_or_default().to_string_lossy();
        let says = SAYS.iter().find(|(known, _)| *known == name);
        let (_, says) = says.with_context(|| format!("no one knows what {name} says"))?;
        let said = process::output(python().arg(example))?;
        ensure!(said.contains(says), "{name} does not say {says:?}:\n{said}");
    }
    fs::remove_dir_all(&scratch).context("cannot tidy up")
}

/// What each example says when it has worked.
const SAYS: [(&str, &str); 5] = [
    ("agent.py", "prepared"),
    ("changes.py", "['answer.txt']\n42"),
    ("hello.py", "0 hello from the VM"),
    ("streams.py", "exit code 7"),
    ("verifier.py", "[(True, '42\\n'), (False, '')"),
];

/// The programs of the package's page, in order.
fn examples() -> Result<Vec<PathBuf>> {
    let mut examples: Vec<PathBuf> = fs::read_dir(directory().join("examples"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    examples.sort();
    Ok(examples)
}

/// Makes a wheel in `target/wheels`.
fn wheel() -> Result<()> {
    let assets = assets::ensure()?;
    process::shown(
        Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--quiet"])
            .args(["-p", "supermachine", "--bin", "supermachine-worker"])
            .current_dir(workspace::root()),
    )?;
    let target = workspace::target_dir()?;
    let inside = Own::make(&target.join("wheel"))?;
    for (from, name) in [
        (
            &target.join("release/supermachine-worker"),
            "supermachine-worker",
        ),
        (&assets.kernel, "kernel"),
        (&assets.init_oci, "init-oci"),
    ] {
        fs::copy(from, inside.0.join(name)).with_context(|| from.display().to_string())?;
    }
    wheel_of(&directory(), &inside.0, &target.join("wheels"), &[])
}

/// Makes a wheel of the package in a checkout, with what is in `inside`.
pub fn wheel_of(
    package: &Path,
    inside: &Path,
    out: &Path,
    environment: &[(&str, String)],
) -> Result<()> {
    let own = Own::make(&package.join("supermachine/bin"))?;
    process::shown(
        Command::new("cp")
            .arg("-r")
            .arg(inside.join("."))
            .arg(&own.0),
    )?;
    let maturin = packages::from_pypi(MATURIN.0, MATURIN.1)?.join("maturin");
    process::shown(
        Command::new(maturin)
            .args([
                "build",
                "--release",
                "--locked",
                "--quiet",
                "--strip",
                "--out",
            ])
            .arg(out)
            .current_dir(package)
            .envs(environment.iter().map(|(name, value)| (name, value))),
    )
}

/// A directory that is there for a while.
struct Own(PathBuf);

impl Own {
    fn make(path: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(path);
        fs::create_dir_all(path).with_context(|| path.display().to_string())?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
