//! Files of a guest through the agent's own tool, in an image without any.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use supermachine::{CopyOptions, Error, ErrorKind, FileKind};
use supermachine_tests::{Guest, sh};

/// A directory of one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sm-tree-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A tree with what copies like to lose.
fn plant(root: &Path) {
    fs::create_dir_all(root.join("deep/er/est")).unwrap();
    fs::write(root.join("large"), noise(3_000_000)).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("deep/run"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(root.join("deep/run"), PermissionsExt::from_mode(0o750)).unwrap();
    fs::hard_link(root.join("deep/run"), root.join("again")).unwrap();
    symlink("../large", root.join("deep/link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    fs::write(root.join("name with \u{e4} and\nline"), "odd").unwrap();
    fs::set_permissions(root.join("deep/er"), PermissionsExt::from_mode(0o555)).unwrap();
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..bytes).map(next).collect()
}

/// Names, kinds, modes, times, sizes and targets below a directory, as find(1) sees
/// them.
fn listing(root: &Path) -> String {
    let find = Command::new("find")
        .args([".", "-printf", "%P\\0%y %m %s %T@ %n %l\\n"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(find.status.success());
    let mut lines: Vec<_> = find.stdout.split(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    String::from_utf8_lossy(&lines.join(&b'\n')).into_owned()
}

#[test]
fn trees_come_back_as_they_went_in() {
    let scratch = Scratch::new("round");
    let (there, back) = (scratch.0.join("there"), scratch.0.join("back"));
    plant(&there);
    let guest = Guest::boot("busybox", 1, 256);
    let vm = guest.vm();
    let copied = vm.copy_in(&there, "/srv/new/tree").unwrap();
    assert_eq!((copied.entries, copied.skipped), (11, 0));
    assert_eq!(
        sh(vm, "cd /srv/new/tree && deep/run && ./again"),
        "ran\nran\n"
    );
    assert_eq!(
        sh(vm, "stat -c '%a %u %h' /srv/new/tree/again"),
        "750 0 2\n"
    );
    assert_eq!(sh(vm, "readlink /srv/new/tree/deep/link"), "../large\n");
    vm.copy_out("/srv/new/tree", &back).unwrap();
    assert_eq!(listing(&back), listing(&there));
    assert_eq!(fs::read(back.join("large")).unwrap(), noise(3_000_000));

    // A file alone, over a link that must not be followed.
    let target = scratch.0.join("target");
    symlink(there.join("large"), &target).unwrap();
    vm.copy_out("/srv/new/tree/deep/run", &target).unwrap();
    assert!(fs::symlink_metadata(&target).unwrap().is_file());
    assert_eq!(fs::metadata(there.join("large")).unwrap().len(), 3_000_000);
    for writable in [&there, &back] {
        fs::set_permissions(writable.join("deep/er"), PermissionsExt::from_mode(0o755)).unwrap();
    }
    guest.finish();
}

#[test]
fn directories_are_listed_made_renamed_and_removed() {
    let guest = Guest::boot("busybox", 1, 256);
    let vm = guest.vm();
    vm.mkdir_all("/data/a/b").unwrap();
    vm.mkdir_all("/data/a/b").unwrap();
    assert!(matches!(vm.mkdir("/data/a"), Err(Error::Exec { .. })));
    vm.write_file("/data/a/file", b"12345").unwrap();
    sh(
        vm,
        "ln -s /etc/passwd /data/a/link; mkfifo /data/a/fifo; chown 7:8 /data/a/file",
    );
    let mut found = vm.read_dir("/data/a").unwrap();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<_> = found
        .iter()
        .map(|info| info.name.to_str().unwrap())
        .collect();
    assert_eq!(names, ["b", "fifo", "file", "link"]);
    let kinds: Vec<_> = found.iter().map(|info| info.kind).collect();
    let expected = [
        FileKind::Directory,
        FileKind::Fifo,
        FileKind::File,
        FileKind::Symlink,
    ];
    assert_eq!(kinds, expected);
    assert_eq!((found[2].bytes, found[2].uid, found[2].gid), (5, 7, 8));
    assert_eq!(found[3].target.as_deref(), Some(Path::new("/etc/passwd")));

    vm.rename("/data/a/file", "/data/moved").unwrap();
    assert_eq!(vm.stat("/data/moved").unwrap().bytes, 5);
    let gone = vm.stat("/data/a/file").unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
    assert!(gone.to_string().contains("/data/a/file"), "{gone}");
    assert!(vm.remove("/data/a").is_err());
    vm.remove("/data/a/link").unwrap();
    vm.remove_all("/data/a").unwrap();
    assert_eq!(sh(vm, "ls /data; grep -c root /etc/passwd"), "moved\n1\n");
    assert!(vm.read_dir("data").is_err());
    guest.finish();
}

#[test]
fn a_guest_that_swaps_links_under_a_copy_misleads_nobody() {
    let scratch = Scratch::new("race");
    let source = scratch.0.join("source");
    fs::create_dir_all(source.join("d")).unwrap();
    for number in 0..5000 {
        fs::write(source.join(format!("d/{number}")), "planted").unwrap();
    }
    // On one CPU the link is there before the copy makes the directory anew.
    let guest = Guest::boot("busybox", 1, 256);
    let vm = guest.vm();
    sh(vm, "mkdir -p /home/u /home/secret; chmod 777 /home/u");
    // It waits for the directory, and has it away and a link there while files come.
    let swap = "cd /home/u; mkdir t; while [ ! -e end ]; do \
                [ -d t/d ] && mv t/d gone.$((n += 1)) && ln -s /home/secret t/d; \
                usleep 20000; rm -f t/d; done 2>/dev/null";
    let swapper = vm.exec_builder().argv(["sh", "-c", swap]).spawn().unwrap();
    // They may fail: names come and go. Where they write is what counts.
    let swapped = (0..50).find(|_| {
        let _ = vm.copy_in(&source, "/home/u/t");
        let swaps = sh(vm, "ls -d /home/u/gone.* 2>/dev/null | wc -l");
        swaps.trim().parse::<u32>().unwrap() >= 3
    });
    assert!(swapped.is_some(), "nothing was swapped");
    vm.write_file("/home/u/end", b"").unwrap();
    swapper.wait().unwrap();
    assert_eq!(sh(vm, "ls /home/secret | wc -l").trim(), "0");
    guest.finish();
}

#[test]
fn endless_files_end_at_the_limit() {
    let scratch = Scratch::new("endless");
    let guest = Guest::boot("busybox", 1, 256);
    let vm = guest.vm();
    sh(
        vm,
        "mkdir /big; truncate -s 100G /big/sparse; mkfifo /big/fifo; ln -s /big /big/loop",
    );
    let mut options = CopyOptions::default();
    options.max_bytes = 1 << 20;
    let error = vm
        .copy_out_with("/big", scratch.0.join("big"), &options)
        .unwrap_err();
    assert!(matches!(error, Error::CopyTooLarge { .. }), "{error}");
    let written = fs::metadata(scratch.0.join("big/sparse")).unwrap().size();
    assert!(written <= 1 << 20, "{written}");
    // Special files have no content that a copy would wait for.
    sh(vm, "rm /big/sparse");
    let copied = vm.copy_out("/big", scratch.0.join("rest")).unwrap();
    assert_eq!((copied.entries, copied.skipped), (3, 1));
    guest.finish();
}
