//! Programs that watch a mount hear what the host changes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use supermachine::{MountSpec, Vm, VmConfig};
use supermachine_tests::{config, image, sh};
use tempfile::TempDir;

/// Watches directories by inotify(7) until `end` is made; prints each event as its mask
/// and name, and what a file says when it hears that it was changed.
const WATCHER: &str = r"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
ALL = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
queue = libc.inotify_init1(0)
places = {}
for path in sys.argv[1:]:
    places[libc.inotify_add_watch(queue, path.encode(), ALL)] = path
assert min(places) > 0, (places, ctypes.get_errno())
for path in sys.argv[1:]:
    if os.path.isfile(path): open(path).read()
open('/tmp/ready', 'w').close()
while True:
    data = os.read(queue, 65536)
    while data:
        watch, mask, cookie, length = struct.unpack_from('iIII', data)
        name = data[16:16 + length].rstrip(b'\0').decode()
        data = data[16 + length:]
        if name == 'end': sys.exit()
        path = os.path.join(places.get(watch, '?'), name) if name else places.get(watch, '?')
        line = '%x %s' % (mask & 0x4000ffff, path)
        if mask & 0x2:
            # It may be gone, or have another name by now.
            try: line += ' ' + open(path).read()
            except FileNotFoundError: pass
        print(line, flush=True)
";

/// How long a guest may take to begin to watch.
const PATIENCE: Duration = Duration::from_secs(120);

fn directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    dir
}

fn with(dir: &Path) -> VmConfig {
    let mount = MountSpec::new(dir, "work").at("/work");
    config().with_vcpus(2).with_mount(mount)
}

/// Has a program watch these, in the background of the guest.
fn watch(vm: &Vm, places: &str) {
    let written = vm
        .exec_builder()
        .stage_file("/tmp/watch.py", WATCHER.as_bytes());
    let script = format!(
        "rm -f /tmp/ready; python3 /tmp/watch.py {places} > /tmp/heard 2>&1 < /dev/null &
         echo $! > /tmp/pid; while ! [ -e /tmp/ready ]; do sleep 0.1; done"
    );
    let out = written
        .argv(["sh", "-c", &script])
        .timeout(PATIENCE)
        .output();
    let out = out.unwrap();
    assert!(out.success(), "{out:?}");
}

/// What it has heard, once the host has made `end`.
fn heard(vm: &Vm) -> Vec<String> {
    let script = "n=0; while [ -d /proc/$(cat /tmp/pid) ]
        do n=$((n+1)); [ $n -lt 600 ] || exit 1; sleep 0.1; done; cat /tmp/heard";
    sh(vm, script).lines().map(str::to_owned).collect()
}

fn end(dir: &Path) {
    fs::write(dir.join("end"), "").unwrap();
}

#[test]
fn watchers_hear_host_edits_and_read_what_is_there_now() {
    let place = directory();
    let dir = place.path();
    for (name, text) in [("config", "old"), ("gone", ""), ("sub/inner", "")] {
        fs::write(dir.join(name), text).unwrap();
    }
    let vm = image("python3").start(&with(dir)).unwrap();
    watch(&vm, "/work /work/sub /work/config /work/gone");
    fs::write(dir.join("config"), "new").unwrap();
    // Each is heard before the next.
    let pause = || std::thread::sleep(Duration::from_millis(300));
    pause();
    fs::write(dir.join("made"), "x").unwrap();
    pause();
    fs::rename(dir.join("made"), dir.join("sub/moved")).unwrap();
    pause();
    fs::remove_file(dir.join("gone")).unwrap();
    fs::create_dir(dir.join("young")).unwrap();
    pause();
    // As editors write.
    fs::write(dir.join("config~"), "newest").unwrap();
    fs::rename(dir.join("config~"), dir.join("config")).unwrap();
    pause();
    assert_eq!(
        sh(&vm, "cat /work/config; stat -c %s /work/sub/moved"),
        "newest1\n"
    );
    end(dir);
    let heard = heard(&vm);
    let has = |line: &str| heard.iter().filter(|heard| *heard == line).count();
    let expected = [
        "8 /work/config",
        "100 /work/made",
        "40 /work/made",
        "80 /work/sub/moved",
        "200 /work/gone",
        "400 /work/gone",
        "40000100 /work/young",
        "80 /work/config",
        "400 /work/config",
    ];
    for line in expected {
        // A file that is watched by itself says so as well.
        let times = 1 + usize::from(line == "8 /work/config");
        assert_eq!(has(line), times, "{line}: {heard:#?}");
    }
    // It was made empty and written, which is one change or two.
    assert!(has("2 /work/config new") >= 2, "{heard:#?}");
}

