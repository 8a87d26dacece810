//! The step `mcp` of `cargo xtask test`: `supermachine mcp` against the protocol's
//! official client.

use crate::{guest_image, packages, process, workspace};
use anyhow::{Context, Result};
use std::process::Command;

/// The client, from PyPI.
const CLIENT: (&str, &str) = ("mcp", "2.3.0");

/// The step of `cargo xtask test`; the release build is there.
pub fn test() -> Result<()> {
    packages::ensure(&[&packages::PYTHON])?;
    let python = packages::from_pypi(CLIENT.0, CLIENT.1)?.join("python");
    let target = workspace::target_dir()?;
    let scratch = target.join("mcp-test");
    let _ = std::fs::remove_dir_all(&scratch);
    std::fs::create_dir_all(&scratch)?;
    let image = format!("oci:{}", guest_image::busybox()?.display());
    process::shown(
        Command::new(python)
            .args(["-m", "unittest", "discover", "-s"])
            .arg(workspace::root().join("supermachine/tests/mcp"))
            .current_dir(&scratch)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("SUPERMACHINE", target.join("release/supermachine"))
            .env("SUPERMACHINE_HOME", scratch.join("home"))
            .env("TMPDIR", &scratch)
            .env("TEST_IMAGE", image),
    )?;
    std::fs::remove_dir_all(&scratch).context("cannot tidy up")
}
