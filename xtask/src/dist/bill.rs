//! What others wrote of what is in the programs: their licences, and a bill of materials
//! as CycloneDX has it.

use super::Dist;
use crate::process;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How files with a licence begin.
const LICENCE_NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];
/// The crate of the guest's init, and what it is built for.
const INIT: (&str, &str) = ("supermachine-init-shim", "aarch64-unknown-linux-gnu");

/// A crate that somebody else wrote.
struct Part {
    licence: String,
    directory: PathBuf,
}

/// Parts by name and version.
type Parts = BTreeMap<(String, String), Part>;

/// Writes both to a directory, for programs of `crates` and for what guests boot from.
pub fn write(dist: &Dist, dir: &Path, crates: &[&str], kernel: &str) -> Result<()> {
    let mut wanted = BTreeSet::new();
    for name in crates {
        wanted.append(&mut linked(dist, name, dist.platform.rust)?);
    }
    wanted.append(&mut linked(dist, INIT.0, INIT.1)?);
    let parts = parts(dist, &wanted)?;
    fs::write(dir.join("THIRD-PARTY"), licences(&parts)?)?;
    let text = serde_json::to_string_pretty(&bill(&parts, &dist.version, kernel))?;
    fs::write(dir.join("sbom.cdx.json"), text).context("cannot write the bill of materials")
}

fn licences(parts: &Parts) -> Result<String> {
    let mut text = String::from(
        "Crates in the programs of this package, with their licences. Rust's standard\n\
         library is in them too: MIT OR Apache-2.0. The guest's kernel has its own: see\n\
         NOTICE.kernel.\n",
    );
    for ((name, version), part) in parts {
        write!(text, "\n{:=<72}\n{name} {version}: {}\n", "", part.licence)?;
        for file in super::names(&part.directory)? {
            let upper = file.to_ascii_uppercase();
            let path = part.directory.join(&file);
            if LICENCE_NAMES.iter().any(|start| upper.starts_with(start)) && path.is_file() {
                let words = fs::read(&path).with_context(|| path.display().to_string())?;
                write!(text, "\n--- {file}\n\n{}", String::from_utf8_lossy(&words))?;
            }
        }
    }
    Ok(text)
}

fn bill(parts: &Parts, version: &str, kernel: &str) -> Value {
    let mut components: Vec<Value> = parts
        .iter()
        .map(|((name, version), part)| {
            json!({
                "type": "library",
                "name": name,
                "version": version,
                "purl": format!("pkg:cargo/{name}@{version}"),
                "licenses": [{"expression": part.licence}],
            })
        })
        .collect();
    components.push(json!({
        "type": "operating-system",
        "name": "linux",
        "version": kernel,
        "purl": format!("pkg:deb/debian/linux@{kernel}"),
        "licenses": [{"expression": "GPL-2.0-only WITH Linux-syscall-note"}],
    }));
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "type": "application", "name": "supermachine", "version": version,
        }},
        "components": components,
    })
}

fn cargo(dist: &Dist, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(env!("CARGO"));
    process::output(command.args(arguments).current_dir(&dist.root))
}

/// Names and versions of what is in the programs of a crate, as `NAME vVERSION`.
fn linked(dist: &Dist, name: &str, target: &str) -> Result<BTreeSet<String>> {
    let tree = cargo(
        dist,
        &[
            "tree",
            "--locked",
            "-p",
            name,
            "--target",
            target,
            "-e",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ],
    )?;
    let lines = tree.lines().filter(|line| !line.is_empty());
    // A path or a mark may follow.
    Ok(lines
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect())
}

/// Those of `wanted` that others wrote.
fn parts(dist: &Dist, wanted: &BTreeSet<String>) -> Result<Parts> {
    let metadata = cargo(dist, &["metadata", "--locked", "--format-version", "1"])?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let mut parts = Parts::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        let (name, version) = (text("name"), text("version"));
        let is_ours = package["source"].is_null();
        if is_ours || !wanted.contains(&format!("{name} v{version}")) {
            continue;
        }
        // Of before cargo wanted an expression.
        let licence = text("license").replace('/', " OR ");
        ensure!(!licence.is_empty(), "{name} {version} names no licence");
        let directory = PathBuf::from(text("manifest_path")).with_file_name("");
        parts.insert((name, version), Part { licence, directory });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_names_each_part_and_the_kernel() {
        let part = Part {
            licence: "MIT OR Apache-2.0".to_owned(),
            directory: PathBuf::new(),
        };
        let parts = Parts::from([(("tar".to_owned(), "0.4.44".to_owned()), part)]);
        let bill = bill(&parts, "1.2.3", "6.12.9-1");
        let named: Vec<&str> = bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| component["purl"].as_str().unwrap())
            .collect();
        assert_eq!(
            named,
            ["pkg:cargo/tar@0.4.44", "pkg:deb/debian/linux@6.12.9-1"]
        );
        assert_eq!(bill["metadata"]["component"]["version"], "1.2.3");
    }
}
