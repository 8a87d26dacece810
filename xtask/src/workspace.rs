//! Where this workspace and its build output are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// The directory of the root `Cargo.toml`.
///
/// As `cargo run` tells it; the path compiled in is only for a binary started
/// by hand, since checkouts that share a target directory share that binary.
pub fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent().map_or_else(|| own.clone(), Path::to_path_buf)
}

/// Whether this machine runs the guest's architecture, so that its own
/// compilers do.
pub fn host_is_arm64() -> bool {
    std::env::consts::ARCH == "aarch64"
}

/// What cargo says of the workspace, dependencies left out.
fn metadata() -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    process::output(Command::new(cargo).current_dir(root()).args([
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version",
        "1",
    ]))
}

/// The target directory, as cargo itself resolves it.
pub fn target_dir() -> Result<PathBuf> {
    json_string(&metadata()?, "target_directory")
        .map(PathBuf::from)
        .context("cargo metadata names no target directory")
}

/// How cargo builds something.
#[derive(Clone, Copy, Debug)]
pub enum Profile {
    /// For debugging.
    Dev,
    /// For use.
    Release,
}

impl Profile {
    /// Its name for cargo.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }

    /// Where cargo puts what it has built so.
    pub fn dir(self) -> Result<PathBuf> {
        Ok(target_dir()?.join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }))
    }
}

/// The directory of one of the workspace's packages.
pub fn directory_of(package: &str) -> Result<PathBuf> {
    let metadata: serde_json::Value = serde_json::from_str(&metadata()?)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages
        .filter(|one| one["name"] == package)
        .find_map(|one| one["manifest_path"].as_str());
    let manifest = manifest.with_context(|| format!("no package {package}"))?;
    Ok(Path::new(manifest).with_file_name(""))
}

/// The version of one of the workspace's packages.
pub fn version_of(package: &str) -> Result<String> {
    let metadata: serde_json::Value = serde_json::from_str(&metadata()?)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let version = packages
        .filter(|one| one["name"] == package)
        .find_map(|one| one["version"].as_str());
    let version = version.with_context(|| format!("no package {package}"))?;
    Ok(version.to_owned())
}

/// Names of the packages that are to be published.
pub fn published() -> Result<Vec<String>> {
    let packages = oldest_compilers()?.into_iter();
    Ok(packages.map(|(name, _)| name).collect())
}

/// The same with the oldest Rust that each promises to build with, as `1.91`.
pub fn oldest_compilers() -> Result<Vec<(String, String)>> {
    let metadata: serde_json::Value = serde_json::from_str(&metadata()?)?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata names no packages")?;
    packages
        .iter()
        // `publish = false` is an empty list of registries.
        .filter(|package| package["publish"].is_null())
        .map(|package| {
            let text = |key: &str| package[key].as_str().map(str::to_owned);
            let name = text("name").context("a package without a name")?;
            let version = text("rust_version");
            let version = version.with_context(|| format!("{name} has no rust-version"))?;
            Ok((name, version))
        })
        .collect()
}

/// The value of a string member in machine-written JSON. Enough for one path.
fn json_string(json: &str, name: &str) -> Option<String> {
    let key = format!("\"{name}\":\"");
    let (_, rest) = json.rsplit_once(&key)?;
    let mut value = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => match chars.next()? {
                escaped @ ('"' | '\\' | '/') => value.push(escaped),
                // Control characters and \u escapes: not in a sane path.
                _ => return None,
            },
            plain => value.push(plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_directory_is_read_from_metadata() {
        let json = r#"{"packages":[],"target_directory":"/a \"b\"/c\\d","version":1}"#;
        assert_eq!(
            json_string(json, "target_directory").as_deref(),
            Some(r#"/a "b"/c\d"#)
        );
        assert_eq!(json_string(json, "absent"), None);
        assert_eq!(json_string(r#"{"x":"unterminated"#, "x"), None);
    }
}
