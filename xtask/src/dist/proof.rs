//! That what was made can be installed: each archive as a stranger would, away from this
//! checkout, and with nothing of this machine's environment.

use super::{Dist, names};
use crate::{guest_image, packages, process};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes roots of Debian systems.
const DEBOOTSTRAP: packages::Set = packages::Set {
    purpose: "installing packages in a root of their own",
    names: &["debootstrap"],
};
/// Where programs of the system are.
const SYSTEM: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
const NODE: &str = "\
import { Image } from '@supermachine/core'
const image = await Image.build({ ref: process.env.TEST_IMAGE })
const pool = await image.pool({ min: 1, max: 1 })
const vm = await pool.acquire()
const { stdout } = await vm.exec({ argv: ['uname', '-m'] })
console.log(stdout.toString())
await vm.release()
await pool.shutdown()
";
const PYTHON: &str = "\
import os
from supermachine import Image
image = Image.build(os.environ['TEST_IMAGE'])
with image.pool(min=1, max=1) as pool, pool.acquire() as vm:
    print(vm.exec(['uname', '-m']).stdout.decode())
";

/// Installs an archive and runs a guest; what that said.
type Check = fn(&Stranger) -> Result<String>;

/// Installs everything.
pub fn check(dist: &Dist) -> Result<()> {
    ensure!(
        dist.out.join("SHA256SUMS").is_file(),
        "nothing is there to install: run cargo xtask dist first"
    );
    process::shown(
        Command::new("sha256sum")
            .args(["--quiet", "-c", "SHA256SUMS"])
            .current_dir(&dist.out),
    )?;
    // In the temporary directory, from which no path leads to this checkout.
    let scratch = std::env::temp_dir().join(format!("dist-check-{}", std::process::id()));
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(scratch.join("home"))?;
    let image = scratch.join("image");
    process::shown(
        Command::new("cp")
            .arg("-rL")
            .arg(guest_image::busybox()?)
            .arg(&image),
    )?;
    let checks: [(&str, Check); 4] = [
        ("tarball", tarball),
        ("npm", npm),
        ("wheel", wheel),
        ("deb", deb),
    ];
    let stranger = Stranger {
        dist,
        scratch: scratch.clone(),
        image,
    };
    for (name, check) in checks {
        let said = check(&stranger).with_context(|| format!("installing the {name}"))?;
        ensure!(said.trim() == "aarch64", "{name}: the guest said {said:?}");
        eprintln!("{name}: installed, and a guest ran");
    }
    fs::remove_dir_all(&scratch).context("cannot tidy up")
}

/// Somebody with a home directory and nothing else.
struct Stranger<'a> {
    dist: &'a Dist,
    scratch: PathBuf,
    image: PathBuf,
}

impl Stranger<'_> {
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .env("PATH", SYSTEM)
            .env("HOME", self.scratch.join("home"))
            .env("TMPDIR", &self.scratch)
            .env("TEST_IMAGE", self.reference())
            .current_dir(&self.scratch);
        command
    }

    fn reference(&self) -> String {
        format!("oci:{}", self.image.display())
    }

    /// The archive whose name has these ends.
    fn archive(&self, begin: &str, end: &str) -> Result<PathBuf> {
        let names = names(&self.dist.out)?;
        let found = names
            .iter()
            .find(|name| name.starts_with(begin) && name.ends_with(end));
        let name = found.with_context(|| format!("no {begin}…{end}"))?;
        Ok(self.dist.out.join(name))
    }
}

fn tarball(stranger: &Stranger) -> Result<String> {
    let archive = stranger.archive("supermachine-", "-linux-x64.tar.gz")?;
    process::shown(stranger.command("tar").arg("-xf").arg(archive))?;
    let tool = stranger
        .scratch
        .join(stranger.dist.name())
        .join("bin/supermachine");
    process::output(stranger.command(&tool).arg("doctor"))?;
    let image = stranger.reference();
    process::output(stranger.command(tool).args(["run", &image, "uname", "-m"]))
}

fn npm(stranger: &Stranger) -> Result<String> {
    let app = stranger.scratch.join("app");
    fs::create_dir_all(&app)?;
    fs::write(app.join("package.json"), "{\"private\": true}")?;
    fs::write(app.join("first.mjs"), NODE)?;
    let core = stranger.archive(
        "supermachine-core-",
        &format!("core-{}.tgz", stranger.dist.version),
    )?;
    let platform = stranger.archive("supermachine-core-linux-x64-gnu-", ".tgz")?;
    // Those for other hosts are in no registry yet, and optional.
    process::output(
        stranger
            .command("npm")
            .args(["install", "--no-audit", "--no-fund", "--offline"])
            .args([core, platform])
            .current_dir(&app),
    )?;
    process::output(stranger.command("node").arg("first.mjs").current_dir(&app))
}

fn wheel(stranger: &Stranger) -> Result<String> {
    let environment = stranger.scratch.join("venv");
    process::shown(
        stranger
            .command("python3")
            .args(["-m", "venv"])
            .arg(&environment),
    )?;
    let python = environment.join("bin/python");
    process::output(
        stranger
            .command(&python)
            .args(["-m", "pip", "install", "--quiet", "--no-index"])
            .arg(stranger.archive("supermachine-", ".whl")?),
    )?;
    process::output(stranger.command(python).args(["-c", PYTHON]))
}

fn deb(stranger: &Stranger) -> Result<String> {
    packages::ensure(&[&DEBOOTSTRAP])?;
    let root = stranger.scratch.join("root");
    let release = process::output(
        Command::new("sh").args(["-c", ". /etc/os-release; echo $VERSION_CODENAME"]),
    )?;
    let mut make = Command::new("debootstrap");
    make.args(["--variant=minbase", release.trim()]).arg(&root);
    if let Some(mirror) = mirror()? {
        make.arg(mirror);
    }
    process::output(&mut make)?;
    let archive = stranger.archive("supermachine_", ".deb")?;
    fs::copy(archive, root.join("supermachine.deb"))?;
    process::shown(
        Command::new("cp")
            .arg("-r")
            .arg(&stranger.image)
            .arg(root.join("image")),
    )?;
    let inside = |words: &[&str]| {
        process::output(
            Command::new("chroot")
                .arg(&root)
                .args(words)
                .env_clear()
                .env("PATH", SYSTEM)
                .env("HOME", "/root"),
        )
    };
    inside(&["dpkg", "-i", "/supermachine.deb"])?;
    inside(&["supermachine", "run", "oci:/image", "uname", "-m"])
}

/// Where this machine's packages come from, so that the root's come from there too.
fn mirror() -> Result<Option<String>> {
    let lists = process::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    Ok(lists
        .lines()
        .find(|line| !line.contains("security"))
        .map(str::to_owned))
}
