//! Files of the host that guests map: a machine that boots, a window smaller than what
//! is read, files that end while they are mapped, and copies.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use supermachine::{DaxPolicy, MountSpec, Vm, VmConfig};
use support::shelf::*;
use support::*;

/// A directory of one test with files in it, and its snapshots.
struct Dir(Shelf);

impl Dir {
    fn new(test: &str) -> Self {
        let dir = Self(Shelf::new(test));
        fs::create_dir_all(dir.0.0.join("dir")).unwrap();
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.0.join("dir").join(name)
    }

    /// A file in which no two blocks are the same.
    fn file(&self, name: &str, mib: u64) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, blocks(mib, name.len() as u64)).unwrap();
        path
    }

    fn mount(&self, window_mib: u32) -> MountSpec {
        MountSpec::new(self.path(""), "workspace")
            .at("/work")
            .with_dax(DaxPolicy::Always)
            .with_dax_window_mib(window_mib)
    }

    fn config(&self, window_mib: u32) -> VmConfig {
        library_config().with_mount(self.mount(window_mib))
    }

    /// Whether the worker of some machine has the file mapped.
    fn is_mapped(&self, name: &str) -> bool {
        let path = self.path(name).to_string_lossy().into_owned();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let mut maps =
            processes.filter_map(|process| fs::read_to_string(process.path().join("maps")).ok());
        maps.any(|maps| maps.contains(&path))
    }
}

fn blocks(mib: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..mib << 17).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

fn host_sum(path: &Path) -> String {
    let out = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(out.stdout).unwrap()[..64].to_owned()
}

fn guest_sum(vm: &Vm, name: &str) -> String {
    sh(vm, &format!("sha256sum < /work/{name}"))[..64].to_owned()
}

fn boot(config: &VmConfig) -> Vm {
    let image = supermachine::Image::load_with_cache(busybox(), cache()).unwrap();
    Vm::start(&image, config).unwrap()
}

