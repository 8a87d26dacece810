//! `cargo xtask dist`: everything that a stranger installs, for this host, in
//! `target/dist`; `dist check` installs each of it as a stranger would, in a system of
//! its own; `dist again` makes it once more elsewhere and compares.
//!
//! The same sources, compiler and packages make the same archives: times, owners and
//! order in them are fixed, and no path of the host is in a program.

mod again;
mod archive;
mod bill;
mod debian;
mod npm;
mod proof;

use crate::{assets, packages, process, python, workspace};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs of the package `supermachine`.
const PROGRAMS: [&str; 3] = ["supermachine", "supermachine-worker", "cargo-supermachine"];
/// Shells that completions are for, and where each looks for them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/supermachine"),
    ("zsh", "share/zsh/site-functions/_supermachine"),
    ("fish", "share/fish/vendor_completions.d/supermachine.fish"),
];
/// Where documents and licences are in a prefix.
const DOCUMENTS: &str = "share/doc/supermachine";

/// A host that archives are made for, on such a host.
#[derive(Debug)]
struct Platform {
    /// As Rust, npm and Debian call it.
    rust: &'static str,
    npm: &'static str,
    debian: &'static str,
}

const PLATFORMS: [Platform; 2] = [
    Platform {
        rust: "x86_64-unknown-linux-gnu",
        npm: "linux-x64",
        debian: "amd64",
    },
    Platform {
        rust: "aarch64-unknown-linux-gnu",
        npm: "linux-arm64",
        debian: "arm64",
    },
];

impl Platform {
    fn of_this_host() -> Result<&'static Self> {
        ensure!(
            cfg!(target_os = "linux"),
            "archives are made on Linux: there, `cargo xtask macos` links the programs for Macs"
        );
        let arch = std::env::consts::ARCH;
        PLATFORMS
            .iter()
            .find(|platform| platform.rust.starts_with(arch))
            .with_context(|| format!("no archives are made for {arch}"))
    }
}

/// What is made, of what, and where.
struct Dist {
    platform: &'static Platform,
    /// The checkout.
    root: PathBuf,
    /// Where the archives are.
    out: PathBuf,
    /// Where what is in them is put together.
    scratch: PathBuf,
    /// Programs that were built for this.
    built: PathBuf,
    version: String,
    /// Seconds since 1970 that everything in the archives is from.
    epoch: String,
}

pub fn run(arguments: &[String]) -> Result<()> {
    let dist = Dist::new()?;
    match arguments {
        [] => {
            dist.make()?;
            for name in names(&dist.out)? {
                println!("{}", dist.out.join(name).display());
            }
            Ok(())
        }
        [word] if word == "check" => proof::check(&dist),
        [word] if word == "again" => again::compare(&dist),
        _ => bail!("usage: cargo xtask dist [check|again]"),
    }
}

impl Dist {
    fn new() -> Result<Self> {
        let target = workspace::target_dir()?;
        let epoch = process::output(
            Command::new("git")
                .args(["log", "-1", "--format=%ct"])
                .current_dir(workspace::root()),
        );
        Ok(Self {
            platform: Platform::of_this_host()?,
            root: workspace::root(),
            out: target.join("dist"),
            scratch: target.join("dist-scratch"),
            built: target.join("dist-build"),
            version: workspace::version_of("supermachine")?,
            // An unpacked archive of the sources has no history.
            epoch: epoch.map_or_else(|_| "0".to_owned(), |text| text.trim().to_owned()),
        })
    }

