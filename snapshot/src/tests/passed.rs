//! Generations and drafts whose files are open: nothing is looked up by a path.

use super::*;
use crate::manifest::{BASE_FILE, MEMORY_FILE, STATE_FILE};

/// A store with an image, and its generation opened to be passed on.
fn published() -> (Scratch, Snapshot) {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "image", "key", 7).unwrap();
    let snapshot = store.open("image", &stamp()).unwrap();
    (scratch, snapshot)
}

#[test]
fn a_generation_is_the_one_that_was_checked_whatever_its_path_leads_to_by_now() {
    let (scratch, snapshot) = published();
    let path = snapshot.path().to_owned();
    let files = snapshot.open_files().unwrap();
    // Another one in its place, and none at all for a while.
    fs::rename(scratch.path().join("image"), scratch.path().join("moved")).unwrap();
    publish(&scratch.store(), "image", "other", 9).unwrap();
    let passed = Inspection::of_open(files, &path).unwrap();
    assert_eq!(passed.manifest(), snapshot.manifest());
    assert_eq!(passed.number(), snapshot.number());
    passed.verify().unwrap();
    let ram = passed.admit(&stamp()).unwrap().map_memory().unwrap();
    let mut seen = vec![0; MEMORY_BYTES];
    ram.slice().copy_to(&mut seen);
    assert!(seen == memory(7));
}

#[test]
fn a_generation_is_held_by_whoever_has_its_files() {
    let (scratch, snapshot) = published();
    let path = snapshot.path().to_owned();
    let passed = Inspection::of_open(snapshot.open_files().unwrap(), &path).unwrap();
    drop(snapshot);
    let is_in_use = || {
        let lock = scratch.store().lock("image", PATIENCE).unwrap();
        lock.is_in_use().unwrap()
    };
    assert!(is_in_use());
    drop(passed);
    assert!(!is_in_use());
}

#[test]
fn files_that_are_missing_damaged_or_named_otherwise_are_errors() {
    let (_scratch, snapshot) = published();
    let path = snapshot.path().to_owned();
    let names: Vec<String> = {
        let files = snapshot.open_files().unwrap();
        files.names().map(str::to_owned).collect()
    };
    assert!(names.len() >= 5, "{names:?}");
    for name in &names {
        let files = snapshot.open_files().unwrap();
        let names: Vec<String> = files.names().map(str::to_owned).collect();
        let without = names.into_iter().zip(files.into_files());
        let without = without.filter(|(other, _)| other != name);
        assert!(
            Inspection::of_open(OpenFiles::new(without), &path).is_err(),
            "{name}"
        );
    }
    // One in the place of the other.
    let files = snapshot.open_files().unwrap();
    let mut names: Vec<String> = files.names().map(str::to_owned).collect();
    names.rotate_left(1);
    let turned = names.into_iter().zip(files.into_files());
    assert!(Inspection::of_open(OpenFiles::new(turned), &path).is_err());
    assert!(Inspection::of_open(OpenFiles::default(), &path).is_err());
}

#[test]
fn a_draft_is_written_and_mapped_without_its_path() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "base", "key", 7).unwrap();
    let base = store.open("base", &stamp()).unwrap();
    let mut draft = store.lock("image", PATIENCE).unwrap().draft().unwrap();
    assert!(draft.share(&base).unwrap());
    let files = OpenFiles::to_write(draft.path()).unwrap();
    let names: Vec<&str> = files.names().collect();
    assert!(
        [BASE_FILE, MEMORY_FILE, STATE_FILE]
            .iter()
            .all(|name| names.contains(name))
    );
    // What is there already is not written over.
    assert!(OpenFiles::to_write(draft.path()).is_err());
    let nowhere = Path::new("/nowhere");
    let mut content = memory(7);
    content[3 * 4096] = 1;
    let source = &mut BytePages::new(&content);
    let written = Written::write(&files, nowhere, source, &state(1)).unwrap();
    assert!(written.stored_bytes() < base.manifest().memory.stored_bytes);

    let ram = RamMapping::anonymous(MEMORY_BYTES as u64).unwrap();
    let files = OpenFiles::to_map(draft.path()).unwrap();
    written.map_over(&files, nowhere, &ram).unwrap();
    let mut seen = vec![0; MEMORY_BYTES];
    ram.slice().copy_to(&mut seen);
    assert!(seen == content);
    draft.adopt(written).unwrap();
    // Nothing is made where nothing was opened.
    let source = &mut BytePages::new(&content);
    assert!(Written::write(&OpenFiles::default(), nowhere, source, &state(1)).is_err());
}
