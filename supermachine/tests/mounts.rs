//! Directories of the host in guests: that boot, that are copied, that are put back
//! and that fork.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use supermachine::{ChangeKind, Error, MountChange, MountSpec, SymlinkPolicy, Vm, VmConfig};
use support::shelf::*;
use support::*;
use tar::EntryType;

/// Directories of one test.
struct Shares(Shelf);

impl Shares {
    fn new(test: &str) -> Self {
        Self(Shelf::new(test))
    }

    fn make(&self, name: &str) -> PathBuf {
        let dir = self.0.0.join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}

fn at_work(host: &PathBuf) -> VmConfig {
    library_config().with_mount(MountSpec::new(host, "workspace").at("/work"))
}

/// The guest believes for a second what it has seen before.
fn until(what: &str, wanted: impl Fn() -> bool) {
    let begun = Instant::now();
    while !wanted() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn run_gives_a_command_a_directory_of_the_host() {
    let sandbox = Sandbox::new();
    let dir = sandbox.files.join("app");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("hello"), "from the host\n").unwrap();
    let volume = format!("{}:/work dir", dir.display());
    let script = "set -e; cd '/work dir'; ls; cat hello
        echo x > y; mkdir d; mv y d/z; ln -s d l; cat l/z
        ln d/z d/w; rm hello; rmdir sub; chmod 600 d/w; stat -c '%u:%g %h %a' d/w
        dd if=/dev/zero of=big bs=64k count=40 2>/dev/null
        for n in $(seq 200); do : > n$n; done; ls | wc -l";
    let ran = sandbox.run_shell(&["--no-snapshot", "-v", &volume], script);
    let expected = "hello\nsub\nfrom the host\nx\n0:0 2 600\n203\n";
    assert_eq!((ran.code(), &*ran.out()), (0, expected), "{}", ran.err());
    assert_eq!(fs::read(dir.join("d/z")).unwrap(), b"x\n");
    assert_eq!(fs::metadata(dir.join("d/w")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(dir.join("big")).unwrap().len(), 40 << 16);
    assert_eq!(fs::read_link(dir.join("l")).unwrap(), PathBuf::from("d"));
    assert!(!dir.join("hello").exists() && !dir.join("sub").exists());
}

#[test]
fn read_only_directory_is_refused_by_the_host_and_links_stay_inside() {
    let sandbox = Sandbox::new();
    let dir = sandbox.files.join("app");
    fs::create_dir_all(&dir).unwrap();
    fs::write(sandbox.files.join("secret"), "secret\n").unwrap();
    fs::write(dir.join("a"), "kept\n").unwrap();
    symlink("../secret", dir.join("out")).unwrap();
    let volume = format!("{}:/work:ro", dir.display());
    let script = "cat /work/a; mount -o remount,rw /work
        echo x > /work/a || echo refused; rm /work/a || echo refused
        readlink /work/out; cat /work/out || echo nowhere";
    let ran = sandbox.run_shell(&["--no-snapshot", "-v", &volume], script);
    let expected = "kept\nrefused\nrefused\n../secret\nnowhere\n";
    assert_eq!(ran.out(), expected, "{}", ran.err());
    assert_eq!(fs::read(dir.join("a")).unwrap(), b"kept\n");
    let nowhere = format!("{}:/work", dir.join("none").display());
    let ran = sandbox.run_shell(&["-v", &nowhere], "true");
    ran.assert_refused(125, &["cannot mount the directory", "No such file"]);
    let ran = sandbox.run_shell(&["-v", "named:/work:ro"], "true");
    ran.assert_refused(125, &["expected a number of MiB"]);
}

#[test]
fn each_copy_is_given_a_directory_for_what_its_snapshot_mounts() {
    let shares = Shares::new("mounted-copies");
    let [baked, one, two] = ["baked", "one", "two"].map(|name| shares.make(name));
    for (dir, text) in [(&baked, "baked"), (&one, "one"), (&two, "two")] {
        fs::write(dir.join("name"), text).unwrap();
    }
    let mount = MountSpec::new(&baked, "workspace").at("/work");
    let builder = shares.0.builder().with_mount(mount);
    let image = builder
        .with_warmup(|vm| {
            vm.exec(["cat", "/work/name"])?;
            Ok(())
        })
        .build()
        .unwrap();
    let first = Vm::start(&image, &at_work(&one)).unwrap();
    let second = Vm::start(&image, &at_work(&two)).unwrap();
    // What was read before is not taken for what is there now.
    assert_eq!(sh(&first, "cat /work/name"), "one");
    assert_eq!(sh(&second, "cat /work/name; echo x > /work/new"), "two");
    assert!(two.join("new").exists() && !one.join("new").exists());
    fs::write(one.join("name"), "changed").unwrap();
    until("the change", || sh(&first, "cat /work/name") == "changed");
    for (config, problem) in [
        (library_config(), "give it a directory"),
        (
            at_work(&one).with_mount(MountSpec::new(&two, "more")),
            "bake the image with it",
        ),
    ] {
        let error = Vm::start(&image, &config).unwrap_err();
        assert!(matches!(error, Error::Mount { .. }), "{error}");
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn machine_of_a_pool_begins_again_with_its_directory_as_it_is_now() {
    let shares = Shares::new("mounted-pool");
    let dir = shares.make("dir");
    fs::write(dir.join("count"), "0").unwrap();
    let mount = MountSpec::new(&dir, "workspace").at("/work");
    let image = shares.0.builder().with_mount(mount).build().unwrap();
    let pool = image
        .pool()
        .vm_config(at_work(&dir))
        .max(1)
        .build()
        .unwrap();
    for round in 0..3 {
        let vm = pool.acquire().unwrap();
        let script = "cat /work/count; exec 9>>/work/log; echo $(($(cat /work/count) + 1)) \
                      > /work/next; mv /work/next /work/count; echo line >&9";
        assert_eq!(sh(&vm, script), round.to_string());
        // It is open when the machine is put back.
        sh(
            &vm,
            "(exec 8</work/count; sleep 1000) >/dev/null 2>&1 & cd /work",
        );
    }
    assert_eq!(fs::read(dir.join("count")).unwrap(), b"3\n");
    assert_eq!(fs::read(dir.join("log")).unwrap(), b"line\n".repeat(3));
}

/// Starts a program that has a file and a directory open, and reads both when it is
/// told to.
const HOLDER: &str = "cat > /tmp/holder <<'END'
cd /work/d
exec 3< kept 4< replaced 5>> log
while ! [ -e /tmp/go ]; do sleep 0.05; done
{ cat <&3; cat <&4 || echo stale; echo more >&5 && cat name; } > /tmp/out 2>/dev/null
touch /tmp/done
END
sh /tmp/holder > /dev/null 2>&1 &
while ! [ -e /proc/$!/fd/5 ]; do sleep 0.05; done";

const RESULT: &str = "touch /tmp/go; while ! [ -e /tmp/done ]; do sleep 0.05; done; cat /tmp/out";

#[test]
fn open_files_go_on_in_snapshots_and_forks_if_they_are_still_the_same() {
    let shares = Shares::new("mounted-snapshot");
    let dir = shares.make("dir");
    fs::create_dir(dir.join("d")).unwrap();
    for name in ["kept", "replaced", "name"] {
        fs::write(dir.join("d").join(name), format!("{name}\n")).unwrap();
    }
    let mount = MountSpec::new(&dir, "workspace").at("/work");
    let image = shares.0.builder().with_mount(mount).build().unwrap();
    let vm = Vm::start(&image, &at_work(&dir)).unwrap();
    sh(&vm, HOLDER);
    let taken = vm.snapshot(shares.0.0.join("taken")).unwrap();
    let children = vm.fork(2).unwrap();
    fs::rename(dir.join("d/replaced"), dir.join("d/old")).unwrap();
    fs::write(dir.join("d/replaced"), "another\n").unwrap();
    // The one that goes on has them open itself.
    assert_eq!(sh(&vm, RESULT), "kept\nreplaced\nname");
    let copy = Vm::start(&taken, &at_work(&dir)).unwrap();
    for vm in children.iter().chain([&copy]) {
        assert_eq!(sh(vm, RESULT), "kept\nstale\nname");
        assert_eq!(sh(vm, "cat /work/d/replaced"), "another");
    }
    assert_eq!(fs::read(dir.join("d/log")).unwrap(), b"more\n".repeat(4));
}

#[test]
fn guest_mounts_by_the_tag_and_has_the_links_and_owners_of_the_mount() {
    let shares = Shares::new("mounted-by-tag");
    let (dir, outside) = (shares.make("dir"), shares.make("outside"));
    fs::write(outside.join("secret"), "shared on purpose").unwrap();
    symlink(&outside, dir.join("out")).unwrap();
    let follow = MountSpec::new(&dir, "trusted").with_symlinks(SymlinkPolicy::Follow);
    let deny = MountSpec::new(&dir, "paranoid").with_symlinks(SymlinkPolicy::Deny);
    let config = library_config()
        .with_mount(follow.with_owner(1000, 100))
        .with_mount(deny);
    let image = supermachine::Image::load_with_cache(busybox(), cache()).unwrap();
    let vm = Vm::start(&image, &config).unwrap();
    let script = "mkdir /a /b; mount -t virtiofs trusted /a; mount -t virtiofs paranoid /b
        cat /a/out/secret; echo; stat -c %u:%g /a
        ls /b/out || echo denied; ln -s x /b/y || echo refused; stat -c %u:%g /b";
    let expected = "shared on purpose\n1000:100\ndenied\nrefused\n0:0";
    assert_eq!(sh(&vm, script), expected);
}

#[test]
fn copy_on_write_directory_stays_as_it_is_on_the_host() {
    let shares = Shares::new("mounted-covered");
    let dir = shares.make("dir");
    fs::create_dir_all(dir.join("sub/deep")).unwrap();
    for name in ["kept", "edited", "removed", "sub/deep/file", "sub/gone"] {
        fs::write(dir.join(name), "host\n").unwrap();
    }
    fs::create_dir(dir.join("remade")).unwrap();
    fs::write(dir.join("remade/old"), "host\n").unwrap();
    fs::set_permissions(dir.join("remade"), fs::Permissions::from_mode(0o755)).unwrap();
    let mount = MountSpec::new(&dir, "workspace")
        .at("/work")
        .copy_on_write();
    let config = library_config().with_mount(mount.clone());
    let image = shares.0.builder().with_mount(mount).build().unwrap();
    let vm = Vm::start(&image, &config).unwrap();
    assert!(vm.mount_changes("workspace").unwrap().is_empty());
    let script = "cd /work; echo more >> edited; rm removed sub/gone; mkdir new; : > new/file
        echo changed > sub/deep/file; rm -r remade; mkdir -m 755 remade; : > remade/young; cat edited
        ls";
    let listed = "host\nmore\nedited\nkept\nnew\nremade\nsub";
    assert_eq!(sh(&vm, script), listed);
    let changes = vm.mount_changes("workspace").unwrap();
    let changes: Vec<_> = changes
        .iter()
        .map(|change| (change.path.to_str().unwrap(), change.kind))
        .collect();
    let expected = [
        ("edited", ChangeKind::Changed),
        ("new", ChangeKind::Added),
        ("new/file", ChangeKind::Added),
        ("remade/old", ChangeKind::Deleted),
        ("remade/young", ChangeKind::Added),
        ("removed", ChangeKind::Deleted),
        ("sub/deep/file", ChangeKind::Changed),
        ("sub/gone", ChangeKind::Deleted),
    ];
    assert_eq!(changes, expected);
    assert!(!dir.join("new").exists());
    for name in [
        "edited",
        "removed",
        "sub/deep/file",
        "sub/gone",
        "remade/old",
    ] {
        assert_eq!(fs::read(dir.join(name)).unwrap(), b"host\n", "{name}");
    }
    // Another copy has none of that.
    let other = Vm::start(&image, &config.clone().with_name("mounted-covered")).unwrap();
    assert_eq!(sh(&other, "cat /work/edited"), "host");
    assert!(other.mount_changes("workspace").unwrap().is_empty());
    assert!(other.mount_changes("none").is_err());
    applied_changes_are_the_hosts(&vm, &dir);
    hostile_changes_stay_in_the_tree(&other, &dir, &shares.make("outside"));
}

/// What the machine above has changed, but for `sub/gone`.
fn applied_changes_are_the_hosts(vm: &Vm, dir: &Path) {
    let mut archive = Vec::new();
    let only_sub = |change: &MountChange| change.path.starts_with("sub");
    vm.export_changes("workspace", &mut archive, only_sub)
        .unwrap();
    let mut archive = tar::Archive::new(&archive[..]);
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(
        names,
        ["sub/.wh.gone", "sub/", "sub/deep/", "sub/deep/file"]
    );
    let not_gone = |change: &MountChange| change.path != Path::new("sub/gone");
    let applied = vm.apply_changes("workspace", not_gone).unwrap();
    assert_eq!(applied.len(), 7, "{applied:?}");
    let content = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(content("edited"), "host\nmore\n");
    assert_eq!(content("sub/deep/file"), "changed\n");
    assert_eq!(
        (content("sub/gone"), content("kept")),
        ("host\n".into(), "host\n".into())
    );
    assert_eq!(
        (content("new/file"), content("remade/young")),
        ("".into(), "".into())
    );
    for name in ["removed", "remade/old"] {
        assert!(!dir.join(name).exists(), "{name}");
    }
    assert_eq!(fs::read_dir(dir).unwrap().count(), 5);
    // What was made is told no more, until the guest changes it again.
    let told = || {
        let changes = vm.mount_changes("workspace").unwrap();
        let told = changes.into_iter().map(|change| change.path);
        told.collect::<Vec<_>>()
    };
    assert_eq!(told(), [Path::new("sub/gone")]);
    sh(
        vm,
        "printf 'host\\nMORE\\n' > /work/edited; chmod 700 /work/new/file; rm /work/kept",
    );
    let again = ["edited", "kept", "new/file", "sub/gone"].map(Path::new);
    assert_eq!(told(), again);
    vm.apply_changes("workspace", |change| change.path != Path::new("kept"))
        .unwrap();
    assert_eq!(told(), [Path::new("kept")]);
    assert_eq!(content("edited"), "host\nMORE\n");
}

/// A machine whose host puts links where it has directories, which fills its own with
/// what a host must not get, and of which the command line tells.
fn hostile_changes_stay_in_the_tree(vm: &Vm, dir: &Path, outside: &Path) {
    fs::write(outside.join("file"), "outside\n").unwrap();
    let script = "cd /work; echo evil > sub/deep/file; echo evil > kept; chmod 6755 kept
        mknod pipe p; mknod dev c 1 3; ln -s /etc etc; rm -r new; ln -s ../.. new
        mkdir 'odd
name'; : > .wh.kept";
    sh(vm, script);
    fs::rename(dir.join("sub/deep"), outside.join("was-deep")).unwrap();
    symlink(outside, dir.join("sub/deep")).unwrap();
    let tool = |words: &[&str]| {
        let mut tool = Command::new(env!("CARGO_BIN_EXE_supermachine"));
        let child = tool
            .args([&["changes", "mounted-covered"], words].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        finish(child.spawn().unwrap(), PATIENCE)
    };
    let listed = tool(&["--json", "sub", "./etc"]);
    let rows: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let expected = serde_json::json!([
        {"change": "added", "file": "link", "path": "etc", "bytes": 4},
        {"change": "changed", "file": "directory", "path": "sub/deep", "bytes": 60},
        {"change": "added", "file": "file", "path": "sub/deep/file", "bytes": 5},
    ]);
    assert_eq!(rows, expected, "{}", listed.err());
    tool(&["--mount", "/none"]).assert_refused(125, &["copy-on-write mount", ":cow"]);
    let archive = tool(&["--mount", "/work", "--export", "-"]).stdout;
    let mut archive = tar::Archive::new(&archive[..]);
    let names = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        assert!(matches!(
            entry.header().entry_type(),
            EntryType::Regular | EntryType::Directory | EntryType::Symlink
        ));
        entry.path().unwrap().display().to_string()
    });
    assert!(!names.collect::<Vec<_>>().contains(&".wh.kept".to_owned()));
    let applied = tool(&["--apply", "-q"]);
    let expected = ".wh.kept\netc\nkept\nnew\nodd\\u{a}name\nsub/deep\nsub/deep/file\n";
    assert_eq!(applied.out(), expected, "{}", applied.err());
    assert_eq!(fs::read(dir.join("sub/deep/file")).unwrap(), b"evil\n");
    assert_eq!(
        fs::read(outside.join("was-deep/file")).unwrap(),
        b"changed\n"
    );
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"outside\n");
    assert_eq!(fs::read_dir(outside).unwrap().count(), 2);
    assert_eq!(
        fs::read_link(dir.join("new")).unwrap(),
        PathBuf::from("../..")
    );
    assert_eq!(
        fs::metadata(dir.join("kept")).unwrap().mode() & 0o7777,
        0o755
    );
    assert!(!dir.join("pipe").exists() && !dir.join("dev").exists());
}
