//! Disks that are baked with an image: what its warm-up leaves there every copy has, and
//! what a copy writes nobody else sees.

mod support;

use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use supermachine::{Error, Image, OciImageBuilder, Vm, VmConfig, VolumeSpec};
use support::shelf::*;
use support::*;

/// A shelf, and where disks of copies are made.
struct Place {
    shelf: Shelf,
    volumes: PathBuf,
}

/// A volume with what fills it: 300 small files and one that is no page long.
const FILL: &str = "cd /work/modules; mkdir pkg; for n in $(seq 300); do echo module $n > pkg/$n; \
                    done; dd if=/dev/urandom of=big bs=1000 count=3000 2>/dev/null; \
                    md5sum big | cut -c-32 > sum; sync";
/// What a copy finds.
const LOOK: &str = "cd /work/modules; echo 3 > /proc/sys/vm/drop_caches; ls pkg | wc -l; \
                    cat pkg/300; md5sum big | cut -c-32 | cmp - sum && echo whole";
const FILLED: &str = "300\nmodule 300\nwhole";

impl Place {
    /// With an image whose volume is filled.
    fn baked(test: &str) -> (Self, Image) {
        let shelf = Shelf::new(test);
        let volumes = shelf.0.join("volumes");
        let place = Self { shelf, volumes };
        let image = place.builder().build().unwrap();
        (place, image)
    }

    fn config(&self) -> VmConfig {
        library_config().with_volumes_dir(&self.volumes)
    }

    fn builder(&self) -> OciImageBuilder {
        let modules = VolumeSpec::new("modules", "/work/modules").with_size_mib(64);
        self.shelf
            .builder()
            .vm_config(self.config())
            .with_volume(modules)
            .with_warmup(|vm| {
                sh(vm, FILL);
                Ok(())
            })
    }

    fn copy(&self, image: &Image) -> Vm {
        Vm::start(image, &self.config()).unwrap()
    }
}