#[test]
fn guest_hears_its_own_changes_once() {
    let place = directory();
    let dir = place.path();
    let vm = image("python3").start(&with(dir)).unwrap();
    watch(&vm, "/work");
    let script = "cd /work; echo x > a; sleep 0.2; echo y >> a; mv a b; chmod 600 b; sleep 0.2
        rm b; mkdir d; rmdir d; for n in $(seq 50); do echo $n > n; done; rm n; sleep 0.3";
    sh(&vm, script);
    end(dir);
    let heard = heard(&vm);
    let count = |start: &str| heard.iter().filter(|line| line.starts_with(start)).count();
    for (start, times) in [
        ("100 /work/a", 1),
        ("2 /work/a", 2),
        ("8 /work/a", 2),
        ("40 /work/a", 1),
        ("80 /work/b", 1),
        ("4 /work/b", 1),
        ("200 /work/b", 1),
        ("40000100 /work/d", 1),
        ("40000200 /work/d", 1),
        ("100 /work/n", 1),
        ("8 /work/n", 50),
        ("200 /work/n", 1),
    ] {
        assert_eq!(count(start), times, "{start}: {heard:#?}");
    }
    // Each makes it empty and writes to it, but for the first; the queue merges some.
    assert!((50..=99).contains(&count("2 /work/n")), "{heard:#?}");
}

#[test]
fn watchers_are_told_when_they_have_missed_something() {
    let place = directory();
    let dir = place.path();
    let vm = image("python3").start(&with(dir)).unwrap();
    watch(&vm, "/work");
    vm.pause().unwrap();
    for n in 0..6000 {
        fs::write(dir.join(format!("sub-{n}")), "").unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    vm.resume().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(sh(&vm, "ls /work | wc -l"), "6001\n");
    end(dir);
    let heard = heard(&vm);
    assert_eq!(heard.iter().filter(|line| *line == "4000 ?").count(), 1);
    assert!(heard.len() < 6000, "{}", heard.len());
}

#[test]
fn copies_forks_and_the_original_hear_the_host() {
    let place = directory();
    let dir = place.path();
    let vm = image("python3").start(&with(dir)).unwrap();
    watch(&vm, "/work /work/sub");
    let elsewhere = tempfile::tempdir().unwrap();
    let taken = vm.snapshot(elsewhere.path().join("taken")).unwrap();
    let children = vm.fork(1).unwrap();
    let copy = Vm::start(&taken, &with(dir)).unwrap();
    let untold = MountSpec::new(dir, "work").at("/work").with_watch(false);
    let untold = Vm::start(&taken, &config().with_vcpus(2).with_mount(untold)).unwrap();
    // The machines are at work again.
    for vm in children.iter().chain([&vm, &copy, &untold]) {
        sh(vm, "true");
    }
    fs::write(dir.join("sub/made"), "").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    end(dir);
    for vm in children.iter().chain([&vm, &copy]) {
        let heard = heard(vm);
        assert!(
            heard.contains(&"100 /work/sub/made".to_owned()),
            "{heard:?}"
        );
    }
    assert_eq!(sh(&untold, "cat /tmp/heard"), "");
}
