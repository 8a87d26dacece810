//! Files of a snapshot that do not hold what they were written with: whatever
//! is used is checked before, or at the latest when a copy does not come up.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use supermachine::{Error, Image, Vm};
use support::shelf::*;
use support::*;

/// Far less than a guest that says nothing is waited for.
const SOON: Duration = Duration::from_secs(20);

/// Overwrites everything a file of memory has, without changing its length.
fn overwrite_memory(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let bytes = fs::read(path).unwrap();
    for (number, page) in bytes.chunks(4096).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            file.write_all_at(&[0x5a; 4096], number as u64 * 4096)
                .unwrap();
        }
    }
    assert_eq!(file.metadata().unwrap().len(), bytes.len() as u64);
}

#[test]
fn every_flipped_bit_of_what_says_who_runs_what_is_refused_or_baked_anew() {
    let shelf = Shelf::new("flipped");
    let cmd = ["sleep", "1000"];
    let build = || shelf.builder().cmd(cmd).env("A", "b").build().unwrap();
    let image = build();
    let generation = image.snapshot_path().unwrap().to_owned();
    drop(image);
    let open = || Image::from_snapshot_with(shelf.0.join("image"), &library_config());
    let whole = open().unwrap();
    for path in [
        generation.join("image.json"),
        generation.parent().unwrap().join("current"),
    ] {
        let good = fs::read(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let bad = good[bit / 8] ^ 1 << (bit % 8);
            file.write_all_at(&[bad], bit as u64 / 8).unwrap();
            assert!(open().is_err(), "{}: bit {bit}", path.display());
            file.write_all_at(&good[bit / 8..=bit / 8], bit as u64 / 8)
                .unwrap();
        }
        open().unwrap();

        // Baking it gives another, and not an error for ever.
        file.write_all_at(&[good[0] ^ 1], 0).unwrap();
        let again = build();
        assert_ne!(again.snapshot_path(), whole.snapshot_path());
        assert_eq!(again.config(), whole.config());
        drop(again);
        drop(open().unwrap());
        fs::write(&path, &good).unwrap();
    }
}

#[test]
fn damaged_memory_is_found_soon_told_as_such_and_baked_anew() {
    let shelf = Shelf::new("memory");
    let image = shelf.bake();
    let generation = image.snapshot_path().unwrap().to_owned();
    overwrite_memory(&generation.join("mem.bin"));

    // Of a snapshot that is only opened: the error says what to do.
    let opened = Image::from_snapshot_with(&generation, &library_config()).unwrap();
    let begun = Instant::now();
    let error = Vm::start(&opened, &library_config()).unwrap_err();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    let words = format!("supermachine snapshot verify {}", generation.display());
    assert!(error.to_string().contains(&words), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("checksum"), "{cause}");

    // The machine that was baked has no memory of its own any more either.
    drop(opened);
    drop(image);
    // Found in the store by its key: the copy fails, the next build bakes.
    let found = shelf.bake();
    assert_eq!(found.snapshot_path(), Some(&*generation));
    let begun = Instant::now();
    let error = found.start(&library_config()).unwrap_err();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    let again = shelf.bake();
    assert_ne!(again.snapshot_path(), found.snapshot_path());
    assert_eq!(sh(&copy(&again), "echo whole"), "whole");
}

#[test]
fn pools_say_that_their_snapshot_is_damaged() {
    let shelf = Shelf::new("pool");
    let generation = shelf.bake().snapshot_path().unwrap().to_owned();
    overwrite_memory(&generation.join("mem.bin"));
    let image = Image::from_snapshot_with(&generation, &library_config()).unwrap();
    let pool = image.pool().vm_config(library_config()).max(1);
    let error = pool.build().unwrap().acquire().unwrap_err();
    let mut causes = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        causes = format!("{causes}: {error}");
        cause = error.source();
    }
    assert!(causes.contains("is damaged"), "{causes}");
}

#[test]
fn the_tool_bakes_again_what_turns_out_to_be_damaged() {
    let sandbox = Sandbox::new();
    let run = || sandbox.run_shell(&[], "echo up");
    assert_eq!(run().out(), "up\n");
    let snapshots = sandbox.files.join("s");
    let image = fs::read_dir(&snapshots).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        let is_image = path.join("current").exists();
        is_image.then_some(path)
    });
    let generation = image.unwrap().join("0000000001");
    for name in ["mem.bin", "base.bin"] {
        let path = generation.join(name);
        let path = if path.exists() {
            path
        } else {
            generation.parent().unwrap().join("0000000002").join(name)
        };
        overwrite_memory(&path);
        let begun = Instant::now();
        let out = run();
        assert_eq!((out.code(), out.out()), (0, "up\n".into()), "{}", out.err());
        assert!(out.err().contains("baking it again"), "{}", out.err());
        assert!(begun.elapsed() < 2 * SOON, "{:?}", begun.elapsed());
        // And is whole from then on.
        let out = run();
        assert_eq!((out.out(), out.err()), ("up\n".into(), String::new()));
    }
}

#[test]
fn a_link_in_place_of_an_image_or_the_bases_is_refused_and_not_followed() {
    let shelf = Shelf::new("links");
    let victim = Shelf::new("victim");
    let config = library_config();
    let kept = victim.bake().snapshot_path().unwrap().to_owned();
    let list = || -> Vec<PathBuf> {
        let names = ["image", ".bases"].map(|name| victim.0.join(name));
        let entries = names.iter().flat_map(|dir| fs::read_dir(dir).unwrap());
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let before = list();
    let is_link = |error: &Error| error.to_string().contains("symbolic link");

    fs::create_dir_all(&shelf.0).unwrap();
    symlink(victim.0.join("image"), shelf.0.join("image")).unwrap();
    let tagged = || shelf.builder().with_warmup_tag("another").build();
    let error = tagged().unwrap_err();
    assert!(is_link(&error), "{error}");
    let error = Image::from_snapshot_with(shelf.0.join("image"), &config).unwrap_err();
    assert!(is_link(&error), "{error}");
    fs::remove_file(shelf.0.join("image")).unwrap();

    let bases = shelf.0.join(".bases");
    let _ = fs::remove_dir_all(&bases);
    symlink(victim.0.join(".bases"), &bases).unwrap();
    let error = tagged().unwrap_err();
    assert!(is_link(&error), "{error}");
    assert_eq!(list(), before);
    assert!(kept.join("manifest.json").exists());
}
