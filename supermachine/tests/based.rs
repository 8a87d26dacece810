//! Machines that are baked as copies of a base, which waits for its layers.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use supermachine::{Image, Network, Vm};
use support::shelf::*;
use support::*;

/// What programs find around them, but for what differs from start to start.
const SURROUNDINGS: &str = "
    sed 's/ rw.*//' /proc/self/mounts | sort
    cat /etc/hosts /etc/resolv.conf /etc/hostname /proc/sys/kernel/hostname
    cat /proc/self/cgroup /sys/fs/cgroup/pids.max
    grep -v -e KiB -e processes /proc/self/limits
    umask; id; env | sort; pwd
    for place in / /tmp /run /dev /dev/shm /dev/fuse /dev/pts/ptmx /sys /proc /etc; do
        stat -c '%n %F %a %u %g' $place
    done
    ls / /dev /run /sys /sys/block
    cat /sys/block/vd*/size /sys/block/vd*/ro
    for setting in fs/protected_symlinks vm/stat_interval vm/max_map_count; do
        cat /proc/sys/$setting
    done
    ip addr show | grep -e inet -e ether
    ip route";

/// The one base of a shelf.
fn base(shelf: &Shelf) -> PathBuf {
    let bases = fs::read_dir(shelf.0.join(".bases")).unwrap();
    let mut bases = bases
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() && path.join("current").exists());
    let base = bases.next().unwrap();
    assert!(bases.next().is_none());
    base
}

fn generations(base: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(base).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.join("mem.bin").exists()).collect();
    paths.sort();
    paths
}

#[test]
fn a_copy_of_the_base_is_as_a_machine_that_boots() {
    let shelf = Shelf::new("based");
    let config = library_config()
        .with_network(Network::AllowAll)
        .with_max_processes(77)
        .with_hostname("as-told");
    let booted = Vm::start(&library_image(), &config).unwrap();
    let baked = shelf.builder().vm_config(config.clone()).build().unwrap();
    let copy = baked.start(&config).unwrap();
    assert_eq!(sh(&booted, SURROUNDINGS), sh(&copy, SURROUNDINGS));
    // It is one: in another image of the same number of layers the kernel is where it is here.
    let kernel = "grep ' _text$' /proc/kallsyms || cat /proc/version";
    let other = shelf.builder().name("other").vm_config(config.clone());
    let other = other.env("ANOTHER", "1").build().unwrap();
    assert_eq!(
        sh(&copy, kernel),
        sh(&other.start(&config).unwrap(), kernel)
    );
    assert_eq!(generations(&base(&shelf)).len(), 1);
}

#[test]
fn an_image_is_baked_though_its_base_is_damaged() {
    let shelf = Shelf::new("bad-base");
    drop(shelf.bake());
    let [first] = &generations(&base(&shelf))[..] else {
        panic!("more than one");
    };
    let memory = File::options()
        .write(true)
        .open(first.join("mem.bin"))
        .unwrap();
    let bytes = memory.metadata().unwrap().len();
    for page in 0..bytes / 4096 {
        memory.write_all_at(&[0x5a; 16], page * 4096).unwrap();
    }
    let bake = |tag: &str| -> Image {
        let builder = shelf.builder().name(tag).with_warmup_tag(tag);
        builder.build().unwrap()
    };
    let whole = bake("whole");
    assert_eq!(
        sh(&whole.start(&library_config()).unwrap(), "echo up"),
        "up"
    );
    // The next has a base of its own again.
    let next = bake("next");
    assert_eq!(sh(&next.start(&library_config()).unwrap(), "echo up"), "up");
    assert!(!generations(&base(&shelf)).contains(first));
}