/// The file of the newest generation of `image` with what its volume holds.
fn disk_of(image: &Image) -> PathBuf {
    image.snapshot_path().unwrap().join("volume-0.ext4")
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

/// Writes to the volume in a way that is its own, past its caches.
fn write(vm: &Vm, name: &str) {
    let script = format!(
        "cd /work/modules; echo {name} > pkg/300; echo {name} > own; rm pkg/1; \
         dd if=/dev/zero of=big bs=1000 seek=100 count=1 conv=notrunc 2>/dev/null; \
         sync; echo 3 > /proc/sys/vm/drop_caches"
    );
    sh(vm, &script);
}

fn assert_written(vm: &Vm, name: &str) {
    let script = "cd /work/modules; cat pkg/300 own; ls pkg | wc -l";
    assert_eq!(sh(vm, script), format!("{name}\n{name}\n299"));
}

#[test]
fn copies_begin_with_what_was_baked_and_write_for_themselves() {
    let (place, image) = Place::baked("baked-volumes");
    let disk = disk_of(&image);
    let before = bytes(&disk);
    let metadata = fs::metadata(&disk).unwrap();
    assert_eq!(metadata.len(), 64 << 20);
    // What nobody wrote takes no space.
    assert!(metadata.blocks() * 512 < 40 << 20, "{}", metadata.blocks());
    let (a, b) = (place.copy(&image), place.copy(&image));
    assert_eq!(sh(&a, LOOK), FILLED);
    write(&a, "a");
    assert_eq!(sh(&b, LOOK), FILLED);
    a_snapshot_shares_what_the_copy_did_not_write(&place, &image);
    write(&b, "b");
    assert_written(&a, "a");
    assert_written(&b, "b");
    children_go_on(&a);
    snapshots_of_copies_hold_what_they_hold(&place, &a);
    assert!(bytes(&disk) == before, "the base is nobody's to write to");
    a.stop().unwrap();
    assert_eq!(sh(&place.copy(&image), LOOK), FILLED);
    // However a copy ends.
    signal(worker_of(&b), Signal::KILL);
    let begun = Instant::now();
    while b.status().is_ok() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(bytes(&disk) == before);
    drop(b);
    // Nothing of it is left where disks are made, or is the user's to see.
    assert_eq!(fs::read_dir(&place.volumes).unwrap().count(), 0);
}

fn a_snapshot_shares_what_the_copy_did_not_write(place: &Place, image: &Image) {
    let vm = place.copy(image);
    sh(&vm, "true");
    let taken = vm.snapshot(place.shelf.0.join("shared")).unwrap();
    let inode = |image: &Image| fs::metadata(disk_of(image)).unwrap().ino();
    assert_eq!(inode(&taken), inode(image));
    let copy = place.copy(&taken);
    assert_eq!(sh(&copy, LOOK), FILLED);
    write(&copy, "shared");
    assert_written(&copy, "shared");
    // It is the copy's now.
    let again = copy.snapshot(place.shelf.0.join("again")).unwrap();
    assert_ne!(inode(&again), inode(image));
    assert_written(&place.copy(&again), "shared");
}

fn children_go_on(parent: &Vm) {
    let children = parent.fork(2).unwrap();
    write(&children[0], "child");
    write(parent, "parent");
    assert_written(&children[1], "a");
    assert_written(&children[0], "child");
    let grandchild = children[0].fork(1).unwrap().remove(0);
    write(&children[0], "again");
    assert_written(&grandchild, "child");
    assert_written(parent, "parent");
}

fn snapshots_of_copies_hold_what_they_hold(place: &Place, vm: &Vm) {
    // Some of it is in the guest's memory only.
    sh(vm, "echo late > /work/modules/late");
    let taken = vm.snapshot(place.shelf.0.join("taken")).unwrap();
    write(vm, "later");
    let error = vm.grow_volume("modules", 128).unwrap_err();
    assert!(error.to_string().contains("bake"), "{error}");
    let copy = place.copy(&taken);
    assert_written(&copy, "parent");
    assert_eq!(sh(&copy, "cat /work/modules/late"), "late");
    // As one file, and back.
    let file = place.shelf.0.join("file");
    taken.export(&file).unwrap();
    let there = place.shelf.0.join("imported");
    let imported = Image::import(&file, &there).unwrap();
    assert!(bytes(&disk_of(&imported)) == bytes(&disk_of(&taken)));
    drop((taken, copy));
    let copy = place.copy(&imported);
    assert_written(&copy, "parent");
    write(&copy, "imported");
    assert_written(&copy, "imported");
    // An export that was cut short leaves nothing.
    let whole = bytes(&file);
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let error = Image::import(&file, place.shelf.0.join("half")).unwrap_err();
    assert!(matches!(error, Error::Snapshot(_)), "{error}");
}

#[test]
fn machines_of_a_pool_go_back_to_what_was_baked() {
    let (place, image) = Place::baked("pooled-volumes");
    let pool = image.pool().vm_config(place.config()).min(1).max(1);
    let pool = pool.prestart(0).build().unwrap();
    for round in 0..4 {
        let vm = pool.acquire().unwrap();
        assert_eq!(sh(&vm, LOOK), FILLED, "round {round}");
        write(&vm, "leased");
        // Left as it is in the middle of writing.
        sh(
            &vm,
            "(dd if=/dev/urandom of=/work/modules/more bs=64k count=400 2>/dev/null &) ; sleep 0.1",
        );
    }
}

#[test]
fn damaged_missing_and_unfit_disks_are_errors_before_a_guest_runs() {
    let (place, image) = Place::baked("damaged-volumes");
    let disk = disk_of(&image);
    let whole = bytes(&disk);
    let generation = image.snapshot_path().unwrap().to_owned();
    let refused = |what: &str| {
        let started = Image::from_snapshot_with(&generation, &place.config())
            .and_then(|image| Vm::start(&image, &place.config()));
        let error = started.map(drop).unwrap_err();
        let typed = matches!(
            error,
            Error::Rebake { .. } | Error::Snapshot(_) | Error::Damaged { .. }
        );
        assert!(typed, "{what}: {error:?}");
    };
    fs::write(&disk, &whole[..whole.len() - 4096]).unwrap();
    refused("cut short");
    fs::write(&disk, [&whole[..], &[0; 512]].concat()).unwrap();
    refused("longer");
    fs::remove_file(&disk).unwrap();
    refused("missing");
    fs::create_dir(&disk).unwrap();
    refused("a directory");
    fs::remove_dir(&disk).unwrap();
    fs::write(&disk, &whole).unwrap();
    let opened = Image::from_snapshot_with(&generation, &place.config()).unwrap();
    assert_eq!(sh(&place.copy(&opened), LOOK), FILLED);
    // What is only asked for is refused, too.
    let twice = place.config().with_volume(VolumeSpec::new("modules", "/m"));
    let error = Vm::start(&opened, &twice).unwrap_err();
    assert!(error.to_string().contains("`modules`"), "{error}");
    let large = VolumeSpec::new("large", "/l").with_size_mib(65 << 10);
    let error = place.builder().with_volume(large).build().unwrap_err();
    assert!(matches!(error, Error::Volume { .. }), "{error}");
}

#[test]
fn the_tool_bakes_runs_counts_compares_and_removes_them() {
    let sandbox = Sandbox::new();
    let script =
        "dd if=/dev/urandom of=/m/file bs=1M count=8 2>/dev/null; md5sum < /m/file > /m/sum";
    let bake = [
        "bake",
        "--name",
        "filled",
        "-v",
        "modules:/m:32m",
        "--warmup",
        script,
        busybox(),
    ];
    let out = sandbox.run(&bake);
    assert_eq!(out.code(), 0, "{}", out.err());
    let disk = PathBuf::from(out.out().trim_end()).join("volume-0.ext4");
    let listed = sandbox.run(&["images", "--json"]).out();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let takes = listed[0]["disk_bytes"].as_u64().unwrap();
    let taken = fs::metadata(&disk).unwrap().blocks() * 512;
    assert!(taken > 8 << 20 && takes > taken, "{takes} {taken}");
    let run = |script: &str| {
        let out = sandbox.run(&["run", "filled", "sh", "-c", script]);
        (out.code(), out.out())
    };
    let look = "md5sum < /m/file | cmp - /m/sum && rm /m/file && sync && echo whole";
    for _ in 0..2 {
        assert_eq!(run(look), (0, "whole\n".to_owned()));
    }
    // A volume of the store is beside it, if there is room, and here is none.
    let out = sandbox.run(&["run", "-v", "data:/data", "filled", "true"]);
    out.assert_refused(125, &["`data`", "bake"]);
    assert_eq!(sandbox.run(&["snapshot", "verify", "filled"]).code(), 0);
    let mut content = bytes(&disk);
    let at = content.len() - content.iter().rev().position(|byte| *byte != 0).unwrap() - 1;
    content[at] ^= 1;
    fs::write(&disk, content).unwrap();
    let out = sandbox.run(&["snapshot", "verify", "filled"]);
    out.assert_refused(1, &["filled", "volume-0.ext4"]);
    assert_eq!(sandbox.run(&["rmi", "filled"]).out(), "filled\n");
    assert!(!disk.exists());
}
