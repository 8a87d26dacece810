//! A program outside this workspace that depends on the packages as they are
//! published: what its first `cargo run` does, for debugging and for release, where
//! nothing of this checkout is found.

use crate::{assets, guest_image, process, workspace};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The whole program, as the page of the crate has it.
const PROGRAM: &str = r#"use supermachine::{Error, Image, VmConfig};

fn main() -> Result<(), Error> {
    supermachine::worker_main();
    let image = Image::builder(std::env::args().nth(1).unwrap()).build()?;
    let vm = image.start(&VmConfig::new())?;
    print!("{}", String::from_utf8_lossy(&vm.exec(["echo", "hi"])?.stdout));
    vm.stop()
}
"#;
/// In which the line is missing that lets it be its own worker.
const FORGETFUL: &str = "fn main() -> Result<(), supermachine::Error> {
    let image = supermachine::Image::load(&std::env::args().nth(1).unwrap())?;
    image.start(&Default::default()).map(drop)
}
";

/// Runs the program: without what it needs, which it says in a sentence, and with it.
pub fn run() -> Result<()> {
    let outside = Outside::create()?;
    let image = format!("oci:{}", guest_image::busybox()?.display());
    let said = outside.fails(&["--bin", "program", "--", &image])?;
    ensure!(
        said.contains("supermachine assets install"),
        "without a kernel it does not say where to get one:\n{said}"
    );
    outside.install_assets()?;
    let debug = ["--bin", "program"];
    // Without what only the tool needs: as many do who embed it, and sooner built.
    let release = ["--release", "--no-default-features", "--bin", "program"];
    for profile in [&debug[..], &release] {
        let said = process::output(outside.cargo_run().args(profile).args(["--", &image]))?;
        ensure!(said == "hi\n", "cargo run {profile:?} says {said:?}");
    }
    let said = outside.fails(&["--bin", "forgetful", "--", &image])?;
    ensure!(
        said.contains("supermachine::worker_main()"),
        "without a worker it does not say how to be one:\n{said}"
    );
    Ok(())
}

/// What is outside: the packages, the program, its build and its user's home.
struct Outside {
    root: PathBuf,
}

impl Outside {
    fn create() -> Result<Self> {
        let root = workspace::target_dir()?.join("outside");
        let home = root.join("home");
        if home.exists() {
            fs::remove_dir_all(&home).with_context(|| home.display().to_string())?;
        }
        fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
        let own = Self { root };
        let packages = own.unpack()?;
        own.write_program(&packages)?;
        Ok(own)
    }

    /// The published packages, each in its directory. What has not changed stays
    /// untouched, so that cargo need not build it again.
    fn unpack(&self) -> Result<Vec<String>> {
        let (fresh, kept) = (self.root.join("fresh"), self.root.join("packages"));
        if fresh.exists() {
            fs::remove_dir_all(&fresh).with_context(|| fresh.display().to_string())?;
        }
        fs::create_dir_all(&fresh).with_context(|| fresh.display().to_string())?;
        let names = workspace::published()?;
        for name in &names {
            let archive = workspace::target_dir()?
                .join("package")
                .join(format!("{name}-{}.crate", workspace::version_of(name)?));
            let to = fresh.join(name);
            fs::create_dir(&to).with_context(|| to.display().to_string())?;
            process::output(
                Command::new("tar")
                    .args(["--strip-components=1", "-xmf"])
                    .arg(&archive)
                    .arg("-C")
                    .arg(&to),
            )?;
        }
        make_same(&fresh, &kept)?;
        fs::remove_dir_all(&fresh).with_context(|| fresh.display().to_string())?;
        Ok(names)
    }

    fn write_program(&self, packages: &[String]) -> Result<()> {
        let program = self.root.join("program");
        let mut manifest = "[package]\nname = \"program\"\nversion = \"0.1.0\"\n\
            edition = \"2024\"\ndefault-run = \"program\"\n\n\
            [dependencies]\nsupermachine = \"*\"\n\n[workspace]\n\n\
            [patch.crates-io]\n"
            .to_owned();
        for name in packages {
            manifest += &format!("{name} = {{ path = \"../packages/{name}\" }}\n");
        }
        let sources = program.join("src/bin");
        fs::create_dir_all(&sources).with_context(|| sources.display().to_string())?;
        write_changed(&program.join("Cargo.toml"), manifest.as_bytes())?;
        write_changed(&sources.join("program.rs"), PROGRAM.as_bytes())?;
        write_changed(&sources.join("forgetful.rs"), FORGETFUL.as_bytes())?;
        // The versions that this workspace has: they are here already.
        let lock = workspace::root().join("Cargo.lock");
        fs::copy(&lock, program.join("Cargo.lock")).context("cannot copy Cargo.lock")?;
        Ok(())
    }