#[test]
fn guest_maps_files_and_both_sides_see_changes_at_once() {
    let dir = Dir::new("mapped-files");
    let data = dir.file("data", 5);
    let vm = boot(&dir.config(64));
    assert_eq!(guest_sum(&vm, "data"), host_sum(&data));
    assert!(dir.is_mapped("data"));
    let head = |vm: &Vm| sh(vm, "dd if=/work/data bs=1 skip=3000000 count=5 2>/dev/null");
    let file = File::options().write(true).open(&data).unwrap();
    for text in ["first", "other", "third"] {
        file.write_all_at(text.as_bytes(), 3_000_000).unwrap();
        assert_eq!(head(&vm), text);
    }
    let script = "printf guest | dd of=/work/data bs=5 seek=700000 conv=notrunc 2>/dev/null";
    sh(&vm, script);
    let mut there = [0; 5];
    File::open(&data)
        .unwrap()
        .read_exact_at(&mut there, 3_500_000)
        .unwrap();
    assert_eq!(&there, b"guest");
    // Longer than it was, and a new one.
    sh(
        &vm,
        "cat /work/data /work/data > /work/twice; cat /work/data >> /work/data2",
    );
    let twice = fs::read(&data).unwrap().repeat(2);
    assert!(fs::read(dir.path("twice")).unwrap() == twice);
    assert_eq!(guest_sum(&vm, "data2"), host_sum(&data));
    // A program is mapped, too.
    sh(
        &vm,
        "cp /bin/busybox /work/busybox; chmod 755 /work/busybox",
    );
    assert_eq!(sh(&vm, "/work/busybox echo run"), "run");
    assert_eq!(
        fs::metadata(dir.path("busybox"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o755
    );
    sh(&vm, "umount /work");
    assert!(!dir.is_mapped("data") && !dir.is_mapped("busybox"));
}

#[test]
fn files_larger_than_the_window_are_read_and_written() {
    let dir = Dir::new("mapped-large");
    let names = ["a", "bb", "ccc"];
    let files = names.map(|name| dir.file(name, 24));
    let vm = boot(&dir.config(8));
    let script = "cd /work; for f in a bb ccc; do sha256sum < $f > /tmp/$f & done; wait
        for f in a bb ccc; do head -c 64 /tmp/$f; echo; done";
    let sums = sh(&vm, script);
    let expected = files.each_ref().map(|file| host_sum(file)).join("\n");
    assert_eq!(sums, expected);
    sh(
        &vm,
        "cd /work; cp a d; dd if=bb of=ccc bs=1M conv=notrunc 2>/dev/null",
    );
    assert_eq!(host_sum(&dir.path("d")), host_sum(&files[0]));
    assert_eq!(host_sum(&files[2]), host_sum(&files[1]));
}

#[test]
fn what_a_mapped_file_no_longer_has_is_zeros_and_comes_back_with_it() {
    let dir = Dir::new("mapped-short");
    let data = dir.file("data", 6);
    let vm = boot(&dir.config(64));
    // A program that reads on where the file was, with its size as it was.
    let holder = "cat > /tmp/holder <<'END'
exec 3< /work/data
dd bs=1M count=1 <&3 > /dev/null 2>&1
touch /tmp/ready
while ! [ -e /tmp/go ]; do sleep 0.01; done
dd bs=1M count=5 <&3 2>/dev/null | tr -d '\\0' | wc -c > /tmp/out
touch /tmp/done
END
sha256sum /work/data
sh /tmp/holder > /dev/null 2>&1 &
while ! [ -e /tmp/ready ]; do sleep 0.01; done";
    sh(&vm, holder);
    let before = fs::read(&data).unwrap();
    File::options()
        .write(true)
        .open(&data)
        .unwrap()
        .set_len(10)
        .unwrap();
    sh(
        &vm,
        "touch /tmp/go; while ! [ -e /tmp/done ]; do sleep 0.01; done",
    );
    assert_eq!(sh(&vm, "cat /tmp/out"), "0");
    // Whoever looks anew sees the new size, and what is there later.
    until("the size", || sh(&vm, "stat -c %s /work/data") == "10");
    fs::write(&data, &before).unwrap();
    until("the content", || guest_sum(&vm, "data") == host_sum(&data));
    // And it goes on without end.
    for round in 0..20 {
        File::options()
            .write(true)
            .open(&data)
            .unwrap()
            .set_len(round)
            .unwrap();
        sh(&vm, "cat /work/data > /dev/null");
        fs::write(&data, &before).unwrap();
    }
    until("the content", || guest_sum(&vm, "data") == host_sum(&data));
}

#[test]
fn copies_forks_and_resets_see_the_same_files_where_they_were() {
    let dir = Dir::new("mapped-copies");
    let (kept, replaced) = (dir.file("kept", 4), dir.file("replaced", 2));
    let builder = dir.0.builder().with_mount(dir.mount(32));
    let image = builder.build().unwrap();
    let vm = Vm::start(&image, &dir.config(32)).unwrap();
    let holder = "cat > /tmp/holder <<'END'
exec 3< /work/kept 4< /work/replaced
dd bs=1M count=1 <&3 > /dev/null 2>&1
dd bs=1M count=1 <&4 > /dev/null 2>&1
touch /tmp/ready
while ! [ -e /tmp/go ]; do sleep 0.05; done
dd bs=1M count=9 <&3 2>/dev/null | sha256sum | head -c 64 > /tmp/kept
dd bs=1M count=9 <&4 2>/dev/null | sha256sum | head -c 64 > /tmp/replaced
touch /tmp/done
END
sha256sum /work/kept /work/replaced
sh /tmp/holder > /dev/null 2>&1 &
while ! [ -e /tmp/ready ]; do sleep 0.05; done";
    sh(&vm, holder);
    let result = "touch /tmp/go; while ! [ -e /tmp/done ]; do sleep 0.05; done
        cat /tmp/kept; echo; cat /tmp/replaced";
    let taken = vm.snapshot(dir.0.0.join("taken")).unwrap();
    let children = vm.fork(2).unwrap();
    let rest = |path: &Path| {
        let content = fs::read(path).unwrap();
        let part = dir.0.0.join("part");
        fs::write(&part, &content[1 << 20..]).unwrap();
        host_sum(&part)
    };
    let old = rest(&replaced);
    fs::rename(&replaced, dir.path("old")).unwrap();
    fs::write(&replaced, blocks(2, 77)).unwrap();
    // In place: it is the same file, and seen as it is now.
    let file = File::options().write(true).open(&kept).unwrap();
    file.write_all_at(&[7; 100], 3 << 20).unwrap();
    assert_eq!(sh(&vm, result), format!("{}\n{old}", rest(&kept)));
    let copy = Vm::start(&taken, &dir.config(32)).unwrap();
    let nothing = dir.0.0.join("zeros");
    fs::write(&nothing, vec![0; 1 << 20]).unwrap();
    // Children mapped it while it had its name; the copy came later.
    let with = |replaced: &str| format!("{}\n{replaced}", rest(&kept));
    assert_eq!(sh(&copy, result), with(&host_sum(&nothing)));
    for child in &children {
        assert_eq!(sh(child, result), with(&old));
    }
    for vm in children.iter().chain([&copy]) {
        assert_eq!(guest_sum(vm, "kept"), host_sum(&kept));
        assert_eq!(guest_sum(vm, "replaced"), host_sum(&replaced));
    }
    drop((vm, children, copy));
    let pool = image
        .pool()
        .vm_config(dir.config(32))
        .max(1)
        .build()
        .unwrap();
    for round in 0..3_u8 {
        file.write_all_at(&[round], 2 << 20).unwrap();
        let vm = pool.acquire().unwrap();
        assert_eq!(guest_sum(&vm, "kept"), host_sum(&kept), "{round}");
        let script = "printf x | dd of=/work/kept seek=99 bs=1 conv=notrunc 2>/dev/null
            (exec 8< /work/kept; sleep 1000) > /dev/null 2>&1 &";
        sh(&vm, script);
    }
}

fn until(what: &str, wanted: impl Fn() -> bool) {
    let begun = Instant::now();
    while !wanted() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
