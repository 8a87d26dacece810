//! What a machine is given beside directories: single files of the host, and memory.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use supermachine::{Error, IdMap, IdRange, Image, MountSpec, TmpfsSpec, Vm};
use support::shelf::*;
use support::*;

const PLACE: &str = "/etc/app/settings.conf";

/// The guest believes for a second what it has seen before.
fn until(what: &str, wanted: impl Fn() -> bool) {
    let begun = Instant::now();
    while !wanted() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A file of the host, for one test.
fn settings(shelf: &Shelf, text: &str) -> PathBuf {
    let dir = shelf.0.join("files");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("beside"), "not shared").unwrap();
    let file = dir.join("settings");
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn one_file_is_the_guests_and_nothing_beside_it() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(&sandbox.files).unwrap();
    let file = sandbox.files.join("settings");
    fs::write(&file, "host\n").unwrap();
    fs::write(sandbox.files.join("beside"), "not shared\n").unwrap();
    let volume = format!("{}:{PLACE}", file.display());
    let script = format!(
        "cat {PLACE}; ls /etc/app; echo guest > {PLACE}; echo more >> {PLACE}; cat {PLACE}
         stat -c '%u:%g %F' {PLACE}; chmod 640 {PLACE}
         rm {PLACE} 2>/dev/null || echo kept; mv {PLACE} /etc/app/x 2>/dev/null || echo kept
         umount {PLACE} && cat {PLACE}; ls -A /run/supermachine-mounts/mount0"
    );
    let ran = sandbox.run_shell(&["--no-snapshot", "-v", &volume], &script);
    let expected = "host\nsettings.conf\nguest\nmore\n0:0 regular file\nkept\nkept\n";
    assert_eq!((ran.code(), &*ran.out()), (0, expected), "{}", ran.err());
    assert_eq!(fs::read(&file).unwrap(), b"guest\nmore\n");
    let read_only = format!("{}:{PLACE}:ro", file.display());
    let script = format!("cat {PLACE}; echo x > {PLACE} || echo refused");
    let ran = sandbox.run_shell(&["--no-snapshot", "-v", &read_only], &script);
    assert_eq!(ran.out(), "guest\nmore\nrefused\n", "{}", ran.err());
    let covered = format!("{}:{PLACE}:cow", file.display());
    let ran = sandbox.run_shell(&["-v", &covered], "true");
    ran.assert_refused(125, &["mount the file's directory"]);
}

#[test]
fn copies_are_given_a_file_and_keep_the_one_they_were_given() {
    let shelf = Shelf::new("given-file");
    let file = settings(&shelf, "baked");
    let mount = MountSpec::file(&file, "settings").at(PLACE);
    let config = library_config().with_mount(mount.clone());
    let image = shelf.builder().with_mount(mount).build().unwrap();
    let vm = Vm::start(&image, &config).unwrap();
    assert_eq!(sh(&vm, &format!("cat {PLACE}")), "baked");
    fs::write(&file, "edited in its place").unwrap();
    let edited = || sh(&vm, &format!("cat {PLACE}")) == "edited in its place";
    until("the edit", edited);
    // It is open where the machine forks.
    let held = format!(
        "exec 3< {PLACE}; touch /tmp/held; while ! [ -e /tmp/go ]; do sleep 0.05; done
         cat <&3 > /tmp/out; touch /tmp/done"
    );
    sh(
        &vm,
        &format!("({held}) >/dev/null 2>&1 & while ! [ -e /tmp/held ]; do sleep 0.05; done"),
    );
    let children = vm.fork(1).unwrap();
    fs::write(file.with_extension("new"), "renamed over").unwrap();
    fs::rename(file.with_extension("new"), &file).unwrap();
    let result = "touch /tmp/go; while ! [ -e /tmp/done ]; do sleep 0.05; done; cat /tmp/out";
    for vm in [&vm, &children[0]] {
        assert_eq!(sh(vm, result), "edited in its place");
        assert_eq!(sh(vm, &format!("cat {PLACE}")), "edited in its place");
    }
    let later = Vm::start(&image, &config).unwrap();
    assert_eq!(sh(&later, &format!("cat {PLACE}")), "renamed over");
    let directory = MountSpec::new(file.parent().unwrap(), "settings").at(PLACE);
    let error = Vm::start(&image, &library_config().with_mount(directory)).unwrap_err();
    assert!(matches!(error, Error::Mount { .. }), "{error}");
    assert!(error.to_string().contains("one file"), "{error}");
}

