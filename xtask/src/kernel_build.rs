//! The guest kernel: source to `Image`, once per recipe and source version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use kernel::{ImageHeader, config, recipe};

use crate::lock::Lock;
use crate::{packages, process, prune, workspace};

/// The image under this name inside a finished build directory.
const IMAGE: &str = "Image";

/// Returns the path of the built kernel, building it if no earlier run did.
pub fn ensure() -> Result<PathBuf> {
    let cache = kernel::cache_dir()?;
    // A machine that was handed a finished kernel, by a CI cache say, does not
    // need 150 MB of source to learn that there is nothing to do.
    let installed = packages::installed_version(recipe::SOURCE_PACKAGE)?;
    if installed.is_none() {
        let ready = kernel::assets_dir()?.join(kernel::Asset::Kernel.file_name());
        if ready.is_file() {
            return Ok(ready);
        }
    }
    packages::ensure(&[&packages::kernel()])?;
    let version = packages::installed_version(recipe::SOURCE_PACKAGE)?
        .with_context(|| format!("{} is not installed", recipe::SOURCE_PACKAGE))?;
    let name = format!("kernel-{}", recipe::build_hash(&version));
    let finished = kernel::cached(&name)?;
    let image = finished.join(IMAGE);
    kernel::mark_used(&finished);
    if image.is_file() {
        return Ok(image);
    }
    let _lock = Lock::take(&cache.join(format!("{name}.lock")), "guest kernel")?;
    if image.is_file() {
        return Ok(image);
    }
    let work = Work {
        dir: cache.join(format!("{name}.partial")),
        log: cache.join(format!("{name}.log")),
    };
    let start = Instant::now();
    eprintln!(
        "building the guest kernel from {} {version}, some minutes the first time; log: {}",
        recipe::SOURCE_PACKAGE,
        work.log.display()
    );
    work.build(&version)?;
    fs::rename(work.result(), &finished)
        .with_context(|| format!("cannot create {}", finished.display()))?;
    work.clear()?;
    prune::old_builds(&cache, "kernel", &finished);
    // What other versions of this program still use, they have marked.
    prune::old_builds(&cache, "assets", &kernel::assets_dir()?);
    eprintln!("guest kernel built in {} s", start.elapsed().as_secs());
    Ok(image)
}

/// A build in progress; the lock makes its directory ours.
struct Work {
    dir: PathBuf,
    log: PathBuf,
}

impl Work {
    fn build(&self, version: &str) -> Result<()> {
        // What a killed build left may be half of anything.
        self.clear()?;
        let out = self.dir.join("build");
        let result = self.result();
        for dir in [&out, &result] {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        fs::write(&self.log, "")?;
        process::logged(
            Command::new("tar")
                .arg("-xf")
                .arg(recipe::SOURCE_ARCHIVE)
                .arg("-C")
                .arg(&self.dir),
            &self.log,
        )?;
        self.patch()?;
        self.configure(&out)?;
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        self.make(&out, &[&format!("-j{jobs}"), recipe::BUILD_TARGET])?;

        let image = out.join(recipe::IMAGE);
        let bytes = fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?;
        if let Err(reason) = ImageHeader::parse(&bytes) {
            bail!("the build gave no kernel: {reason}");
        }
        kernel::copy_durably(&out.join(".config"), &result.join("config"))?;
        kernel::copy_durably(&out.join("System.map"), &result.join("System.map"))?;
        kernel::write_durably(version.as_bytes(), &result.join("source-version"))?;
        kernel::write_durably(bytes.as_slice(), &result.join(IMAGE))?;
        Ok(())
    }

    /// Applies our changes. Without fuzz: a line that has come into other
    /// surroundings is for a person to look at.
    fn patch(&self) -> Result<()> {
        for (name, text) in recipe::PATCHES {
            let file = self.dir.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            process::logged(
                Command::new("patch")
                    .args(["--strip=1", "--fuzz=0", "--forward", "--batch", "--input"])
                    .arg(&file)
                    .arg("--directory")
                    .arg(self.dir.join(recipe::SOURCE_DIR)),
                &self.log,
            )?;
        }
        Ok(())
    }

    /// Applies the fragment to the base and insists that all of it took.
    fn configure(&self, out: &Path) -> Result<()> {
        let fragment = out.join("supermachine.config");
        fs::write(&fragment, config::FRAGMENT)?;
        let all = format!("KCONFIG_ALLCONFIG={}", fragment.display());
        self.make(out, &[&all, recipe::BASE_TARGET])?;
        self.make(out, &[recipe::SETTLE_TARGET])?;
        let settled = fs::read_to_string(out.join(".config"))?;
        let unmet = config::unmet(config::FRAGMENT, &settled);
        if !unmet.is_empty() {
            let lines: Vec<String> = unmet.iter().map(|one| format!("  {one}")).collect();
            bail!(
                "the configuration does not honour our fragment:\n{}",
                lines.join("\n")
            );
        }
        Ok(())
    }

    fn make(&self, out: &Path, arguments: &[&str]) -> Result<()> {
        let mut make = Command::new("make");
        make.arg("-C")
            .arg(self.dir.join(recipe::SOURCE_DIR))
            .arg(format!("O={}", out.display()));
        for (name, value) in recipe::MAKE_VARIABLES {
            make.arg(format!("{name}={value}"));
        }
        if !workspace::host_is_arm64() {
            make.arg(format!("CROSS_COMPILE={}", recipe::CROSS_COMPILE));
        }
        // A make or cargo above us must not hand down its flags.
        make.env_remove("MAKEFLAGS")
            .env_remove("MFLAGS")
            .env_remove("MAKELEVEL");
        process::logged(make.args(arguments), &self.log)
    }

    fn result(&self) -> PathBuf {
        self.dir.join("result")
    }

    fn clear(&self) -> Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }
}
