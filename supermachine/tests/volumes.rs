//! Disks that outlive guests: of commands, of copies, of forks, and of machines that are
//! killed.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use supermachine::{Error, Image, Vm, VmConfig, VolumeSpec, VolumeStore};
use support::shelf::*;
use support::*;

/// What e2fsck says of a file system that nobody has, and that it needs nothing.
fn assert_clean(path: &Path) {
    let checked = Command::new("e2fsck").arg("-fn").arg(path).output();
    let checked = checked.expect("e2fsck is in the package e2fsprogs");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{}: {said}", path.display());
}

#[test]
fn volume_of_a_command_is_there_for_the_next_and_grows() {
    let sandbox = Sandbox::new();
    let run = |volume, script| {
        let ran = sandbox.run_shell(&["--no-snapshot", "-v", volume], script);
        assert_eq!(ran.code(), 0, "{}", ran.err());
        ran.out()
    };
    let file = sandbox.files.join("v/data.ext4");
    // Nothing is synced here but by the end of the machine.
    let script = "cd '/srv/my data'; echo kept > f; mkdir d; dd if=/dev/urandom of=d/big bs=64k \
                  count=64 2>/dev/null; md5sum d/big | cut -c-32; stat -c %a:%u .";
    let first = run("data:/srv/my data:64m", script);
    let (sum, rest) = first.split_once('\n').unwrap();
    assert_eq!(rest, "755:0\n");
    assert_clean(&file);
    let script = "cd /other; cat f; md5sum d/big | cut -c-32
        df -k . | awk 'NR == 2 { print ($2 > 150000) }'
        dd if=/dev/zero of=more bs=1M count=130 2>/dev/null && rm more";
    let second = run("data:/other:200m", script);
    assert_eq!(second, format!("kept\n{sum}\n1\n"));
    assert_clean(&file);
    // Whoever says no size has it as it is.
    assert_eq!(run("data:/third", "cat /third/f"), "kept\n");
    let listed = sandbox.run(&["volume", "inspect", "data"]).out();
    assert!(listed.contains("\"size_bytes\": 209715200"), "{listed}");
    let image = sandbox.files.join("image").display().to_string();
    for (words, expected) in [
        (
            &["volume", "create", "--size", "2g", "other"][..],
            "other\n",
        ),
        (&["volume", "export", "data", &image], &format!("{image}\n")),
        (&["volume", "import", &image, "again"], "again\n"),
        (&["volume", "rm", "again"], "again\n"),
        (&["volume", "rm", "data"], "data\n"),
        (&["volume", "prune"], ""),
        (&["volume", "ls", "-q"], "other\n"),
    ] {
        let ran = sandbox.run(words);
        assert_eq!((ran.code(), &*ran.out()), (0, expected), "{}", ran.err());
    }
    assert!(!file.exists());
    let refused = sandbox.run(&["volume", "inspect", "data"]);
    refused.assert_refused(125, &["`data`", "volume ls"]);
}

#[test]
fn volume_that_the_host_has_no_room_for_is_an_error_of_who_writes_there_and_nothing_else() {
    let sandbox = Sandbox::new();
    let made = sandbox.run(&["volume", "create", "--size", "64m", "data"]);
    assert_eq!(made.code(), 0, "{}", made.err());
    let script = "cd /data; echo kept > kept; sync
        dd if=/dev/zero of=big bs=1M count=48 conv=fsync 2>/dev/null || echo refused
        rm big; cat kept; echo on; sync && cat kept";
    let run = sandbox.shell(&["--no-snapshot", "-v", "data:/data:64m"], script);
    // The host takes 32 MiB of a file, in blocks of 512 bytes, and nothing beyond them.
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -f 65536; exec \"$@\"", "sh"])
        .arg(run.get_program())
        .args(run.get_args())
        .envs(
            run.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let ran = finish(limited.spawn().unwrap(), PATIENCE);
    let expected = "refused\nkept\non\nkept\n";
    assert_eq!((ran.code(), &*ran.out()), (0, expected), "{}", ran.err());
    let length = fs::metadata(sandbox.files.join("v/data.ext4"))
        .unwrap()
        .len();
    assert_eq!(length, 64 << 20);
}

