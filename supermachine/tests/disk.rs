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
    assert_eq!(counts, [0; 8]);
    assert!(json(&sandbox, &["gc", "--json"]).is_empty());
    assert!(!sandbox.files.join("s").exists());

    bake(&sandbox, "mine", "true");
    let kinds = run(&sandbox, &["du", "--format", "{{.Kind}} {{.Count}}"]).out();
    assert_eq!(
        kinds,
        "snapshot 1\nbase 1\nfork 0\nlayer 2\ndocument 0\nname 0\npartial 0\nmachine 0\n"
    );
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
    for bounded in [["gc", "--all"], ["gc", "--max-size=0"], ["gc", "--verify"]] {
        assert!(json(&sandbox, &[&bounded[..], &["--json"]].concat()).is_empty());
    }

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
    assert_eq!(kinds, "0\n".repeat(8));
}

#[test]
fn a_base_is_spare_when_no_snapshot_shares_it_any_more() {
    let sandbox = sandbox();
    bake(&sandbox, "mine", "true");
    let other = ["bake", "--name", "other", "-m", "300m", busybox()];
    assert_eq!(run(&sandbox, &other).code(), 0);
    let bases = || {
        let all = json(&sandbox, &["du", "-v", "--json"]);
        let bases = all.iter().filter(|item| item["kind"] == "base");
        bases
            .map(|base| (base["name"].clone(), base["spare_bytes"] != 0))
            .collect::<Vec<_>>()
    };
    assert!(
        bases().iter().all(|(_, is_spare)| !is_spare),
        "{:?}",
        bases()
    );
    assert_eq!(bases().len(), 2);
    assert_eq!(run(&sandbox, &["snapshot", "rm", "other"]).code(), 0);
    let spare: Vec<_> = bases().into_iter().filter(|base| base.1).collect();
    assert_eq!(spare.len(), 1, "{:?}", bases());
    let freed = json(&sandbox, &["gc", "--json"]);
    assert_eq!(
        (&freed[0]["kind"], &freed[0]["name"]),
        (&"base".into(), &spare[0].0)
    );
    assert_eq!(bases().len(), 1);
    // Copies of the other do not miss it.
    let up = run(&sandbox, &["run", "--net", "off", "mine", "echo", "up"]);
    assert_eq!(up.out(), "up\n", "{}", up.err());
}

#[test]
fn progress_is_told_in_lines_and_not_to_who_wants_quiet() {
    let sandbox = sandbox();
    // All that is kept may be in one place.
    let run = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        command.env("XDG_CACHE_HOME", sandbox.files.join("cache"));
        command.env_remove("SUPERMACHINE_SNAPSHOTS");
        command.env("SUPERMACHINE_HOME", sandbox.files.join("home"));
        finish(command.spawn().unwrap(), PATIENCE)
    };
    let note = sandbox.files.join("note");
    fs::write(&note, "from the host\n").unwrap();
    let extra = format!("--extra-file={}:/opt/deep/note:0640", note.display());
    let bake = || run(&["bake", "--name", "told", &extra, busybox()]);
    let first = bake();
    assert_eq!(first.code(), 0, "{}", first.err());
    let told = first.err();
    for line in [
        "reading an image of 2 layers",
        "layer 2 of 2: converted",
        "booting the image",
    ] {
        assert!(told.contains(line), "no {line:?} in {told}");
    }
    // What programs read is on the other stream, and nothing drives a terminal.
    let home = sandbox.files.join("home");
    let path = home.join("snapshots/told/0000000001");
    assert_eq!(first.out(), format!("{}\n", path.display()));
    assert!(!told.contains('\x1b'));
    // The image's, and that of the extra file.
    let layers = || fs::read_dir(home.join("images/layers")).unwrap().count();
    assert_eq!(layers(), 3);
    let second = run(&["run", "told", "echo", "hi"]);
    assert_eq!((second.out(), second.err()), ("hi\n".into(), String::new()));

    // What it is made of is known from its name down to the layers.
    let inspected = run(&["snapshot", "inspect", "--json", "told"]);
    let inspected: serde_json::Value = serde_json::from_str(&inspected.out()).unwrap();
    let image = &inspected["image"];
    assert_eq!(image["reference"], busybox());
    assert!(
        image["chain"]["manifest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    let digests = image["chain"]["layers"].as_array().unwrap();
    assert_eq!(digests.len(), 3);
    for digest in digests {
        let stem = digest.as_str().unwrap().replace(':', "-");
        let files = fs::read_dir(home.join("images/layers")).unwrap();
        let mut names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(names.any(|name| name.starts_with(&stem)), "{stem}");
    }
    let text = run(&["snapshot", "inspect", "told"]).out();
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("layer:"))
            .count(),
        3
    );

    // It is found again, taken elsewhere as one file, and made anew for another file.
    assert_eq!(bake().out(), first.out());
    let file = sandbox.files.join("told.snapshot").display().to_string();
    let exported = run(&["export", "told", &file]);
    assert_eq!(
        (exported.out(), exported.err()),
        (format!("{file}\n"), String::new())
    );
    fs::write(&note, "another\n").unwrap();
    let other = bake();
    assert_eq!(other.out(), first.out().replace("0000000001", "0000000002"));
    assert_eq!(layers(), 4);
    assert!(!other.err().contains("converted"), "{}", other.err());
    let imported = run(&["import", "--name", "again", &file]);
    let path = home.join("snapshots/again/0000000001");
    assert_eq!(
        imported.out(),
        format!("{}\n", path.display()),
        "{}",
        imported.err()
    );
    for (name, text) in [("again", "from the host\n"), ("told", "another\n")] {
        let script = "stat -c %a%u /opt/deep/note; cat /opt/deep/note";
        let shown = run(&["run", name, "sh", "-c", script]);
        assert_eq!(shown.out(), format!("6400\n{text}"), "{}", shown.err());
    }
    let mut damaged = fs::read(&file).unwrap();
    let at = damaged.len() / 2;
    damaged[at] ^= 1;
    fs::write(&file, damaged).unwrap();
    let refused = run(&["import", "--name", "never", &file]);
    assert_eq!((refused.code(), refused.out()), (125, String::new()));
    assert!(!home.join("snapshots/never").exists());
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
