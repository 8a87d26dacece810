//! With the feature `bundled`: compresses the built kernel and init for `include_bytes!`.

#[cfg(not(feature = "bundled"))]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}

#[cfg(feature = "bundled")]
fn main() -> std::io::Result<()> {
    bundle::make()
}

#[cfg(feature = "bundled")]
mod bundle {
    use flate2::{Compression, GzBuilder};
    use std::env;
    use std::fs::File;
    use std::io::{self, BufReader};
    use std::path::{Path, PathBuf};

    /// Names the directory with the files.
    const VARIABLE: &str = "SUPERMACHINE_BUNDLE";
    const FILES: [&str; 2] = ["kernel", "init-oci"];

    pub fn make() -> io::Result<()> {
        println!("cargo::rerun-if-changed=build.rs");
        println!("cargo::rerun-if-env-changed={VARIABLE}");
        let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
        let Some(from) = directory(&out) else {
            println!(
                "cargo::error=the feature `bundled` puts the built kernel and init into the \
                 program: build them with `cargo xtask assets`, or name the directory that has \
                 `kernel` and `init-oci` in {VARIABLE}"
            );
            return Ok(());
        };
        for name in FILES {
            let path = from.join(name);
            println!("cargo::rerun-if-changed={}", path.display());
            compress(&path, &out.join(name))?;
        }
        Ok(())
    }

    /// The directory that is named; else that of a published package; else the one in the
    /// target directory of this workspace.
    fn directory(out: &Path) -> Option<PathBuf> {
        if let Some(named) = env::var_os(VARIABLE) {
            return Some(named.into());
        }
        let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
        let targets = out.ancestors().map(|above| above.join("assets"));
        std::iter::once(package.join("bundle"))
            .chain(targets)
            .find(|dir| FILES.iter().all(|name| dir.join(name).is_file()))
    }

    fn compress(from: &Path, to: &Path) -> io::Result<()> {
        let mut source = BufReader::new(File::open(from)?);
        // No time in it: the same files make the same program.
        let mut encoder = GzBuilder::new().write(File::create(to)?, Compression::best());
        io::copy(&mut source, &mut encoder)?;
        encoder.finish()?.sync_all()
    }
}