/// An image with room for one volume, and where volumes are.
struct Baked {
    image: Image,
    volumes: PathBuf,
}

impl Baked {
    fn new(shelf: &Shelf) -> Self {
        let volumes = shelf.0.join("volumes");
        let config = library_config().with_volumes_dir(&volumes);
        let builder = shelf.builder().vm_config(config).volume_slots(1);
        let image = builder.build().unwrap();
        // A volume of the bake would be in the way of the copies'.
        assert!(!volumes.exists());
        Self { image, volumes }
    }

    fn config(&self, name: &str) -> VmConfig {
        let volume = VolumeSpec::new(name, "/data").with_size_mib(64);
        library_config()
            .with_volumes_dir(&self.volumes)
            .with_volume(volume)
    }

    fn copy(&self, name: &str) -> Vm {
        Vm::start(&self.image, &self.config(name)).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.volumes.join(format!("{name}.ext4"))
    }
}

#[test]
fn volumes_of_copies_are_one_machine_s_and_survive_it() {
    let shelf = Shelf::new("volumes");
    let baked = Baked::new(&shelf);
    one_machine_has_a_volume(&baked);
    forks_go_on_with_copies(&baked);
    what_was_synced_survives_a_killed_worker(&baked);
    hostile_volumes_reach_only_their_guest(&baked);
    replaced_volumes_stay_with_who_has_them(&baked);
}

fn one_machine_has_a_volume(baked: &Baked) {
    let first = baked.copy("data");
    sh(&first, "echo first > /data/name");
    let error = Vm::start(&baked.image, &baked.config("data")).unwrap_err();
    assert!(matches!(error, Error::VolumeInUse { .. }), "{error}");
    assert!(error.to_string().contains(first.id()), "{error}");
    let second = baked.copy("more");
    assert_eq!(sh(&second, "ls /data"), "lost+found");
    let without = copy(&baked.image);
    assert_eq!(sh(&without, "ls /data 2>/dev/null || echo none"), "none");
    let two = baked.config("a").with_volume(VolumeSpec::new("b", "/b"));
    let error = Vm::start(&baked.image, &two).unwrap_err();
    assert!(matches!(error, Error::Volume { .. }), "{error}");
    let pool = baked.image.pool().vm_config(baked.config("p"));
    let error = pool.build().map(drop).unwrap_err();
    assert!(matches!(error, Error::Unsuitable { .. }), "{error}");
    // One without them can be forked, and keeps its disk without content.
    let child = without.fork(1).unwrap().remove(0);
    let sizes = "cd /sys/block; grep -l volume0 vd*/serial | sed s/serial/size/ | xargs cat";
    assert_eq!(sh(&child, sizes), "0");
    mounted_volume_grows(baked, &first);
    first.stop().unwrap();
    assert_clean(&baked.file("data"));
    let next = baked.copy("data");
    assert_eq!(sh(&next, "cat /data/name"), "first");
    next.stop().unwrap();
    second.stop().unwrap();
    let store = VolumeStore::at(&baked.volumes);
    store.remove("more").unwrap();
}

/// Its volume has 64 MiB before.
fn mounted_volume_grows(baked: &Baked, vm: &Vm) {
    let mib = "df -m /data | awk 'NR == 2 { print $2 }'";
    let has = |vm: &Vm| sh(vm, mib).parse::<u64>().unwrap();
    assert!(has(vm) < 64);
    vm.grow_volume("data", 200).unwrap();
    assert!((150..200).contains(&has(vm)), "{}", has(vm));
    // As large already, and never smaller.
    vm.grow_volume("data", 100).unwrap();
    assert_eq!(fs::metadata(baked.file("data")).unwrap().len(), 200 << 20);
    let error = vm.grow_volume("none", 300).unwrap_err();
    assert!(matches!(error, Error::Volume { .. }), "{error}");
    // By the tool, which is not the one that started the machine, and whose store it is.
    let tool = |words: &[&str]| {
        let mut tool = Command::new(env!("CARGO_BIN_EXE_supermachine"));
        let child = tool
            .args(words)
            .env("SUPERMACHINE_VOLUMES", &baked.volumes)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        finish(child.unwrap(), PATIENCE)
    };
    let grown = tool(&["volume", "grow", "--size", "300m", "data", "more"]);
    assert_eq!(
        (grown.code(), &*grown.out()),
        (0, "data\nmore\n"),
        "{}",
        grown.err()
    );
    assert!((250..300).contains(&has(vm)), "{}", has(vm));
    assert_eq!(sh(vm, "cat /data/name"), "first");
    let image = baked.volumes.join("image").display().to_string();
    tool(&["volume", "export", "data", &image]).assert_refused(125, &["`data`"]);
}

