//! Signals while an image's layers are still being converted.

mod support;

use oci_bake::{ImageBuilder, LayerBuilder};
use rustix::process::Signal;
use std::fs::DirEntry;
use std::time::{Duration, Instant};
use support::{Sandbox, finish, noise, signal};

/// Long enough for the layer to be caught half written.
const LAYER_BYTES: usize = 96 << 20;

fn interrupted_by(which: Signal, status: i32) {
    let sandbox = Sandbox::new();
    let dir = sandbox.files.join("image");
    let layer = LayerBuilder::new().file("big", 0o644, noise(LAYER_BYTES, 1));
    let builder = ImageBuilder::new().cmd(["/big"]).layer(layer);
    builder.write_layout(&dir).unwrap();
    let reference = format!("oci:{}", dir.display());
    let cache = sandbox.files.join("cache");
    let layers = cache.join("supermachine/images/layers");
    let files = || {
        let entries = std::fs::read_dir(&layers).into_iter().flatten();
        let written = |entry: &DirEntry| entry.metadata().is_ok_and(|m| m.len() > 0);
        let names = entries.flatten().filter(written).map(|e| e.file_name());
        names.collect::<Vec<_>>()
    };
    let child = sandbox
        .command(&["run", &reference])
        .env("XDG_CACHE_HOME", &cache)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while files().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no bake began");
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(child.id(), which);
    let finished = finish(child, Duration::from_secs(30));
    assert_eq!(finished.code(), status, "{}", finished.err());
    assert_eq!(finished.err(), "");
    let unfinished = |name: &std::ffi::OsString| name.as_encoded_bytes().ends_with(b".tmp");
    assert!(!files().iter().any(unfinished), "{:?}", files());
    sandbox.assert_clean();
}

#[test]
fn interrupted_bake_leaves_no_files() {
    interrupted_by(Signal::INT, 130);
}

#[test]
fn terminated_bake_leaves_no_files() {
    interrupted_by(Signal::TERM, 143);
}
