//! `cargo xtask dist`: everything that a stranger installs, for this host, in
//! `target/dist`; `cargo xtask dist check` installs each of it as a stranger would.
//!
//! The same sources, compiler and packages make the same archives: times, owners and
//! order in them are fixed, and no path of this machine is in a program.

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

/// What is made, and where.
struct Dist {
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
    match arguments {
        [] => make(),
        [word] if word == "check" => proof::check(&Dist::new()?),
        _ => bail!("usage: cargo xtask dist [check]"),
    }
}

fn make() -> Result<()> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "archives are made on x86-64 Linux, for it: on a Mac, `cargo xtask macos` links the \
         programs"
    );
    packages::ensure(&[&packages::PYTHON])?;
    let dist = Dist::new()?;
    for dir in [&dist.out, &dist.scratch] {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    dist.build()?;
    let tree = dist.tree()?;
    archive::tarball(&dist, &tree)?;
    debian::package(&dist, &tree)?;
    npm::packages(&dist)?;
    python::wheel_in(&dist.out, &dist.flags())?;
    dist.checksums()?;
    for name in names(&dist.out)? {
        println!("{}", dist.out.join(name).display());
    }
    Ok(())
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
            out: target.join("dist"),
            scratch: target.join("dist-scratch"),
            built: target.join("dist-build"),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            // An unpacked archive of the sources has no history.
            epoch: epoch.map_or_else(|_| "0".to_owned(), |text| text.trim().to_owned()),
        })
    }

    /// The environment of each build: no debug information, and no path of this machine.
    fn flags(&self) -> Vec<(&'static str, String)> {
        let home = std::env::var("CARGO_HOME").unwrap_or_else(|_| {
            let home = std::env::var("HOME").unwrap_or_default();
            format!("{home}/.cargo")
        });
        let root = workspace::root();
        let remap = format!(
            "--remap-path-prefix={home}=/cargo --remap-path-prefix={}=/supermachine",
            root.display()
        );
        vec![
            ("RUSTFLAGS", remap),
            ("CARGO_TARGET_DIR", self.built.display().to_string()),
            ("CARGO_PROFILE_RELEASE_DEBUG", "false".to_owned()),
            ("CARGO_PROFILE_RELEASE_STRIP", "symbols".to_owned()),
            ("SOURCE_DATE_EPOCH", self.epoch.clone()),
        ]
    }

    fn build(&self) -> Result<()> {
        process::shown(
            Command::new(env!("CARGO"))
                .args(["build", "--release", "--locked", "--quiet"])
                .args(["-p", "supermachine", "-p", npm::CRATE])
                .args(["--bins", "--lib"])
                .envs(self.flags())
                .current_dir(workspace::root()),
        )
    }

    fn program(&self, name: &str) -> PathBuf {
        self.built.join("release").join(name)
    }

    /// A prefix such as `/usr`: programs, what guests boot from, manual, completions and
    /// licences.
    fn tree(&self) -> Result<PathBuf> {
        let tree = self.scratch.join(self.name());
        let put = |from: &Path, to: &str| -> Result<()> {
            let to = tree.join(to);
            fs::create_dir_all(to.parent().unwrap_or(&tree))?;
            fs::copy(from, &to).with_context(|| format!("{}", from.display()))?;
            Ok(())
        };
        for name in PROGRAMS {
            put(&self.program(name), &format!("bin/{name}"))?;
        }
        let assets = assets::ensure()?;
        put(&assets.kernel, "share/supermachine/kernel")?;
        put(&assets.init_oci, "share/supermachine/init-oci")?;
        let root = workspace::root();
        for name in [
            "LICENSE",
            "NOTICE",
            "README.md",
            "CHANGELOG.md",
            "SECURITY.md",
        ] {
            put(&root.join(name), &format!("share/doc/supermachine/{name}"))?;
        }
        let kernel = root.join("kernel");
        put(
            &kernel.join("NOTICE"),
            "share/doc/supermachine/NOTICE.kernel",
        )?;
        // Whoever has the kernel may ask for its source: Debian's, these, and the recipe.
        let source = "share/doc/supermachine/kernel";
        put(
            &kernel.join("config/supermachine.config"),
            &format!("{source}/supermachine.config"),
        )?;
        put(
            &kernel.join("src/recipe.rs"),
            &format!("{source}/recipe.rs"),
        )?;
        for name in names(&kernel.join("patches"))? {
            put(
                &kernel.join("patches").join(&name),
                &format!("{source}/{name}"),
            )?;
        }
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
        let doc = tree.join("share/doc/supermachine");
        bill::write(&doc, &self.version)?;
        Ok(tree)
    }

    fn name(&self) -> String {
        format!("supermachine-{}-linux-x64", self.version)
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

/// What is in a directory, in order.
fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .with_context(|| dir.display().to_string())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}