fn forks_go_on_with_copies(baked: &Baked) {
    let parent = baked.copy("data");
    // Some of it is in the guest's memory only, and some is open.
    sh(&parent, "echo before > /data/f; sync; echo late > /data/g");
    let children = parent.fork(2).unwrap();
    for (vm, name) in [(&parent, "p"), (&children[0], "a"), (&children[1], "b")] {
        let script = format!(
            "cat /data/f /data/g; echo {name} >> /data/f; sync; echo 3 > /proc/sys/vm/drop_caches"
        );
        assert_eq!(sh(vm, &script), "before\nlate");
    }
    for (vm, name) in [(&parent, "p"), (&children[0], "a"), (&children[1], "b")] {
        assert_eq!(sh(vm, "cat /data/f"), format!("before\n{name}"));
    }
    // What is copied of a child is the child's.
    let grandchild = children[0].fork(1).unwrap().remove(0);
    assert_eq!(
        sh(&grandchild, "rm /data/g; sync; cat /data/f"),
        "before\na"
    );
    assert_eq!(sh(&children[0], "cat /data/g"), "late");
    snapshots_hold_copies(baked, &parent, &children[1]);
    // A child has nothing of the volume, which its parent gives back.
    parent.stop().unwrap();
    assert_clean(&baked.file("data"));
    let next = baked.copy("data");
    assert_eq!(sh(&next, "cat /data/f /data/g"), "before\np\nlate");
    next.stop().unwrap();
    drop((children, grandchild));
    let left: Vec<_> = fs::read_dir(&baked.volumes).unwrap().flatten().collect();
    let left: Vec<_> = left.iter().map(|entry| entry.file_name()).collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().starts_with('.')),
        "{left:?}"
    );
}

/// Both go on afterwards with what they had.
fn snapshots_hold_copies(baked: &Baked, parent: &Vm, child: &Vm) {
    for (vm, has) in [(parent, "before\np"), (child, "before\nb")] {
        let taken = vm.snapshot(baked.volumes.with_file_name("taken")).unwrap();
        sh(vm, "echo later > /data/later; sync");
        let copy = Vm::start(&taken, &library_config().with_volumes_dir(&baked.volumes)).unwrap();
        assert_eq!(
            sh(
                &copy,
                "cat /data/f; ls /data/later 2>/dev/null || echo none"
            ),
            format!("{has}\nnone")
        );
        sh(
            &copy,
            "echo copy > /data/f; rm /data/g; sync; echo 3 > /proc/sys/vm/drop_caches; cat /data/f",
        );
        assert_eq!(sh(vm, "cat /data/f"), has);
        sh(vm, "rm /data/later; sync");
        // The volume is taken, and the snapshot has one of its name.
        let error = Vm::start(&taken, &baked.config("data")).unwrap_err();
        assert!(error.to_string().contains("leave it out"), "{error}");
        copy.stop().unwrap();
    }
    fs::remove_dir_all(baked.volumes.with_file_name("taken")).unwrap();
}

fn what_was_synced_survives_a_killed_worker(baked: &Baked) {
    let vm = baked.copy("data");
    sh(&vm, "echo synced > /data/synced; sync");
    let writer = "while :; do for n in $(seq 50); do dd if=/dev/urandom of=/data/w$n bs=8k \
                  count=3; mv /data/w$n /data/m$n; rm -f /data/m$((n / 2)); done; \
                  : > /data/round; sync; : > /tmp/round; done > /dev/null 2>&1";
    sh(
        &vm,
        &format!("({writer}) & while ! [ -e /tmp/round ]; do sleep 0.05; done"),
    );
    signal(worker_of(&vm), rustix::process::Signal::KILL);
    let begun = Instant::now();
    while vm.status().is_ok() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(vm);
    // The guest's kernel replays the journal.
    let next = baked.copy("data");
    assert_eq!(
        sh(&next, "cat /data/synced; ls -d /data/round"),
        "synced\n/data/round"
    );
    sh(
        &next,
        "cat /data/m* > /dev/null; rm -f /data/m* /data/w*; dmesg > /tmp/log",
    );
    assert_eq!(sh(&next, "grep -c 'EXT4-fs error' /tmp/log || true"), "0");
    next.stop().unwrap();
    assert_clean(&baked.file("data"));
}