    /// `cargo run` in the program's directory, by a user whose home is ours.
    fn cargo_run(&self) -> Command {
        let mut command = Command::new(env!("CARGO"));
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("XDG_") || name.starts_with("SUPERMACHINE_") {
                command.env_remove(&*name);
            }
        }
        // The compiler and what it has of registries are where they were.
        for (variable, directory) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            if let (None, Some(home)) = (env::var_os(variable), env::home_dir()) {
                command.env(variable, home.join(directory));
            }
        }
        command
            .args(["run", "--quiet", "--offline"])
            .current_dir(self.root.join("program"))
            .env("CARGO_TARGET_DIR", self.root.join("target"))
            // What takes most of the room, and nobody debugs this program.
            .env("CARGO_INCREMENTAL", "0")
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .env("HOME", self.root.join("home"))
            // Where no worker is.
            .env("PATH", path_without_workers());
        command
    }

    /// What the program says, which is to fail.
    fn fails(&self, arguments: &[&str]) -> Result<String> {
        let done = self.cargo_run().args(arguments).output();
        let done = done.context("cannot run cargo")?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() {
            bail!("cargo run {arguments:?} does not fail:\n{said}");
        }
        Ok(said)
    }

    /// As whoever has the tool and the files of a release does it.
    fn install_assets(&self) -> Result<()> {
        let files = assets::ensure()?.kernel.with_file_name("");
        let tool = workspace::target_dir()?.join("release/supermachine");
        process::output(
            Command::new(tool)
                .args(["assets", "install"])
                .arg(files)
                .env_remove("XDG_CACHE_HOME")
                .env("HOME", self.root.join("home")),
        )
        .map(drop)
    }
}

fn path_without_workers() -> std::ffi::OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).filter(|dir| !dir.join("supermachine-worker").exists());
    env::join_paths(dirs).unwrap_or_default()
}

/// Makes `to` what `from` is, and touches nothing that is so already.
fn make_same(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    let wanted = names(from)?;
    for gone in names(to)?.difference(&wanted) {
        let gone = to.join(gone);
        let removed = match gone.is_dir() {
            true => fs::remove_dir_all(&gone),
            false => fs::remove_file(&gone),
        };
        removed.with_context(|| gone.display().to_string())?;
    }
    for name in &wanted {
        let (from, to) = (from.join(name), to.join(name));
        match from.is_dir() {
            true => make_same(&from, &to)?,
            false => {
                let content = fs::read(&from).with_context(|| from.display().to_string())?;
                write_changed(&to, &content)?;
            }
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<BTreeSet<std::ffi::OsString>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

/// Writes a file unless it has this content: cargo goes by the times of files.
fn write_changed(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == content) {
        return Ok(());
    }
    fs::write(path, content).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_the_same_and_what_is_the_same_is_not_touched() {
        let dir = env::temp_dir().join(format!("xtask-outside-{}", std::process::id()));
        let (from, to) = (dir.join("from"), dir.join("to"));
        for path in ["from/a/b", "to/a/gone", "to/gone"] {
            fs::create_dir_all(dir.join(path)).unwrap();
        }
        fs::write(from.join("a/same"), "same").unwrap();
        fs::write(from.join("a/other"), "new").unwrap();
        fs::write(to.join("a/same"), "same").unwrap();
        fs::write(to.join("a/other"), "old").unwrap();
        fs::write(to.join("a/gone/file"), "").unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
        let same = fs::File::options()
            .write(true)
            .open(to.join("a/same"))
            .unwrap();
        same.set_modified(long_ago).unwrap();
        make_same(&from, &to).unwrap();
        assert_eq!(names(&to).unwrap(), names(&from).unwrap());
        assert_eq!(
            names(&to.join("a")).unwrap(),
            names(&from.join("a")).unwrap()
        );
        assert_eq!(fs::read(to.join("a/other")).unwrap(), b"new");
        assert_eq!(same.metadata().unwrap().modified().unwrap(), long_ago);
        fs::remove_dir_all(dir).unwrap();
    }
}
