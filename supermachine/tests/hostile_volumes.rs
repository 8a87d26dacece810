//! Volumes whose file system was made to mislead whoever mounts it. The host reads nothing
//! of one: what becomes of it is the guest's.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use supermachine::{Error, Vm, VolumeSpec, VolumeStore};
use support::shelf::*;
use support::*;

/// What debugfs of e2fsprogs changes, with sums that fit, so that the guest's kernel
/// gets to see it.
const CHANGES: &[(&str, &str)] = &[
    ("root directory far away", "sif <2> block[5] 0xfffffff0"),
    ("root is no directory", "sif <2> mode 0100644"),
    ("root is deleted", "sif <2> links_count 0\nsif <2> dtime 1"),
    ("extents without end", "sif f block[0] 0xfffff30a"),
    ("extents deeper than there are", "sif f block[1] 0xffff0003"),
    ("extent into the tables", "sif f block[5] 1"),
    ("file of eight exbibytes", "sif f size 0x7fffffffffffffff"),
    ("negative size", "sif f size 0xffffffffffffffff"),
    ("directory with a size", "sif d size 0x7ffffffffffff000"),
    ("directory in itself", "ln <2> d/again"),
    ("name of a free inode", "ln <9999> gone"),
    ("name of the journal", "ln <8> journal"),
    ("name of no inode", "ln <4294967295> never"),
    ("link with extents", "sif f mode 0120777"),
    ("device", "sif f mode 0060666\nsif f block[0] 0x0801"),
    ("file with unknown flags", "sif f flags 0xffffffff"),
    ("attributes far away", "sif f file_acl 0xfffffffffff0"),
    ("extra size beyond the inode", "sif f extra_isize 0xffff"),
    ("journal far away", "sif <8> block[5] 0xfffffff0"),
    ("journal without length", "sif <8> size 0"),
    (
        "inodes of a group at the superblock",
        "set_bg 0 inode_table 0",
    ),
    (
        "bitmaps outside",
        "set_bg 0 block_bitmap 0xfffffff\nset_bg 0 inode_bitmap 0xfffffff",
    ),
    (
        "all in use",
        "set_bg 0 free_blocks_count 0xffff\nset_bg 0 free_inodes_count 0xffff",
    ),
    ("inodes without number", "ssv inodes_count 0xffffffff"),
    ("blocks without number", "ssv blocks_count 0xffffffffffff"),
    ("first block elsewhere", "ssv first_data_block 0xfffffff0"),
    ("blocks of two gibibytes", "ssv log_block_size 21"),
    ("clusters", "ssv log_cluster_size 31"),
    ("inodes of no size", "ssv inode_size 0"),
    ("inodes of a block", "ssv inode_size 0xffff"),
    ("groups of one block", "ssv blocks_per_group 1"),
    ("groups of no inode", "ssv inodes_per_group 0"),
    ("descriptors of no size", "ssv desc_size 1"),
    ("flexible groups", "ssv log_groups_per_flex 31"),
    ("reserved descriptors", "ssv reserved_gdt_blocks 0xffff"),
    ("orphans in a circle", "ssv last_orphan 12"),
    ("journal is another inode", "ssv journal_inum 2"),
    ("features of nobody", "ssv feature_incompat 0xffffffff"),
    ("what is read only", "ssv feature_ro_compat 0xffffffff"),
    (
        "encoding of names",
        "ssv feature_incompat 0x202c2\nssv encoding 0xffff",
    ),
    ("needs its journal", "feature needs_recovery"),
    (
        "errors are to be a panic",
        "ssv errors 3\nsif f block[5] 0xfffffff0",
    ),
];

/// Bytes of the file system that are written over with noise, where tables are.
const NOISE: &[(u64, usize)] = &[
    (1024, 1024),
    (4096, 4096),
    (8192, 1 << 16),
    (1 << 16, 1 << 20),
    (0, 8 << 20),
];

/// Uses all that is there, as a guest's programs do, and goes on.
const USER: &str =
    "cd /data; ls -laR . > /dev/null 2>&1; cat f d/file journal gone never > /dev/null 2>&1
    readlink f > /dev/null; echo more >> f; mkdir new 2> /dev/null; echo x > new/file
    dd if=/dev/zero of=big bs=64k count=16 2> /dev/null; rm -rf d new big; sync
    umount /data 2> /dev/null || true; echo alive";

struct Place {
    shelf: Shelf,
    volumes: PathBuf,
}

