//! Symbolic links in place of what the store works with: none is followed, and
//! nothing changes where they lead.

use super::*;
use std::os::unix::fs::symlink;

/// A store, and beside it one whose image is somebody else's.
fn two_stores() -> (Scratch, Scratch, Store) {
    let (own, foreign) = (Scratch::new(), Scratch::new());
    let other = foreign.store();
    for seed in [1, 2] {
        publish(&other, "victim", "key", seed).unwrap();
    }
    let store = own.store();
    (own, foreign, store)
}

fn everything(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names(path) {
        let path = path.join(name);
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            found.extend(everything(&path));
        }
        found.push(path);
    }
    found
}

fn is_refused<T: std::fmt::Debug>(outcome: Result<T>) {
    assert!(
        matches!(outcome, Err(SnapshotError::NotDirectory { .. })),
        "{outcome:?}"
    );
}

#[test]
fn a_link_in_place_of_an_image_is_refused_and_nothing_is_removed_where_it_leads() {
    let (own, foreign, store) = two_stores();
    let before = everything(foreign.path());
    let link = own.path().join("image");
    symlink(foreign.path().join("victim"), &link).unwrap();
    is_refused(store.inspect("image"));
    is_refused(store.lock("image", PATIENCE));
    let baked = store.bake("image", "another", &stamp(), PATIENCE, |draft| {
        fill(draft, "another", 3)
    });
    is_refused(baked);
    assert_eq!(store.names().unwrap(), Vec::<String>::new());
    store.sweep().unwrap();
    store.abandon("image").unwrap();
    assert_eq!(everything(foreign.path()), before);
    assert!(link.is_symlink());
}

#[test]
fn a_link_put_in_place_of_an_image_while_it_is_locked_leads_nowhere() {
    let (own, foreign, store) = two_stores();
    publish(&store, "image", "key", 1).unwrap();
    let before = everything(foreign.path());
    let lock = store.lock("image", PATIENCE).unwrap();
    let place = own.path().join("image");
    fs::rename(&place, own.path().join("aside")).unwrap();
    symlink(foreign.path().join("victim"), &place).unwrap();
    assert!(lock.collect().is_err());
    assert!(lock.is_in_use().is_err());
    assert!(lock.retire(2).is_ok_and(|retired| !retired));
    assert!(lock.draft().is_err());
    assert_eq!(everything(foreign.path()), before);
}

#[test]
fn a_link_in_place_of_a_generation_is_removed_itself() {
    let (own, foreign, store) = two_stores();
    publish(&store, "image", "key", 1).unwrap();
    publish(&store, "image", "key", 2).unwrap();
    let before = everything(foreign.path());
    let old = own.path().join("image/0000000001");
    fs::remove_dir_all(&old).unwrap();
    symlink(foreign.path().join("victim/0000000001"), &old).unwrap();
    let lock = store.lock("image", PATIENCE).unwrap();
    assert!(!lock.is_in_use().unwrap());
    assert_eq!(lock.collect().unwrap(), 1);
    assert!(!old.is_symlink());
    drop(lock);

    // The current one: not opened, and replaced by the next bake.
    let current = own.path().join("image/0000000002");
    fs::remove_dir_all(&current).unwrap();
    symlink(foreign.path().join("victim/0000000002"), &current).unwrap();
    assert!(store.inspect("image").is_err());
    is_refused(Store::inspect_path(&current));
    let baked = store.bake("image", "key", &stamp(), PATIENCE, |draft| {
        fill(draft, "key", 3)
    });
    check(&baked.unwrap().into_snapshot(), 3);
    assert!(!current.is_symlink());
    assert_eq!(everything(foreign.path()), before);
}

#[test]
fn links_in_place_of_the_store_its_locks_and_drafts_are_not_followed() {
    let (own, foreign, store) = two_stores();
    let before = everything(foreign.path());
    let root = own.path().join("root");
    symlink(foreign.path(), &root).unwrap();
    is_refused(Store::new(&root));
    is_refused(Store::existing(&root));

    let target = foreign.path().join("lock");
    symlink(&target, own.path().join(".image.lock")).unwrap();
    assert!(store.lock("image", PATIENCE).is_err());
    fs::remove_file(own.path().join(".image.lock")).unwrap();

    let draft = store.lock("image", PATIENCE).unwrap().draft().unwrap();
    let path = draft.path().to_owned();
    fs::remove_dir(&path).unwrap();
    symlink(foreign.path().join("victim/0000000001"), &path).unwrap();
    is_refused(FilesBelow::open(&path));
    assert!(fill(draft, "key", 1).is_err());
    assert_eq!(everything(foreign.path()), before);
}