    fn make(&self) -> Result<()> {
        packages::ensure(&[&packages::PYTHON])?;
        for dir in [&self.out, &self.scratch] {
            let _ = fs::remove_dir_all(dir);
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        self.build()?;
        let tree = self.tree()?;
        archive::tarball(self, &tree)?;
        debian::package(self, &tree)?;
        npm::packages(self)?;
        self.wheel()?;
        self.checksums()
    }

    /// The environment of each build: no debug information, and no path of the host.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let home = std::env::var("CARGO_HOME").unwrap_or_else(|_| {
            let home = std::env::var("HOME").unwrap_or_default();
            format!("{home}/.cargo")
        });
        let remap = format!(
            "--remap-path-prefix={home}=/cargo --remap-path-prefix={}=/supermachine",
            self.root.display()
        );
        vec![
            ("RUSTFLAGS", remap),
            ("CARGO_TARGET_DIR", self.built.display().to_string()),
            ("CARGO_INCREMENTAL", "0".to_owned()),
            ("CARGO_PROFILE_RELEASE_DEBUG", "false".to_owned()),
            ("CARGO_PROFILE_RELEASE_STRIP", "symbols".to_owned()),
            ("SOURCE_DATE_EPOCH", self.epoch.clone()),
        ]
    }

    /// Programs and native part in two calls: what the tool alone needs is not in the latter.
    fn build(&self) -> Result<()> {
        for what in [
            &["-p", "supermachine", "--bins"],
            &["-p", npm::CRATE, "--lib"],
        ] {
            process::shown(
                Command::new(env!("CARGO"))
                    .args(["build", "--release", "--locked", "--quiet"])
                    .args(what)
                    .envs(self.environment())
                    .current_dir(&self.root),
            )?;
        }
        Ok(())
    }

    fn program(&self, name: &str) -> PathBuf {
        self.built.join("release").join(name)
    }

    /// A prefix such as `/usr`: programs, what guests boot from, manual, completions and
    /// licences.
    fn tree(&self) -> Result<PathBuf> {
        let tree = self.scratch.join(self.name());
        for name in PROGRAMS {
            put(&self.program(name), &tree.join("bin").join(name))?;
        }
        let assets = assets::ensure()?;
        let share = tree.join("share/supermachine");
        put(&assets.kernel, &share.join("kernel"))?;
        put(&assets.init_oci, &share.join("init-oci"))?;
        let documents = tree.join(DOCUMENTS);
        for name in ["README.md", "CHANGELOG.md", "SECURITY.md"] {
            put(&self.root.join(name), &documents.join(name))?;
        }
        self.licences(&documents, &["supermachine"])?;
        let tool = self.program("supermachine");
        process::shown(
            Command::new(&tool)
                .args(["man", "--dir"])
                .arg(tree.join("share/man/man1")),
        )?;
        for (shell, path) in COMPLETIONS {
            let script = process::output(Command::new(&tool).args(["completions", shell]))?;
            let path = tree.join(path);
            fs::create_dir_all(path.parent().unwrap_or(&tree))?;
            fs::write(path, script)?;
        }
        Ok(tree)
    }

    /// What has to go with programs and kernel: our licence, those of others, and what
    /// whoever has the kernel may ask for, which is all that its source is but Debian's.
    fn licences(&self, dir: &Path, crates: &[&str]) -> Result<()> {
        for name in ["LICENSE", "NOTICE"] {
            put(&self.root.join(name), &dir.join(name))?;
        }
        let kernel = self.root.join("kernel");
        put(&kernel.join("NOTICE"), &dir.join("NOTICE.kernel"))?;
        let source = dir.join("kernel-source");
        for name in ["config/supermachine.config", "src/recipe.rs"] {
            let from = kernel.join(name);
            put(&from, &source.join(from.file_name().unwrap_or_default()))?;
        }
        for name in names(&kernel.join("patches"))? {
            put(&kernel.join("patches").join(&name), &source.join(&name))?;
        }
        let version = kernel_source()?;
        fs::write(source.join("source-version"), format!("{version}\n"))?;
        bill::write(self, dir, crates, &version)
    }

    fn wheel(&self) -> Result<()> {
        let assets = assets::ensure()?;
        let inside = self.scratch.join("wheel");
        put(
            &self.program("supermachine-worker"),
            &inside.join("supermachine-worker"),
        )?;
        put(&assets.kernel, &inside.join("kernel"))?;
        put(&assets.init_oci, &inside.join("init-oci"))?;
        self.licences(&inside, &["supermachine", "supermachine-python"])?;
        python::wheel_of(
            &self.root.join("python"),
            &inside,
            &self.out,
            &self.environment(),
        )
    }

    fn name(&self) -> String {
        format!("supermachine-{}-{}", self.version, self.platform.npm)
    }

    /// What each archive must be, as `sha256sum -c` reads it.
    fn checksums(&self) -> Result<()> {
        let sums = process::output(
            Command::new("sha256sum")
                .args(names(&self.out)?)
                .current_dir(&self.out),
        )?;
        fs::write(self.out.join("SHA256SUMS"), sums).context("cannot write SHA256SUMS")
    }
}

/// The version of Debian's package that the kernel was built from.
fn kernel_source() -> Result<String> {
    let name = kernel::recipe::SOURCE_PACKAGE;
    let version = packages::installed_version(name)?;
    version.with_context(|| format!("{name}, which the kernel is built from, is not installed"))
}

/// Copies a file to where a directory may not be yet.
fn put(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    fs::copy(from, to).with_context(|| from.display().to_string())?;
    Ok(())
}

/// What is in a directory, in order.
fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .with_context(|| dir.display().to_string())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}