impl Place {
    fn volume(&self) -> PathBuf {
        self.volumes.join("bad.ext4")
    }

    /// Makes it anew, with a file and a directory, and changes it.
    fn prepare(&self, changes: &str) {
        let store = VolumeStore::at(&self.volumes);
        let _ = store.remove("bad");
        store.create("bad", 64).unwrap();
        let content = self.shelf.0.join("content");
        fs::write(&content, noise(300_000, 5)).unwrap();
        let content = content.display();
        self.debugfs(&format!(
            "write {content} f\nmkdir d\nwrite {content} d/file\n"
        ));
        self.debugfs(changes);
    }

    fn debugfs(&self, script: &str) {
        let mut child = Command::new("debugfs")
            .args(["-w", "-f", "-"])
            .arg(self.volume())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("debugfs is in the package e2fsprogs");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }

    /// Starts a copy with it and uses it; what became of that.
    fn tried(&self, image: &supermachine::Image) -> &'static str {
        let volume = VolumeSpec::new("bad", "/data").with_size_mib(64);
        let config = library_config()
            .with_volumes_dir(&self.volumes)
            .with_volume(volume);
        let length = fs::metadata(self.volume()).unwrap().len();
        let outcome = match Vm::start(image, &config) {
            Err(Error::VolumeUnusable { name, .. }) if name == "bad" => "refused by the guest",
            Err(error) => panic!("{error:?}"),
            Ok(vm) => {
                let limit = Duration::from_secs(60);
                let run = vm.exec_builder().argv(["sh", "-c", USER]).timeout(limit);
                let said = run.output();
                let outcome = match &said {
                    Ok(out) if out.stdout.ends_with(b"alive\n") => "used",
                    Ok(out) if out.timed_out => "waits",
                    // Its kernel may end it, and the owner is told.
                    Err(_) if vm.status().is_err() => "ended",
                    said => panic!("{said:?}"),
                };
                drop(vm);
                outcome
            }
        };
        // A guest writes within its disk alone.
        assert_eq!(fs::metadata(self.volume()).unwrap().len(), length);
        outcome
    }
}

#[test]
fn damaged_file_systems_are_the_guests_own() {
    let shelf = Shelf::new("hostile-volumes");
    let volumes = shelf.0.join("volumes");
    let image = shelf.builder().volume_slots(1).build().unwrap();
    let beside = shelf.0.join("beside");
    fs::write(&beside, "untouched").unwrap();
    let place = Place { shelf, volumes };
    // Another machine all the while, which notices nothing.
    let other = copy(&image);
    let mut outcomes = std::collections::BTreeMap::<_, Vec<_>>::new();
    let mut tell = |what: &str, begun: Instant, outcome| {
        println!("{what}: {outcome}, {:.1} s", begun.elapsed().as_secs_f64());
        outcomes.entry(outcome).or_default().push(what.to_owned());
    };
    for (what, changes) in CHANGES {
        place.prepare(&format!("{changes}\n"));
        let begun = Instant::now();
        tell(what, begun, place.tried(&image));
    }
    for (seed, (at, bytes)) in NOISE.iter().enumerate() {
        place.prepare("");
        let file = File::options().write(true).open(place.volume()).unwrap();
        let seed = u64::try_from(seed).unwrap() + 1;
        file.write_all_at(&noise(*bytes, seed), *at).unwrap();
        let begun = Instant::now();
        tell(
            &format!("noise of {bytes} at {at}"),
            begun,
            place.tried(&image),
        );
    }
    println!("{outcomes:#?}");
    // Some are found when they are mounted and some are not: else this would say little.
    assert!(outcomes["refused by the guest"].len() > 5);
    assert!(outcomes["used"].len() > 5);
    assert!(!outcomes.contains_key("waits"));
    assert_eq!(sh(&other, "echo well"), "well");
    assert_eq!(fs::read(beside).unwrap(), b"untouched");
    assert_clean_store(&place.volumes);
    // One that is well is used as before.
    place.prepare("");
    assert_eq!(place.tried(&image), "used");
}

/// There is nothing beside the volume and the word of who had it.
fn assert_clean_store(volumes: &Path) {
    let entries = fs::read_dir(volumes).unwrap();
    let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    let known = |name: &std::ffi::OsString| name == "bad.ext4" || name == "bad.owner";
    assert!(names.iter().all(known), "{names:?}");
}