fn hostile_volumes_reach_only_their_guest(baked: &Baked) {
    let store = VolumeStore::at(&baked.volumes);
    store.create("bad", 64).unwrap();
    let path = baked.file("bad");
    let file = File::options().write(true).open(&path).unwrap();
    // Numbers that make no sense, under a sum that does not fit.
    file.write_all_at(&[0xff; 64], 1024).unwrap();
    let error = Vm::start(&baked.image, &baked.config("bad")).unwrap_err();
    assert!(matches!(error, Error::VolumeUnusable { .. }), "{error}");
    assert!(error.to_string().contains("`bad`"), "{error}");
    // Cut short while a guest has it: errors for the guest, which goes on.
    store.remove("bad").unwrap();
    let vm = baked.copy("bad");
    sh(
        &vm,
        "dd if=/dev/urandom of=/data/f bs=1M count=16 2>/dev/null; sync",
    );
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(1 << 20).unwrap();
    sh(
        &vm,
        "echo 3 > /proc/sys/vm/drop_caches; ! cat /data/f > /dev/null",
    );
    assert_eq!(sh(&vm, "echo alive"), "alive");
    vm.stop().unwrap();
    let error = Vm::start(&baked.image, &baked.config("bad")).unwrap_err();
    assert!(error.to_string().contains("cut short"), "{error}");
    store.remove("bad").unwrap();
}

/// Another file in the place of a volume is another volume, of whoever has it first.
fn replaced_volumes_stay_with_who_has_them(baked: &Baked) {
    let vm = baked.copy("kept");
    sh(&vm, "echo mine > /data/name; sync");
    let path = baked.file("kept");
    let aside = path.with_extension("aside");
    fs::rename(&path, &aside).unwrap();
    let store = VolumeStore::at(&baked.volumes);
    store.create("kept", 64).unwrap();
    let fresh = fs::read(&path).unwrap();
    sh(
        &vm,
        "echo more >> /data/name; sync; echo 3 > /proc/sys/vm/drop_caches",
    );
    assert_eq!(sh(&vm, "cat /data/name"), "mine\nmore");
    assert!(fs::read(&path).unwrap() == fresh);
    // The one there now is nobody's: the lock is the file's, not the name's.
    let other = baked.copy("kept");
    assert_eq!(
        sh(&other, "ls /data; echo other > /data/name; sync"),
        "lost+found"
    );
    assert_eq!(sh(&vm, "cat /data/name"), "mine\nmore");
    // Without a name it goes on as well, and its end takes nothing from the other.
    fs::remove_file(&aside).unwrap();
    sh(&vm, "echo last >> /data/name; sync");
    vm.stop().unwrap();
    assert_eq!(sh(&other, "cat /data/name"), "other");
    // A link in its place is no volume, whatever it leads to.
    other.stop().unwrap();
    assert_clean(&path);
    fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &path).unwrap();
    let error = Vm::start(&baked.image, &baked.config("kept")).unwrap_err();
    assert!(matches!(error, Error::Volume { .. }), "{error}");
    fs::remove_file(&path).unwrap();
    // Whoever else has it locked has it, though no machine does.
    fs::rename(&aside, &path).unwrap();
    let held = File::open(&path).unwrap();
    held.lock_shared().unwrap();
    let error = Vm::start(&baked.image, &baked.config("kept")).unwrap_err();
    assert!(matches!(error, Error::VolumeInUse { .. }), "{error}");
    drop(held);
    let next = baked.copy("kept");
    assert_eq!(sh(&next, "cat /data/name"), "other");
    next.stop().unwrap();
    store.remove("kept").unwrap();
}
