//! The packages for npm: `@supermachine/core`, and what it has for this host in another.

use super::{Dist, names, put};
use crate::{assets, process};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The crate with the native part.
pub const CRATE: &str = "supermachine-node";

/// Makes both.
pub fn packages(dist: &Dist) -> Result<()> {
    let scratch = dist.scratch.join("npm");
    let core = scratch.join("core");
    let from = dist.root.join("node");
    let text = fs::read_to_string(from.join("package.json"))?;
    let description: Value = serde_json::from_str(&text)?;
    let name = format!("@supermachine/core-{}-gnu", dist.platform.npm);
    ensure!(
        description["version"] == *dist.version
            && description["optionalDependencies"][&name] == *dist.version,
        "node/package.json is not of version {}, or does not name {name}",
        dist.version
    );
    put(&from.join("package.json"), &core.join("package.json"))?;
    for file in description["files"].as_array().into_iter().flatten() {
        let file = file.as_str().context("a file's name")?;
        put(&from.join(file), &core.join(file))?;
    }
    pack(dist, &core)?;

    let (os, cpu) = dist.platform.npm.split_once('-').context("a platform")?;
    let platform = scratch.join("platform");
    dist.licences(&platform, &["supermachine", CRATE])?;
    let assets = assets::ensure()?;
    for (from, name) in [
        (dist.program("libsupermachine_node.so"), "supermachine.node"),
        (dist.program("supermachine-worker"), "supermachine-worker"),
        (assets.kernel, "kernel"),
        (assets.init_oci, "init-oci"),
    ] {
        put(&from, &platform.join(name))?;
    }
    let description = json!({
        "name": name,
        "version": dist.version,
        "description": format!("What @supermachine/core needs on {os} {cpu}: native part, worker, and the guest's kernel"),
        "license": "Apache-2.0 AND GPL-2.0-only",
        "repository": description["repository"],
        "engines": description["engines"],
        "os": [os],
        "cpu": [cpu],
        "libc": ["glibc"],
        "files": names(&platform)?,
    });
    let text = serde_json::to_string_pretty(&description)?;
    fs::write(platform.join("package.json"), text)?;
    pack(dist, &platform)
}

/// What `npm pack` makes, with its fixed times.
fn pack(dist: &Dist, package: &Path) -> Result<()> {
    process::output(
        Command::new("npm")
            .args(["pack", "--silent", "--ignore-scripts", "--pack-destination"])
            .arg(&dist.out)
            .current_dir(package),
    )
    .map(drop)
}
