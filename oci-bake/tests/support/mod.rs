//! What the tests of this directory share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use supermachine_oci_bake::{BakeError, BakeOptions, BakedImage, Reference, Store, bake};

/// A directory that is removed at the end of the test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = std::env::temp_dir().join(format!(
            "oci-bake-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn store(&self) -> Store {
        Store::open(self.path("cache")).unwrap()
    }

    pub fn bake(&self, reference: &str) -> Result<BakedImage, BakeError> {
        bake(
            &Reference::parse(reference).unwrap(),
            &BakeOptions::default(),
            &self.store(),
        )
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a tool that `cargo xtask test` installs; fails the test when the tool
/// fails or is not there.
pub fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (`cargo xtask test` installs it)"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What `unsquashfs` sees: mode, owner, size or device, path (and target) of
/// each inode, dates left out.
pub fn listing(image: &Path) -> Vec<String> {
    let out = run("unsquashfs", &["-lln", text(image)]);
    let out = String::from_utf8(out).unwrap();
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    out.lines()
        .filter(|l| l.contains("squashfs-root"))
        .map(line)
        .map(|line| line.replace("squashfs-root", ""))
        .collect()
}

/// The error and its causes, as a program would print them.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
