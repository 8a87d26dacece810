//! What others wrote of what is in the programs: their licences, and a bill of materials
//! as CycloneDX has it.

use crate::{process, workspace};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// How files with a licence begin.
const LICENCE_NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];
/// Crates in a program that are not in another by that line of `cargo tree`.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A crate that somebody else wrote.
struct Part {
    version: String,
    licence: String,
    directory: String,
}

/// Writes both to a directory.
pub fn write(dir: &Path, version: &str) -> Result<()> {
    let parts = parts()?;
    let mut text = String::from(
        "Crates in the programs of this package, with their licences.\n\
         The guest's kernel has its own: see NOTICE.kernel.\n",
    );
    for (name, part) in &parts {
        write!(
            text,
            "\n{:=<72}\n{name} {}: {}\n",
            "", part.version, part.licence
        )?;
        for file in super::names(Path::new(&part.directory))? {
            let upper = file.to_ascii_uppercase();
            if LICENCE_NAMES.iter().any(|start| upper.starts_with(start)) {
                let path = Path::new(&part.directory).join(&file);
                if path.is_file() {
                    let words = fs::read(&path).with_context(|| path.display().to_string())?;
                    write!(text, "\n--- {file}\n\n{}", String::from_utf8_lossy(&words))?;
                }
            }
        }
    }
    fs::write(dir.join("THIRD-PARTY"), text)?;

    let components: Vec<Value> = parts
        .iter()
        .map(|(name, part)| {
            json!({
                "type": "library",
                "name": name,
                "version": part.version,
                "purl": format!("pkg:cargo/{name}@{}", part.version),
                "licenses": [{"expression": part.licence}],
            })
        })
        .collect();
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "type": "application", "name": "supermachine", "version": version,
        }},
        "components": components,
    });
    let text = serde_json::to_string_pretty(&bill)?;
    fs::write(dir.join("sbom.cdx.json"), text).context("cannot write the bill of materials")
}

/// Crates of registries that the programs have in them, by name; two versions of one are
/// `NAME` and `NAME VERSION`.
fn parts() -> Result<BTreeMap<String, Part>> {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments).current_dir(workspace::root());
        process::output(&mut command)
    };
    let tree = cargo(&[
        "tree",
        "--locked",
        "-p",
        "supermachine",
        "--target",
        TARGET,
        "-e",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ])?;
    let metadata: Value = serde_json::from_str(&cargo(&[
        "metadata",
        "--locked",
        "--format-version",
        "1",
        "--filter-platform",
        TARGET,
    ])?)?;
    let mut parts = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        let (name, version) = (text("name"), text("version"));
        let line = format!("{name} v{version}");
        let is_ours = package["source"].is_null();
        let is_in = |said: &str| said == line || said.starts_with(&format!("{line} "));
        if is_ours || !tree.lines().any(is_in) {
            continue;
        }
        let manifest = text("manifest_path");
        let directory = Path::new(&manifest)
            .parent()
            .context("a manifest's place")?;
        let part = Part {
            version: version.clone(),
            // Of before cargo wanted an expression.
            licence: text("license").replace('/', " OR "),
            directory: directory.display().to_string(),
        };
        let taken = parts.contains_key(&name);
        parts.insert(
            if taken {
                format!("{name} {version}")
            } else {
                name
            },
            part,
        );
    }
    Ok(parts)
}
