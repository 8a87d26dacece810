//! `cargo xtask check`: what the house rules say and no compiler checks.

mod circles;
mod documents;
mod drift;
mod sources;

use crate::{process, workspace};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::process::Command;

/// A crate and the workspace crates it may depend on; the layers of
/// docs/architecture.md, arrows downwards only.
const LAYERS: &[(&str, u8, &[&str])] = &[
    ("supermachine-codesign", 1, &[]),
    ("supermachine-exec-proto", 1, &[]),
    ("supermachine-hvf", 1, &[]),
    ("supermachine-kernel", 1, &[]),
    ("supermachine-net", 1, &[]),
    ("supermachine-oci-bake", 1, &[]),
    ("supermachine-pool", 1, &[]),
    ("supermachine-softhv", 2, &["supermachine-hvf"]),
    ("supermachine-devices", 2, &[]),
    ("supermachine-snapshot", 2, &[]),
    ("supermachine-init-shim", 2, &["supermachine-exec-proto"]),
    (
        "supermachine-vmm-core",
        3,
        &[
            "supermachine-hvf",
            "supermachine-softhv",
            "supermachine-devices",
            "supermachine-snapshot",
        ],
    ),
    ("supermachine-fsd", 3, &["supermachine-devices"]),
    ("supermachine-fuse", 3, &["supermachine-devices"]),
    ("supermachine-oci-pull", 4, &["supermachine-oci-bake"]),
    (
        "supermachine",
        4,
        &[
            "supermachine-broker",
            "supermachine-codesign",
            "supermachine-exec-proto",
            "supermachine-kernel",
            "supermachine-net",
            "supermachine-oci-bake",
            "supermachine-oci-pull",
            "supermachine-pool",
            "supermachine-snapshot",
            "supermachine-softhv",
            "supermachine-vmm-core",
        ],
    ),
    ("supermachine-bindings-core", 5, &["supermachine"]),
    ("supermachine-node", 5, &["supermachine-bindings-core"]),
    ("supermachine-python", 5, &["supermachine-bindings-core"]),
];

/// Layer of the crates nothing depends on: tests, benches, xtask.
const TOP_LAYER: u8 = 5;
/// Layers that must build without a C compiler.
const NO_C_LAYERS: std::ops::RangeInclusive<u8> = 1..=3;
/// Build dependencies that mean C, and the attribute that means a C library.
const C_BUILDERS: &[&str] = &["cc", "cmake", "bindgen", "pkg-config"];

/// Crates whose `links` names no library; each was looked at.
const RUST_ONLY_LINKS: &[&str] = &["rayon-core", "wasm-bindgen-shared"];

/// Crates of which two versions must never be in one build.
const SINGLE_VERSION: &[&str] = &[
    "event-manager",
    "linux-loader",
    "vhost",
    "virtio-bindings",
    "virtio-queue",
    "virtio-vsock",
    "vm-fdt",
    "vm-memory",
    "vm-superio",
    "vmm-sys-util",
];

pub fn run(_arguments: &[String]) -> Result<()> {
    let mut problems = Vec::new();
    let metadata = metadata()?;
    layers(&metadata, &mut problems)?;
    versions(&metadata, &mut problems)?;
    let root = workspace::root();
    sources::check(&root, &mut problems)?;
    circles::check(&root, &mut problems)?;
    documents::check(&root, &mut problems)?;
    drift::check(&root, &mut problems)?;
    if problems.is_empty() {
        eprintln!("check: layers, versions, sources and documents are as the house rules say");
        return Ok(());
    }
    bail!("{}", problems.join("\n"));
}

fn metadata() -> Result<Value> {
    let text = process::output(
        Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked"])
            .current_dir(workspace::root()),
    )?;
    serde_json::from_str(&text).context("cargo metadata")
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key]
        .as_array()
        .with_context(|| format!("cargo metadata has no {key}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Packages of the workspace, by name.
fn members(metadata: &Value) -> Result<BTreeMap<&str, &Value>> {
    let ids: BTreeSet<&str> = list(metadata, "workspace_members")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    Ok(list(metadata, "packages")?
        .iter()
        .filter(|package| ids.contains(text(package, "id")))
        .map(|package| (text(package, "name"), package))
        .collect())
}

fn layers(metadata: &Value, problems: &mut Vec<String>) -> Result<()> {
    let members = members(metadata)?;
    for (name, package) in &members {
        let known = LAYERS.iter().find(|(crate_name, ..)| crate_name == name);
        for dependency in list(package, "dependencies")? {
            let on = text(dependency, "name");
            // A test may use what the crate itself must not.
            if !members.contains_key(on) || text(dependency, "kind") == "dev" {
                continue;
            }
            match known {
                Some((_, _, allowed)) if allowed.contains(&on) => (),
                Some((_, layer, _)) => {
                    problems.push(format!("{name} (layer {layer}) must not depend on {on}"));
                }
                None if LAYERS.iter().any(|(crate_name, ..)| *crate_name == on) => (),
                None => problems.push(format!(
                    "{name} depends on {on}, which is in layer {TOP_LAYER} itself"
                )),
            }
        }
        if known.is_some_and(|(_, layer, _)| NO_C_LAYERS.contains(layer)) {
            no_c(metadata, package, problems)?;
        }
    }
    Ok(())
}

/// Follows normal and build dependencies of `package` and looks for C.
fn no_c(metadata: &Value, package: &Value, problems: &mut Vec<String>) -> Result<()> {
    let packages: BTreeMap<&str, &Value> = list(metadata, "packages")?
        .iter()
        .map(|package| (text(package, "id"), package))
        .collect();
    let nodes: BTreeMap<&str, &Value> = list(&metadata["resolve"], "nodes")?
        .iter()
        .map(|node| (text(node, "id"), node))
        .collect();
    let mut seen = BTreeSet::new();
    let mut queue = VecDeque::from([text(package, "id")]);
    while let Some(id) = queue.pop_front() {
        if !seen.insert(id) {
            continue;
        }
        let name = packages.get(id).map_or("", |package| text(package, "name"));
        let links = packages
            .get(id)
            .is_some_and(|package| package["links"].is_string());
        if C_BUILDERS.contains(&name) || (links && !is_rust_only(name)) {
            problems.push(format!(
                "{} must build without C, and reaches {name}",
                text(package, "name")
            ));
        }
        let Some(node) = nodes.get(id) else {
            continue;
        };
        for dependency in list(node, "deps")? {
            let dev_only = list(dependency, "dep_kinds")?
                .iter()
                .all(|kind| text(kind, "kind") == "dev");
            if !dev_only {
                queue.push_back(text(dependency, "pkg"));
            }
        }
    }
    Ok(())
}

/// Crates that set `links` only to be unique in a build.
fn is_rust_only(name: &str) -> bool {
    RUST_ONLY_LINKS.contains(&name)
}

fn versions(metadata: &Value, problems: &mut Vec<String>) -> Result<()> {
    for name in SINGLE_VERSION {
        let found: BTreeSet<&str> = list(metadata, "packages")?
            .iter()
            .filter(|package| text(package, "name") == *name)
            .map(|package| text(package, "version"))
            .collect();
        if found.len() > 1 {
            problems.push(format!(
                "{name} is there in {found:?}; one version is the rule"
            ));
        }
    }
    Ok(())
}
