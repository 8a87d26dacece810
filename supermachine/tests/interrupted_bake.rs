//! Signals while an image's layers are still being converted.

mod support;

use oci_bake::{ImageBuilder, LayerBuilder};
use rustix::process::Signal;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use support::{PATIENCE, Sandbox, finish, noise, signal, wait};

/// Long enough for the layer to be caught half written.
const LAYER_BYTES: usize = 96 << 20;

/// An image with a large layer, and a cache of its own for that.
struct Large {
    sandbox: Sandbox,
    reference: String,
    cache: PathBuf,
}

impl Large {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let dir = sandbox.files.join("image");
        let layer = LayerBuilder::new().file("big", 0o644, noise(LAYER_BYTES, 1));
        let builder = ImageBuilder::new().cmd(["/big"]).layer(layer);
        builder.write_layout(&dir).unwrap();
        Self {
            reference: format!("oci:{}", dir.display()),
            cache: sandbox.files.join("cache"),
            sandbox,
        }
    }

    fn command(&self, name: &str) -> Command {
        let mut command = self.sandbox.command(&[name, &self.reference]);
        command.env("XDG_CACHE_HOME", &self.cache);
        command
    }

    /// Files in the cache that have something in them.
    fn files(&self) -> Vec<OsString> {
        let layers = self.cache.join("supermachine/images/layers");
        let entries = std::fs::read_dir(layers).into_iter().flatten();
        let written = |entry: &DirEntry| entry.metadata().is_ok_and(|m| m.len() > 0);
        let names = entries.flatten().filter(written).map(|e| e.file_name());
        names.collect()
    }

    fn unfinished(&self) -> Vec<OsString> {
        let files = self.files().into_iter();
        files
            .filter(|name| name.as_encoded_bytes().ends_with(b".tmp"))
            .collect()
    }

    /// Starts to run the image, and comes back in the middle of the layer.
    fn begin(&self) -> Child {
        let child = self.command("run").spawn().unwrap();
        let begun = Instant::now();
        while self.files().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "no bake began");
            std::thread::sleep(Duration::from_millis(1));
        }
        child
    }
}

fn interrupted_by(which: Signal, status: i32) {
    let large = Large::new();
    let child = large.begin();
    signal(child.id(), which);
    let finished = finish(child, Duration::from_secs(30));
    assert_eq!(finished.code(), status, "{}", finished.err());
    assert_eq!(finished.err(), "");
    assert_eq!(large.unfinished(), Vec::<OsString>::new());
    large.sandbox.assert_clean();
}

#[test]
fn interrupted_bake_leaves_no_files() {
    interrupted_by(Signal::INT, 130);
}

#[test]
fn terminated_bake_leaves_no_files() {
    interrupted_by(Signal::TERM, 143);
}

#[test]
fn what_a_killed_bake_leaves_is_gone_after_the_next() {
    let large = Large::new();
    let mut child = large.begin();
    signal(child.id(), Signal::KILL);
    wait(&mut child, Duration::from_secs(5));
    assert_eq!(large.unfinished().len(), 1);
    let next = finish(large.command("bake").spawn().unwrap(), PATIENCE);
    assert_eq!(next.code(), 0, "{}", next.err());
    assert_eq!(large.unfinished(), Vec::<OsString>::new());
    assert_eq!(large.files().len(), 1, "{:?}", large.files());
    large.sandbox.assert_clean();
}