#[test]
fn memory_is_there_in_machines_copies_leases_and_forks() {
    let shelf = Shelf::new("given-memory");
    let warmed = TmpfsSpec::new("/warmed").with_size_mib(4).executable(true);
    let image = shelf
        .builder()
        .with_tmpfs(warmed.clone())
        .with_warmup(|vm| {
            vm.exec(["sh", "-c", "echo warm > /warmed/file"])?;
            Ok(())
        })
        .build()
        .unwrap();
    let scratch = TmpfsSpec::new("/scratch/deep")
        .with_size_mib(1)
        .with_mode(0o700);
    let config = library_config().with_tmpfs(scratch.clone());
    let both = "cat /warmed/file; ls -A /scratch/deep; stat -c %a /scratch/deep
        head -c 4m /dev/zero > /scratch/deep/much 2>/dev/null; stat -c %s /scratch/deep/much
        rm /scratch/deep/much
        for dir in /warmed /scratch/deep; do
            echo '#!/bin/sh' > $dir/script; chmod 755 $dir/script
            $dir/script 2>/dev/null; echo $?
        done
        echo changed > /warmed/file";
    let expected = "warm\n700\n1048576\n0\n126";
    let pool = image
        .pool()
        .vm_config(config.clone())
        .max(1)
        .build()
        .unwrap();
    for _ in 0..3 {
        let vm = pool.acquire().unwrap();
        assert_eq!(sh(&vm, both), expected);
    }
    let vm = Vm::start(&image, &config.clone().with_tmpfs(warmed)).unwrap();
    sh(&vm, "echo mine > /scratch/deep/file");
    // What is in it goes on in what is made of the machine, and is not covered.
    let child = vm.fork(1).unwrap().remove(0);
    assert_eq!(sh(&child, "cat /scratch/deep/file"), "mine");
    let taken = vm.snapshot(shelf.0.join("taken")).unwrap();
    let copy = Vm::start(&taken, &config).unwrap();
    assert_eq!(
        sh(&copy, "cat /scratch/deep/file; grep -c deep /proc/mounts"),
        "mine\n1"
    );
    let other = library_config().with_tmpfs(scratch.with_size_mib(2));
    let error = Vm::start(&taken, &other).unwrap_err();
    assert!(error.to_string().contains("another size"), "{error}");
    assert!(matches!(error, Error::Mount { .. }), "{error}");
}

#[test]
fn owners_are_what_the_guest_says_and_the_host_keeps_its_own() {
    let shelf = Shelf::new("given-owners");
    let dir = shelf.0.join("files");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("hosts"), "").unwrap();
    let own = fs::metadata(&dir).unwrap();
    let image = Image::load_with_cache(busybox(), cache()).unwrap();
    let start = |mount: MountSpec| {
        let config = library_config().with_mount(mount.at("/work"));
        Vm::start(&image, &config).unwrap()
    };
    let recorded = || start(MountSpec::new(&dir, "files").with_recorded_owners());
    let vm = recorded();
    let script = "cd /work; umask 022; touch a; mkdir d; chown 33:34 a d; chmod 400 a
        stat -c %u:%g:%a a d hosts; ln -s a l; chown -h 1:1 l; tar -cf /tmp/t a; tar -xf /tmp/t
        stat -c %u:%g:%a a";
    assert_eq!(sh(&vm, script), "33:34:400\n33:34:755\n0:0:644\n33:34:400");
    drop(vm);
    // Another machine is told the same by the tree alone.
    assert_eq!(sh(&recorded(), "stat -c %u:%g:%a /work/a"), "33:34:400");
    let host = fs::metadata(dir.join("a")).unwrap();
    assert_eq!((host.uid(), host.gid()), (own.uid(), own.gid()));
    assert_eq!(host.mode() & 0o7777, 0o600);
    let number = |guest, host| {
        vec![IdRange {
            guest,
            host,
            count: 1,
        }]
    };
    let map = IdMap {
        users: number(1000, own.uid()),
        groups: number(1000, own.gid()),
    };
    let vm = start(MountSpec::new(&dir, "files").with_owner_map(map));
    let script = "cd /work; stat -c %u:%g hosts; touch root 2>/dev/null || echo refused
        chown 1 hosts 2>/dev/null || echo refused";
    assert_eq!(sh(&vm, script), "1000:1000\nrefused\nrefused");
    assert!(!dir.join("root").exists());
    // A file system that keeps no attributes says so before a machine starts.
    let nowhere = MountSpec::new("/proc/sys", "files").with_recorded_owners();
    let error = Vm::start(&image, &library_config().with_mount(nowhere)).unwrap_err();
    assert!(matches!(error, Error::Mount { .. }), "{error}");
    assert!(error.to_string().contains("attributes"), "{error}");
    let twice = [number(0, 1), number(0, 2)].concat();
    let map = IdMap {
        users: twice,
        groups: Vec::new(),
    };
    let twice = MountSpec::new(&dir, "files").with_owner_map(map);
    let error = Vm::start(&image, &library_config().with_mount(twice)).unwrap_err();
    assert!(error.to_string().contains("apart"), "{error}");
}
