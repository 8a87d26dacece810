//! Hosts that have no more to give, or take away what a machine was given: what its guest
//! is told, and that it goes on.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use supermachine::{DaxPolicy, Error, Image, MountSpec, Vm, VmConfig};
use support::disk::Disk;
use support::shelf::*;
use support::*;

fn started(config: &VmConfig) -> Vm {
    let image = Image::load_with_cache(busybox(), cache()).unwrap();
    Vm::start(&image, config).unwrap()
}

/// Writes more than there is room for: by requests to a file that grows, and to the hole
/// of a file that is as long already, which is memory of the host's if files are mapped.
/// Who writes there and syncs is told of it, whichever it is.
const WRITER: &str = "cd /work; cat kept
    dd if=/dev/zero of=big bs=64k count=128 conv=fsync 2> /tmp/said || echo refused
    grep -c 'No space' /tmp/said
    rm big; truncate -s 8M hole
    dd if=/dev/zero of=hole bs=64k count=128 conv=notrunc,fsync 2> /tmp/said || echo refused
    rm hole; echo new > new && sync && cat new && rm new; cat kept";

#[test]
fn guests_of_a_full_disk_are_told_so_and_go_on() {
    let Some(disk) = Disk::new(16) else {
        println!("skipped: this user may not mount a file system in a namespace");
        return;
    };
    let dir = disk.path.join("work");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("kept"), "kept\n").unwrap();
    for dax in [None, Some(DaxPolicy::Always)] {
        let mount = MountSpec::new(&dir, "work").at("/work");
        let mount = match dax {
            None => mount,
            Some(policy) => mount.with_dax(policy).with_dax_window_mib(32),
        };
        let vm = started(&library_config().with_mount(mount));
        disk.leave(2 << 20);
        let said = sh(&vm, WRITER);
        assert_eq!(said, "kept\nrefused\n1\nrefused\nnew\nkept", "{dax:?}");
        // As soon as there is room, all of it is written.
        fs::remove_file(disk.path.join("fill")).unwrap();
        sh(
            &vm,
            "cd /work; truncate -s 4M hole; yes | head -c 4194304 > /tmp/yes
            dd if=/tmp/yes of=hole bs=64k conv=notrunc,fsync 2>&1",
        );
        let whole = b"y\n".repeat(2 << 20);
        assert!(fs::read(dir.join("hole")).unwrap() == whole, "{dax:?}");
        vm.stop().unwrap();
        fs::remove_file(dir.join("hole")).unwrap();
    }
}

/// Has more files open than its worker may: as many programs that read one each.
const HOLDER: &str = "for n in $(seq 400); do sleep 1000 < /work/f > /dev/null & done 2> /tmp/said
    running() { pidof sleep | wc -w; }
    for try in $(seq 300); do
        [ $(($(grep -c . /tmp/said) + $(running))) -ge 400 ] && break
        usleep 100000
    done
    [ $(grep -c 'Too many' /tmp/said) -gt 10 ] && [ $(running) -gt 50 ] && echo full ||
        { running; tail -n 3 /tmp/said; free; }";

#[test]
fn guests_that_open_all_they_can_leave_their_worker_what_it_needs() {
    let sandbox = Sandbox::new();
    let dir = sandbox.files.join("app");
    fs::create_dir_all(dir.join("d")).unwrap();
    fs::write(dir.join("f"), "content\n").unwrap();
    let mount = format!("{}:/work", dir.display());
    let words = [
        "run",
        "-d",
        "--name",
        "opens",
        "--no-snapshot",
        "-v",
        &mount,
    ];
    let run =
        sandbox.command(&[&words, &[busybox(), "--", "tail", "-f", "/dev/null"][..]].concat());
    // A worker may have no more than this, and has some fifty for itself.
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -n 300; exec \"$@\"", "sh"])
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
    assert_eq!(ran.code(), 0, "{}", ran.err());
    let inside = |script: &str| {
        let ran = sandbox.run(&["exec", "opens", "sh", "-c", script]);
        assert_eq!(ran.code(), 0, "{script}: {}", ran.err());
        ran.out()
    };
    assert_eq!(inside(HOLDER), "full\n");
    // Commands come through, and so does all that leaves nothing open.
    let script = "cd /work; stat -c %s f; mkdir d/new && stat -c %F d/new; rmdir d/new; mv d e
        stat -c %F e; ls 2> /dev/null || cat f 2> /dev/null || echo none left";
    let directory = "directory";
    let expected = format!("8\n{directory}\n{directory}\nnone left\n");
    assert_eq!(inside(script), expected);
    assert_eq!(inside("killall sleep; sleep 0.5; cat /work/f"), "content\n");
    sandbox.run(&["rm", "-f", "opens"]);
}

