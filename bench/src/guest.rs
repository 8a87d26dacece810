//! What runs in the guests: programs of ours, compiled here, and Debian's
//! packages, in images that both machines use.

use anyhow::{Context, Result, bail};
use oci_bake::{ImageBuilder, LayerBuilder, LayerCompression, Owner};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use supermachine::Image;

/// Programs in `bench/guest`, each of one file.
const PROGRAMS: &[&str] = &["marker", "timeit", "sysevents", "floats"];
/// What the small image holds of Debian.
const SMALL: &[&str] = &["busybox-static"];
/// What the workloads of `compute` need.
const LARGE: &[&str] = &["bash", "busybox-static", "coreutils", "nodejs", "python3"];
/// Where a Debian package keeps what must not be followed while unpacking
/// another: its systems have these as links into /usr.
const MERGED: &[&str] = &["bin", "lib", "sbin"];

/// Built guest files, all below one directory.
#[derive(Debug)]
pub struct Guest {
    dir: PathBuf,
}

impl Guest {
    /// Compiles the programs and fetches busybox into `dir`.
    pub fn prepare(dir: &Path) -> Result<Self> {
        let programs = dir.join("programs");
        fs::create_dir_all(&programs)?;
        for name in PROGRAMS {
            compile(name, &programs.join(name))?;
        }
        let guest = Self {
            dir: dir.to_owned(),
        };
        let unpacked = guest.unpacked("busybox", SMALL)?;
        let busybox = ["bin/busybox", "usr/bin/busybox"]
            .into_iter()
            .map(|name| unpacked.join(name))
            .find(|path| path.is_file())
            .context("Debian's busybox-static has no busybox")?;
        fs::copy(busybox, programs.join("busybox"))?;
        Ok(guest)
    }

    /// A program built for the guest.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("programs").join(name)
    }

    /// busybox and our programs in /bench.
    pub fn small_image(&self) -> Result<Image> {
        let layer = LayerBuilder::new()
            .dir("bin", 0o755)
            .symlink("bin/sh", "/bench/busybox")
            .symlink("bin/echo", "/bench/busybox");
        self.image("small", layer)
    }

    /// The small image's /bench, and the packages `compute` needs.
    pub fn large_image(&self) -> Result<Image> {
        let unpacked = self.unpacked("debian", LARGE)?;
        let layer = LayerBuilder::new().host_dir(&unpacked, Owner::Fixed { uid: 0, gid: 0 })?;
        self.image("large", layer)
    }

    fn image(&self, name: &str, layer: LayerBuilder) -> Result<Image> {
        let mut layer = layer.dir("bench", 0o755);
        for program in PROGRAMS.iter().copied().chain(["busybox"]) {
            let bytes = fs::read(self.program(program))?;
            layer = layer.file(&format!("bench/{program}"), 0o755, bytes);
        }
        let layout = self.dir.join(format!("image-{name}"));
        if layout.exists() {
            fs::remove_dir_all(&layout)?;
        }
        ImageBuilder::new()
            .layer(layer)
            .compression(LayerCompression::None)
            .cmd(["/bin/sh"])
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/root")
            .write_layout(&layout)?;
        Ok(Image::load(&format!("oci:{}", layout.display()))?)
    }

    /// Debian packages with all they depend on, unpacked once.
    fn unpacked(&self, name: &str, packages: &[&str]) -> Result<PathBuf> {
        let done = self.dir.join(format!("root-{name}"));
        let wanted = packages.join(" ");
        let stamp = self.dir.join(format!("root-{name}.packages"));
        if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
            return Ok(done);
        }
        let debs = self.dir.join(format!("debs-{name}"));
        fs::create_dir_all(debs.join("partial"))?;
        let status = self.dir.join("no-packages-installed");
        fs::write(&status, "")?;
        eprintln!("downloading Debian packages for arm64: {wanted}");
        // Lists of its own, because the host need not know arm64.
        let lists = self.dir.join("apt-lists");
        fs::create_dir_all(lists.join("partial"))?;
        let apt = || {
            let mut apt = Command::new("apt-get");
            apt.args(["-qq", "-y", "--no-install-recommends"])
                .args(["-o", "APT::Architecture=arm64"])
                .args(["-o", "APT::Architectures=arm64"])
                .args(["-o", "Debug::NoLocking=1"])
                .args(["-o", "APT::Sandbox::User=root"]);
            for (key, path) in [
                ("State::status", &status),
                ("State::lists", &lists),
                ("Cache::archives", &debs),
            ] {
                apt.arg("-o").arg(format!("Dir::{key}={}", path.display()));
            }
            apt
        };
        quiet(apt().arg("update"))?;
        quiet(apt().args(["--download-only", "install"]).args(packages))?;
        if done.exists() {
            fs::remove_dir_all(&done)?;
        }
        for link in MERGED {
            fs::create_dir_all(done.join("usr").join(link))?;
            std::os::unix::fs::symlink(format!("usr/{link}"), done.join(link))?;
        }
        for entry in fs::read_dir(&debs)? {
            let package = entry?.path();
            if package.extension().is_some_and(|end| end == "deb") {
                unpack(&package, &done)?;
            }
        }
        fs::write(stamp, wanted)?;
        Ok(done)
    }
}

/// A static arm64 program out of one C file.
fn compile(name: &str, to: &Path) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("guest")
        .join(format!("{name}.c"));
    let compiler = if cfg!(target_arch = "aarch64") {
        "gcc"
    } else {
        "aarch64-linux-gnu-gcc"
    };
    quiet(
        Command::new(compiler)
            .args(["-O2", "-static", "-o"])
            .arg(to)
            .arg(source)
            .arg("-lm"),
    )
}

/// Unpacks a package's files as an installation would, links kept.
fn unpack(package: &Path, to: &Path) -> Result<()> {
    let mut archive = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run dpkg-deb")?;
    let output = archive.stdout.take().context("dpkg-deb has no output")?;
    quiet(
        Command::new("tar")
            .args(["--extract", "--keep-directory-symlink", "--no-same-owner"])
            // Documentation is of no use to a guest that lives for a minute.
            .args(["--exclude=./usr/share/doc", "--exclude=./usr/share/man"])
            .arg("--directory")
            .arg(to)
            .stdin(output),
    )?;
    let status = archive.wait()?;
    if !status.success() {
        bail!("dpkg-deb {}: {status}", package.display());
    }
    Ok(())
}

/// Runs a program whose output matters only when it fails.
fn quiet(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !done.status.success() {
        bail!(
            "{name}: {}: {}",
            done.status,
            String::from_utf8_lossy(&done.stderr).trim_end()
        );
    }
    Ok(())
}
