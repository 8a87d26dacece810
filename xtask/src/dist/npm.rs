//! The packages for npm: `@supermachine/core`, and what it has for this host in another.

use super::Dist;
use crate::{assets, process, workspace};
use anyhow::{Context, Result};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The crate with the native part.
pub const CRATE: &str = "supermachine-node";
/// The name of the package for this host, without its scope.
const PLATFORM: &str = "core-linux-x64-gnu";

/// Makes both.
pub fn packages(dist: &Dist) -> Result<()> {
    let scratch = dist.scratch.join("npm");
    let core = scratch.join("core");
    fs::create_dir_all(&core)?;
    let from = workspace::root().join("node");
    for name in [
        "package.json",
        "index.js",
        "index.mjs",
        "index.d.ts",
        "README.md",
        "LICENSE",
    ] {
        fs::copy(from.join(name), core.join(name)).with_context(|| name.to_owned())?;
    }
    pack(dist, &core)?;

    let platform = scratch.join(PLATFORM);
    fs::create_dir_all(&platform)?;
    let description = json!({
        "name": format!("@supermachine/{PLATFORM}"),
        "version": dist.version,
        "description": "Native part of @supermachine/core for Linux on x86-64, with the guest's kernel",
        "license": "Apache-2.0 AND GPL-2.0-only",
        "os": ["linux"],
        "cpu": ["x64"],
        "libc": ["glibc"],
        "files": [
            "supermachine.node", "supermachine-worker", "kernel", "init-oci", "NOTICE",
            "NOTICE.kernel", "LICENSE", "THIRD-PARTY",
        ],
    });
    fs::write(
        platform.join("package.json"),
        serde_json::to_string_pretty(&description)?,
    )?;
    let root = workspace::root();
    let doc = dist
        .scratch
        .join(dist.name())
        .join("share/doc/supermachine");
    let assets = assets::ensure()?;
    for (from, name) in [
        (dist.program("libsupermachine_node.so"), "supermachine.node"),
        (dist.program("supermachine-worker"), "supermachine-worker"),
        (assets.kernel, "kernel"),
        (assets.init_oci, "init-oci"),
        (root.join("LICENSE"), "LICENSE"),
        (root.join("NOTICE"), "NOTICE"),
        (root.join("kernel/NOTICE"), "NOTICE.kernel"),
        (doc.join("THIRD-PARTY"), "THIRD-PARTY"),
    ] {
        fs::copy(&from, platform.join(name)).with_context(|| from.display().to_string())?;
    }
    pack(dist, &platform)
}

/// What `npm pack` makes, with its fixed times.
fn pack(dist: &Dist, package: &Path) -> Result<()> {
    process::output(
        Command::new("npm")
            .args(["pack", "--silent", "--pack-destination"])
            .arg(&dist.out)
            .current_dir(package),
    )
    .map(drop)
}
