//! `du`, `gc` and the other commands about what is on the disk.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use supermachine::AssetPaths;
use support::*;

/// A sandbox with a cache of layers of its own.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let cache = sandbox.files.join("cache/supermachine");
    fs::create_dir_all(&cache).unwrap();
    let assets = supermachine::AssetPaths::discover().unwrap();
    let assets = assets.kernel.parent().unwrap().to_owned();
    let place = kernel::search_dirs().pop().unwrap();
    std::os::unix::fs::symlink(assets, cache.join(place.file_name().unwrap())).unwrap();
    sandbox
}

fn run(sandbox: &Sandbox, arguments: &[&str]) -> Finished {
    let mut command = sandbox.command(arguments);
    command.env("XDG_CACHE_HOME", sandbox.files.join("cache"));
    finish(command.spawn().unwrap(), PATIENCE)
}

fn json(sandbox: &Sandbox, arguments: &[&str]) -> Vec<serde_json::Value> {
    let run = run(sandbox, arguments);
    assert_eq!((run.code(), run.err()), (0, String::new()), "{arguments:?}");
    serde_json::from_str(&run.out()).unwrap()
}

fn bake(sandbox: &Sandbox, name: &str, warmup: &str) {
    let run = run(
        sandbox,
        &["bake", "-q", "--name", name, "--warmup", warmup, busybox()],
    );
    assert_eq!((run.code(), run.err()), (0, String::new()));
}

/// The layers in the cache, as `du` lists them.
fn layers(sandbox: &Sandbox) -> Vec<PathBuf> {
    let layers = sandbox.files.join("cache/supermachine/images/layers");
    let found = fs::read_dir(layers).unwrap();
    let mut found: Vec<PathBuf> = found.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn what_nothing_needs_is_told_and_removed_and_the_rest_stays() {
    let sandbox = sandbox();
    // Nothing is there, and nothing is made by looking.
    let kinds = json(&sandbox, &["du", "--json"]);
    let counts: Vec<_> = kinds
        .iter()
        .map(|kind| kind["count"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [0; 5]);
    assert!(json(&sandbox, &["gc", "--json"]).is_empty());
    assert!(!sandbox.files.join("s").exists());

    bake(&sandbox, "mine", "true");
    let kinds = run(&sandbox, &["du", "--format", "{{.Kind}} {{.Count}}"]).out();
    assert_eq!(kinds, "snapshot 1\nbase 1\nfork 0\nlayer 2\nmachine 0\n");
    let all = json(&sandbox, &["du", "-v", "--json"]);
    let of = |kind: &str| {
        all.iter()
            .find(|item| item["kind"] == kind)
            .unwrap()
            .clone()
    };
    assert_eq!(of("snapshot")["name"], "mine");
    let files = layers(&sandbox);
    let file = &files[0];
    assert_eq!(
        of("layer")["disk_bytes"],
        fs::metadata(file).unwrap().blocks() * 512
    );
    assert_eq!(of("layer")["in_use"], true);
    assert!(all.iter().all(|item| item["spare_bytes"] == 0), "{all:?}");
    // Nothing is removed that something has.
    assert!(json(&sandbox, &["gc", "--all", "--json"]).is_empty());

    // What a killed bake leaves, and a generation that was replaced while in use.
    let image = sandbox.files.join("s/mine");
    let old = image.join("0000000000");
    fs::create_dir(&old).unwrap();
    fs::write(old.join("memory"), vec![1; 1 << 20]).unwrap();
    let dead = image.join(format!(".0000000009.{}.0123456789abcdef.tmp", i32::MAX));
    fs::create_dir(&dead).unwrap();
    let spare = json(&sandbox, &["gc", "--dry-run", "--json"]);
    assert_eq!(spare.len(), 1, "{spare:?}");
    assert!(spare[0]["spare_bytes"].as_u64().unwrap() >= 1 << 20);
    assert!(old.exists());
    let freed = json(&sandbox, &["gc", "--json"]);
    assert_eq!(
        (&freed[0]["kind"], &freed[0]["name"]),
        (&"snapshot".into(), &"mine".into())
    );
    assert!(
        freed[0]["spare_bytes"].as_u64().unwrap() >= 1 << 20,
        "{freed:?}"
    );
    assert!(!old.exists() && !dead.exists() && image.join("0000000001").exists());

    // A layer that was used just now stays, unless all are to go.
    assert_eq!(run(&sandbox, &["snapshot", "rm", "mine"]).out(), "mine\n");
    assert_eq!(run(&sandbox, &["snapshot", "ls", "-q"]).out(), "");
    assert!(json(&sandbox, &["gc", "--json"]).is_empty());
    assert_eq!(layers(&sandbox), files);
    let removed = run(&sandbox, &["gc", "--all", "-q"]).out();
    let names = files
        .iter()
        .map(|file| file.file_name().unwrap().to_str().unwrap());
    assert!(removed.lines().eq(names), "{removed}");
    assert!(layers(&sandbox).is_empty());
    let kinds = run(&sandbox, &["du", "--format", "{{.Count}}"]).out();
    assert_eq!(kinds, "0\n0\n0\n0\n0\n");
}

#[test]
fn progress_is_told_in_lines_and_not_to_who_wants_quiet() {
    let sandbox = sandbox();
    let first = run(&sandbox, &["bake", "--name", "told", busybox()]);
    assert_eq!(first.code(), 0);
    let told = first.err();
    for line in [
        "reading an image of 2 layers",
        "layer 2 of 2: converted",
        "booting the image",
    ] {
        assert!(told.contains(line), "no {line:?} in {told}");
    }
    // What programs read is on the other stream, and nothing drives a terminal.
    assert!(first.out().ends_with("/told/0000000001\n") && !told.contains('\x1b'));
    let run = run(&sandbox, &["run", "told", "echo", "hi"]);
    assert_eq!((run.out(), run.err()), ("hi\n".into(), String::new()));
}

#[test]
fn kernel_and_init_are_installed_for_programs_without_a_checkout() {
    let sandbox = Sandbox::new();
    let built = AssetPaths::discover().unwrap();
    let built = built.kernel.parent().unwrap().to_str().unwrap().to_owned();
    // Nothing is beside this one.
    let tool = sandbox.files.join("bin/supermachine");
    fs::create_dir(tool.parent().unwrap()).unwrap();
    fs::hard_link(env!("CARGO_BIN_EXE_supermachine"), &tool)
        .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_supermachine"), &tool).map(drop))
        .unwrap();
    let cache = sandbox.files.join("cache");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&tool);
        command
            .args(arguments)
            .env("XDG_CACHE_HOME", &cache)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        finish(command.spawn().unwrap(), PATIENCE)
    };
    run(&["assets", "ls"]).assert_refused(125, &["supermachine assets install"]);
    let none = sandbox.files.to_str().unwrap();
    run(&["assets", "install", none]).assert_refused(125, &["kernel", none]);
    let installed = run(&["assets", "install", &built]);
    assert_eq!((installed.code(), installed.err()), (0, String::new()));
    let listed = run(&["assets", "ls"]);
    assert_eq!(listed.out(), installed.out());
    for (line, name) in listed.out().lines().zip(["kernel", "init-oci"]) {
        assert!(line.starts_with(cache.to_str().unwrap()), "{line}");
        let same = fs::read(line).unwrap() == fs::read(format!("{built}/{name}")).unwrap();
        assert!(same, "{line}");
    }
}
