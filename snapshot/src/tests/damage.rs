//! Damaged files on the disk.

use super::*;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

/// Publishes, lets `damage` loose on the generation's directory, and opens.
fn after(damage: impl FnOnce(&Path)) -> Result<Inspection> {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "a", "key", 1).unwrap();
    damage(&scratch.path().join("a/0000000001"));
    store.inspect("a")
}

fn set_len(path: &Path, change: i64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len.checked_add_signed(change).unwrap())
        .unwrap();
}

#[test]
fn every_file_must_be_there_with_its_length() {
    for name in [
        "manifest.json",
        "state.bin",
        "mem.bin",
        "ws.bin",
        "fs-0.bin",
    ] {
        assert!(after(|path| fs::remove_file(path.join(name)).unwrap()).is_err());
        let shorter = after(|path| set_len(&path.join(name), -1)).unwrap_err();
        assert!(
            matches!(shorter, SnapshotError::Truncated { .. }),
            "{name}: {shorter}"
        );
        assert!(after(|path| set_len(&path.join(name), 1)).is_err());
        let directory = after(|path| {
            fs::remove_file(path.join(name)).unwrap();
            fs::create_dir(path.join(name)).unwrap();
        });
        assert!(directory.is_err());
    }
}

#[test]
fn every_byte_of_state_is_checked_before_anything_is_mapped() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "a", "key", 1).unwrap();
    for name in ["state.bin", "ws.bin", "manifest.json"] {
        let path = scratch.path().join("a/0000000001").join(name);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            let error = store.inspect("a").unwrap_err();
            assert!(error.wants_rebake() || matches!(error, SnapshotError::TooLarge { .. }));
        }
        fs::write(&path, &good).unwrap();
    }
    check(&store.open("a", &testing::stamp()).unwrap(), 1);
}

#[test]
fn every_flipped_bit_of_every_small_file_is_refused_before_the_file_is_used() {
    let scratch = Scratch::new();
    let store = scratch.store();
    // Both whole, and the pointers to them one bit apart.
    for seed in [1, 2] {
        publish(&store, "a", "key", seed).unwrap();
    }
    let third = publish(&store, "a", "key", 3).unwrap();
    let generation = format!("a/{third:010}");
    let files = ["manifest.json", "state.bin", "ws.bin", "fs-0.bin"];
    let files = files.map(|name| format!("{generation}/{name}"));
    for name in files.iter().map(String::as_str).chain(["a/current"]) {
        let path = scratch.path().join(name);
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            let used = store.open("a", &testing::stamp());
            let used = used.and_then(|found| found.read_extra_file("fs-0.bin", 1 << 20));
            assert!(used.is_err(), "{name}: bit {bit}");
        }
        fs::write(&path, &good).unwrap();
    }
    check(&store.open("a", &testing::stamp()).unwrap(), 3);
}

#[test]
fn a_generation_that_was_retired_is_baked_anew() {
    let scratch = Scratch::new();
    let store = scratch.store();
    for seed in [1, 2] {
        publish(&store, "a", "key", seed).unwrap();
    }
    let kept = store.open("a", &testing::stamp()).unwrap();
    assert_eq!(kept.number(), Some(2));
    let lock = store.lock("a", PATIENCE).unwrap();
    // Somebody else has replaced it already.
    assert!(!lock.retire(1).unwrap());
    assert!(lock.retire(2).unwrap());
    drop(lock);
    assert!(matches!(
        store.inspect("a"),
        Err(SnapshotError::NotFound { .. })
    ));
    let baked = store.bake("a", "key", &testing::stamp(), PATIENCE, |draft| {
        fill(draft, "key", 3)
    });
    check(&baked.unwrap().into_snapshot(), 3);
    check(&kept, 2);
}

#[test]
fn verify_finds_a_changed_byte_anywhere_in_memory_and_in_extra_files() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "a", "key", 1).unwrap();
    let path = scratch.path().join("a/0000000001");
    let last = MEMORY_BYTES as u64 - 1;
    let cases = [
        ("mem.bin", 0, "chunk 0"),
        ("mem.bin", 3 << 20, "chunk 1"),
        ("mem.bin", last, "chunk 2"),
        ("fs-0.bin", 4, "fs-0.bin"),
    ];
    for (name, at, told) in cases {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(path.join(name));
        let file = file.unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let error = store.inspect("a").unwrap().verify().unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
        file.write_all_at(&byte, at).unwrap();
    }
    store.inspect("a").unwrap().verify().unwrap();
}

#[test]
fn memory_truncated_after_opening_is_not_mapped() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "a", "key", 1).unwrap();
    let snapshot = store.open("a", &testing::stamp()).unwrap();
    set_len(&snapshot.path().join("mem.bin"), -4096);
    assert!(matches!(
        snapshot.map_memory(),
        Err(SnapshotError::Truncated { .. })
    ));
    assert!(matches!(
        snapshot.verify(),
        Err(SnapshotError::Truncated { .. })
    ));
}

#[test]
fn damaged_snapshot_is_baked_again() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "a", "key", 1).unwrap();
    let bake = |store: &Store| {
        store.bake("a", "key", &testing::stamp(), PATIENCE, |draft| {
            fill(draft, "key", 2)
        })
    };
    assert!(matches!(bake(&store).unwrap(), Baked::Reused(_)));
    for damage in ["a/0000000001/state.bin", "a/current"] {
        fs::write(scratch.path().join(damage), "x").unwrap();
        assert!(matches!(bake(&store).unwrap(), Baked::New(..)));
        check(&bake(&store).unwrap().into_snapshot(), 2);
    }
    let damages: [fn(&Path); 4] = [
        |path| fs::remove_file(path.join("mem.bin")).unwrap(),
        |path| fs::write(path.join("manifest.json"), vec![b'{'; 3 << 20]).unwrap(),
        |path| std::os::unix::fs::symlink("loop", path.join("x")).unwrap(),
        |path| fs::remove_dir_all(path).unwrap(),
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        let current = store.current("a").unwrap();
        let path = scratch.path().join(format!("a/{current:010}"));
        damage(&path);
        // A name nobody listed is nobody's business.
        let reused = matches!(bake(&store).unwrap(), Baked::Reused(_));
        assert_eq!(reused, index == 2);
        assert_eq!(names(&scratch.path().join("a")).len(), 2);
    }
}