#[test]
fn directories_that_go_or_become_links_before_a_machine_starts() {
    let shelf = Shelf::new("going");
    let make = |name: &str| -> PathBuf {
        let dir = shelf.0.join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("name"), name).unwrap();
        dir
    };
    let (dir, other) = (make("dir"), make("other"));
    let config = library_config().with_mount(MountSpec::new(&dir, "work").at("/work"));
    let builder = shelf.builder();
    let mount = MountSpec::new(&dir, "work").at("/work");
    drop(builder.with_mount(mount).build().unwrap());
    // Not the one that has the machine of the bake, which has the directory.
    let image = Image::from_snapshot_with(shelf.0.join("image"), &library_config()).unwrap();
    let pool = || image.pool().vm_config(config.clone()).max(1).build();
    let away = shelf.0.join("away");
    fs::rename(&dir, &away).unwrap();
    let refused = |error: Error| {
        let said = error.to_string();
        assert!(matches!(error, Error::Host { .. }), "{said}");
        assert!(said.contains(dir.to_str().unwrap()), "{said}");
    };
    // A pool tries again, and tells of the last one.
    let cause = |error: &Error| {
        let cause = std::error::Error::source(error);
        cause.map_or(String::new(), |cause| format!("{cause}"))
    };
    refused(Vm::start(&image, &config).unwrap_err());
    let pooled = pool().and_then(|pool| pool.acquire().map(drop));
    let error = pooled.unwrap_err();
    assert!(cause(&error).contains(dir.to_str().unwrap()), "{error:?}");
    // A file, or a link that leads nowhere, is no directory either.
    fs::write(&dir, "").unwrap();
    refused(Vm::start(&image, &config).unwrap_err());
    fs::remove_file(&dir).unwrap();
    symlink(shelf.0.join("nowhere"), &dir).unwrap();
    refused(Vm::start(&image, &config).unwrap_err());
    fs::remove_file(&dir).unwrap();
    // Whoever names it may have a link there: it is followed once, at the start.
    symlink(&other, &dir).unwrap();
    let vm = Vm::start(&image, &config).unwrap();
    assert_eq!(sh(&vm, "cat /work/name"), "other");
    fs::remove_file(&dir).unwrap();
    symlink("/etc", &dir).unwrap();
    let script = "cat /work/name; [ -e /work/passwd ] && echo led astray; : > /work/new";
    assert_eq!(sh(&vm, script), "other");
    assert!(other.join("new").exists() && !Path::new("/etc/new").exists());
    // The machine that has it keeps it whatever becomes of its name.
    fs::remove_file(&dir).unwrap();
    fs::rename(&away, &dir).unwrap();
    fs::rename(&other, &away).unwrap();
    assert_eq!(sh(&vm, "cat /work/name"), "other");
    let pool = pool().unwrap();
    let pooled = pool.acquire().unwrap();
    assert_eq!(sh(&pooled, "cat /work/name"), "dir");
}

#[test]
fn a_directory_that_is_removed_under_its_guest_is_stale_and_nothing_else() {
    let shelf = Shelf::new("removed");
    let dir = shelf.0.join("dir");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/file"), "content").unwrap();
    let mount = MountSpec::new(&dir, "work").at("/work");
    let vm = started(&library_config().with_mount(mount));
    assert_eq!(sh(&vm, "cat /work/sub/file"), "content");
    fs::remove_dir_all(&dir).unwrap();
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/file"), "another").unwrap();
    let script = "sleep 1.1; cat /work/sub/file 2> /dev/null || echo gone
        echo x > /work/new 2> /dev/null || echo refused; echo alive";
    assert_eq!(sh(&vm, script), "gone\nrefused\nalive");
    assert!(!dir.join("new").exists());
}
