//! `images`, `rmi` and `snapshot` over what was baked.

mod support;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use support::*;

/// The images listed, and the exit status.
fn images(sandbox: &Sandbox) -> (Vec<serde_json::Value>, i32) {
    let out = sandbox.run(&["images", "--json"]);
    let mut list: Vec<serde_json::Value> = serde_json::from_str(&out.out()).unwrap();
    for image in &mut list {
        // Another each time.
        let age = image["age_s"].take();
        assert!(age.is_u64(), "{image}");
    }
    (list, out.code())
}

fn bake(sandbox: &Sandbox, name: &str) -> PathBuf {
    let out = sandbox.run(&["bake", "--name", name, busybox()]);
    assert_eq!(out.code(), 0, "{}", out.err());
    PathBuf::from(out.out().trim_end())
}

fn flip(path: &Path, offset: u64) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[!byte[0]]).unwrap();
}

/// Damages the first page that a file of memory has.
fn flip_stored(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let stored = bytes
        .chunks(4096)
        .position(|page| page.iter().any(|byte| *byte != 0));
    flip(path, stored.unwrap() as u64 * 4096);
}

#[test]
fn baked_images_are_listed_shown_and_removed() {
    let sandbox = Sandbox::new();
    assert_eq!(images(&sandbox), (Vec::new(), 0));
    let path = bake(&sandbox, "bb");
    let (list, status) = images(&sandbox);
    assert_eq!((list.len(), status), (1, 0));
    assert_eq!(
        (&list[0]["name"], &list[0]["reference"]),
        (&"bb".into(), &busybox().into())
    );
    assert_eq!(
        (&list[0]["memory_mib"], &list[0]["vcpus"]),
        (&256.into(), &1.into())
    );
    // Zero pages are not in the file.
    let size = list[0]["disk_bytes"].as_u64().unwrap();
    assert!((1 << 20..128 << 20).contains(&size), "{size}");
    assert!(sandbox.run(&["images"]).out().contains("bb"));

    let text = sandbox.run(&["snapshot", "inspect", "bb"]).out();
    assert!(
        text.contains("256 MiB") && text.contains("aarch64"),
        "{text}"
    );
    for which in [
        "bb",
        path.to_str().unwrap(),
        path.parent().unwrap().to_str().unwrap(),
    ] {
        let out = sandbox.run(&["snapshot", "inspect", "--json", which]);
        let manifest: serde_json::Value = serde_json::from_str(&out.out()).unwrap();
        assert_eq!(manifest["name"], "bb", "{which}: {}", out.err());
        assert_eq!(
            sandbox.run(&["snapshot", "verify", which]).code(),
            0,
            "{which}"
        );
    }
    assert_eq!(sandbox.run(&["rmi", "bb"]).out(), "bb\n");
    assert_eq!(images(&sandbox), (Vec::new(), 0));
    assert_eq!(fs::read_dir(sandbox.files.join("s")).unwrap().count(), 0);
}

#[test]
fn damage_is_named_and_what_is_damaged_can_be_removed() {
    let sandbox = Sandbox::new();
    let path = bake(&sandbox, "bb");
    // Of the base's file only what is taken from it counts.
    let text = fs::read_to_string(path.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let unit = &manifest["manifest"]["memory"]["base_runs"][0][0];
    flip(&path.join("base.bin"), unit.as_u64().unwrap() * (16 << 10));
    let is_damaged = || {
        let out = sandbox.run(&["snapshot", "verify", "bb"]);
        out.assert_refused(1, &["bb", "mem.bin"]);
    };
    is_damaged();
    flip(&path.join("base.bin"), unit.as_u64().unwrap() * (16 << 10));
    assert_eq!(sandbox.run(&["snapshot", "verify", "bb"]).code(), 0);
    flip_stored(&path.join("mem.bin"));
    is_damaged();
    let out = sandbox.run(&["snapshot", "verify", "--json", "bb"]);
    let report: serde_json::Value = serde_json::from_str(&out.out()).unwrap();
    assert_eq!((out.code(), &report["whole"]), (1, &false.into()));
    assert!(
        report["damage"].as_str().unwrap().contains("mem.bin"),
        "{report}"
    );

    File::options()
        .write(true)
        .open(path.join("mem.bin"))
        .unwrap()
        .set_len(4096)
        .unwrap();
    assert_eq!(images(&sandbox), (Vec::new(), 1));
    sandbox
        .run(&["snapshot", "inspect", "bb"])
        .assert_refused(125, &["mem.bin"]);
    fs::remove_file(path.join("state.bin")).unwrap();
    assert_eq!(sandbox.run(&["snapshot", "verify", "bb"]).code(), 1);
    let removed = sandbox.run(&["rmi", "bb"]);
    assert_eq!(
        (removed.code(), removed.out()),
        (0, "bb\n".into()),
        "{}",
        removed.err()
    );
    assert_eq!(images(&sandbox), (Vec::new(), 0));
}

#[test]
fn snapshot_in_use_keeps_its_name_until_its_machine_ends() {
    let sandbox = Sandbox::new();
    let mut child = sandbox
        .shell(&["-i"], "echo up; exec cat")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    read_until(child.stdout.as_mut().unwrap(), "up\n");
    let (list, _) = images(&sandbox);
    let name = list[0]["name"].as_str().unwrap();
    sandbox
        .run(&["rmi", name])
        .assert_refused(125, &[name, "in use"]);
    assert_eq!(images(&sandbox), (list.clone(), 0));
    drop(child.stdin.take());
    assert_eq!(finish(child, PATIENCE).code(), 0);
    assert_eq!(sandbox.run(&["rmi", name]).code(), 0);
}

#[test]
fn names_that_are_none_or_unknown_are_refused() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.files.join("s")).unwrap();
    for name in ["nothing", "../f", ".", "a/b"] {
        sandbox.run(&["rmi", name]).assert_refused(125, &[]);
        sandbox
            .run(&["snapshot", "inspect", name])
            .assert_refused(125, &[]);
        sandbox
            .run(&["snapshot", "verify", name])
            .assert_refused(1, &[]);
    }
    assert_eq!(fs::read_dir(sandbox.files.join("s")).unwrap().count(), 0);
}
