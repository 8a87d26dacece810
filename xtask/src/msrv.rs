//! `cargo xtask msrv`: checks each library with the oldest compiler that its
//! manifest promises. The suite does not, since it needs rustup and a compiler for
//! each; clippy there refuses what is newer in the standard library.

use crate::{process, workspace};
use anyhow::{Context, Result, ensure};
use std::process::Command;

pub fn run(_arguments: &[String]) -> Result<()> {
    ensure!(
        process::exists("rustup"),
        "rustup is missing, which installs older compilers"
    );
    let target = workspace::target_dir()?.join("msrv");
    for (name, version) in workspace::oldest_compilers()? {
        eprintln!("{name} with Rust {version}");
        let mut check = Command::new("rustup");
        check
            .args(["run", "--install", &format!("{version}.0")])
            .args(["cargo", "check", "--locked", "--quiet", "-p", &name])
            .current_dir(workspace::root())
            .env("CARGO_TARGET_DIR", &target)
            // What a compiler of today says of us is not about this one.
            .env_remove("RUSTFLAGS");
        process::shown(&mut check).with_context(|| {
            format!("{name} does not build with Rust {version}; raise its rust-version")
        })?;
    }
    Ok(())
}
