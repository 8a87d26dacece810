//! Every operation on files fails in turn.

use super::*;
use crate::testing::{Fault, FaultyFiles};
use std::sync::Arc;

/// Error numbers of Linux and macOS alike: EIO, ENOSPC.
const ERRNOS: [i32; 2] = [5, 28];

/// Publishes a second generation with faulty files, then looks at the result
/// with good ones. Gives the outcome and the number of calls.
fn publish_with(fault: Fault, at: u64) -> (Result<u64>, u64) {
    let scratch = Scratch::new();
    let good = scratch.store();
    publish(&good, "a", "old", 1).unwrap();
    let old = scratch.path().join("a/0000000001");

    let files = Arc::new(FaultyFiles::new(fault, at));
    let outcome = Store::with_files(scratch.path(), files.clone())
        .and_then(|store| publish(&store, "a", "new", 2));

    let found = good.open("a", &testing::stamp()).unwrap();
    let is_new = found.manifest().machine.key == "new";
    check(&found, if is_new { 2 } else { 1 });
    if outcome.is_ok() {
        assert!(is_new);
    }
    let first = Store::inspect_path(&old).unwrap();
    check(&first.admit(&testing::stamp()).unwrap(), 1);

    let leftovers = || {
        let names = names(&scratch.path().join("a"));
        names.iter().filter(|name| name.starts_with('.')).count()
    };
    if fault != Fault::Crash {
        assert_eq!(leftovers(), 0, "{fault:?} at {at}");
    }
    // The next to bake cleans up, and finds a number that is free.
    let next = publish(&good, "a", "next", 3).unwrap();
    assert!(next > 1);
    assert_eq!(leftovers(), 0);
    drop(found);
    good.lock("a", PATIENCE).unwrap().collect().unwrap();
    assert_eq!(names(&scratch.path().join("a")).len(), 2);
    (outcome, files.calls())
}

#[test]
fn publish_survives_the_failure_of_any_single_call() {
    let (outcome, calls) = publish_with(Fault::None, 0);
    assert_eq!(outcome.unwrap(), 2);
    assert!(calls > 30, "{calls}");
    for errno in ERRNOS {
        for at in 0..calls {
            let (outcome, _) = publish_with(Fault::Errno(errno), at);
            let error = outcome.unwrap_err();
            let SnapshotError::Io { source, .. } = &error else {
                panic!("call {at}: {error}");
            };
            assert_eq!(source.raw_os_error(), Some(errno));
        }
    }
}

#[test]
fn publish_survives_a_crash_at_any_call() {
    let (_, calls) = publish_with(Fault::None, 0);
    for at in 0..calls {
        publish_with(Fault::Crash, at).0.unwrap_err();
    }
}

#[test]
fn what_another_process_writes_survives_the_failure_of_any_single_call() {
    let write_with = |fault, at| {
        let scratch = Scratch::new();
        let store = scratch.store();
        publish(&store, "a", "old", 1).unwrap();
        let files = FaultyFiles::new(fault, at);
        let content = memory(2);
        let outcome = (|| {
            let mut draft = store.lock("a", PATIENCE)?.draft()?;
            let source = &mut BytePages::new(&content);
            let written = Written::write(&files, draft.path(), source, &state(2))?;
            draft.adopt(written)?;
            draft.publish(description("new"))
        })();
        let found = store.open("a", &testing::stamp()).unwrap();
        check(&found, if outcome.is_ok() { 2 } else { 1 });
        let names = names(&scratch.path().join("a"));
        assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
        (outcome, files.calls())
    };
    let (outcome, calls) = write_with(Fault::None, 0);
    assert_eq!(outcome.unwrap(), 2);
    for errno in ERRNOS {
        for at in 0..calls {
            write_with(Fault::Errno(errno), at).0.unwrap_err();
        }
    }
    for at in (0..calls).step_by(7) {
        write_with(Fault::ShortWrites, at).0.unwrap();
    }
}

#[test]
fn a_linked_file_survives_the_failure_of_any_single_call() {
    let publish_linked = |fault, at| {
        let scratch = Scratch::new();
        let good = scratch.store();
        let source = scratch.path().join("source");
        std::fs::write(&source, memory(9)).unwrap();
        let entry = FileEntry::of(&SystemFiles, &source).unwrap();
        let files = Arc::new(FaultyFiles::new(fault, at));
        let outcome = Store::with_files(scratch.path(), files.clone()).and_then(|store| {
            let mut draft = store.lock("a", PATIENCE)?.draft()?;
            draft.link("layer", &source, entry)?;
            fill(draft, "key", 3)
        });
        std::fs::remove_file(&source).unwrap();
        if outcome.is_ok() {
            let snapshot = good.open("a", &testing::stamp()).unwrap();
            check(&snapshot, 3);
            let layer = std::fs::read(snapshot.path().join("layer")).unwrap();
            assert!(layer == memory(9));
        }
        (outcome.is_ok(), files.calls())
    };
    let (_, calls) = publish_linked(Fault::None, 0);
    let failed = (0..calls).filter(|at| !publish_linked(Fault::Errno(28), *at).0);
    // Where no link can be made, there is a copy.
    assert_eq!(failed.count() as u64, calls - 1);
}

#[test]
fn a_file_of_another_process_survives_the_failure_of_any_single_call() {
    let publish_adopted = |fault, at| {
        let scratch = Scratch::new();
        let good = scratch.store();
        let files = Arc::new(FaultyFiles::new(fault, at));
        let outcome = Store::with_files(scratch.path(), files.clone()).and_then(|store| {
            let mut draft = store.lock("a", PATIENCE)?.draft()?;
            std::fs::write(draft.path().join("volume"), memory(9)).unwrap();
            draft.adopt_file("volume")?;
            fill(draft, "key", 3)
        });
        match good.open("a", &testing::stamp()) {
            Ok(snapshot) => {
                check(&snapshot, 3);
                let path = snapshot.path().join("volume");
                let entry = FileEntry::of(&SystemFiles, &path).unwrap();
                assert_eq!(snapshot.manifest().files["volume"], entry);
                snapshot.verify().unwrap();
                std::fs::write(path, memory(8)).unwrap();
                assert!(snapshot.verify().is_err());
            }
            Err(_) => assert!(outcome.is_err()),
        }
        (outcome.is_ok(), files.calls())
    };
    let (is_published, calls) = publish_adopted(Fault::None, 0);
    assert!(is_published);
    let failed = (0..calls).filter(|at| !publish_adopted(Fault::Errno(28), *at).0);
    assert_eq!(failed.count() as u64, calls);
}

#[test]
fn a_draft_takes_no_file_over_that_is_not_one() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let mut draft = store.lock("a", PATIENCE).unwrap().draft().unwrap();
    std::fs::create_dir(draft.path().join("directory")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", draft.path().join("link")).unwrap();
    for name in [
        "missing",
        "directory",
        "link",
        "../up",
        "state.bin",
        "base.bin",
    ] {
        assert!(draft.adopt_file(name).is_err(), "{name}");
    }
    std::fs::write(draft.path().join("file"), b"content").unwrap();
    draft.adopt_file("file").unwrap();
    assert!(draft.adopt_file("file").is_err());
}

#[test]
fn memory_with_a_base_survives_the_failure_of_any_single_call() {
    let publish_over_base = |fault, at| {
        let scratch = Scratch::new();
        let good = scratch.store();
        let base = base_of(&good);
        let files = Arc::new(FaultyFiles::new(fault, at));
        let outcome = Store::with_files(scratch.path(), files.clone()).and_then(|store| {
            let mut draft = store.lock("a", PATIENCE)?.draft()?;
            draft.share(&base)?;
            fill(draft, "key", 3)
        });
        match good.open("a", &testing::stamp()) {
            Ok(snapshot) => check(&snapshot, 3),
            Err(_) => assert!(outcome.is_err()),
        }
        (outcome.is_ok(), files.calls())
    };
    let (_, calls) = publish_over_base(Fault::None, 0);
    let failed = (0..calls).filter(|at| !publish_over_base(Fault::Errno(28), *at).0);
    // Where no link can be made, there is no base, and nothing to miss.
    assert_eq!(failed.count() as u64, calls - 1);
}

#[test]
fn a_draft_adopts_only_what_is_there() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let mut draft = store.lock("a", PATIENCE).unwrap().draft().unwrap();
    let content = memory(1);
    let source = &mut BytePages::new(&content);
    let written = Written::write(&SystemFiles, draft.path(), source, &state(1)).unwrap();
    let file = draft.path().join("state.bin");
    std::fs::write(&file, b"short").unwrap();
    assert!(draft.adopt(written.clone()).is_err());
    std::fs::remove_file(file).unwrap();
    assert!(draft.adopt(written).is_err());
}

#[test]
fn short_and_interrupted_writes_are_carried_on() {
    let (_, calls) = publish_with(Fault::ShortWrites, u64::MAX);
    for at in (0..calls).step_by(97) {
        publish_with(Fault::ShortWrites, at).0.unwrap();
    }
}

#[test]
fn open_and_verify_tell_the_failure_of_any_single_call() {
    let scratch = Scratch::new();
    publish(&scratch.store(), "a", "key", 1).unwrap();
    let read_with = |fault, at| {
        let files = Arc::new(FaultyFiles::new(fault, at));
        let store = Store::with_files(scratch.path(), files.clone())?;
        let snapshot = store.open("a", &testing::stamp())?;
        snapshot.verify()?;
        snapshot.map_memory()?;
        Ok::<u64, SnapshotError>(files.calls())
    };
    let calls = read_with(Fault::None, 0).unwrap();
    for at in 0..calls {
        let error = read_with(Fault::Errno(5), at);
        // The attempt to create the root may fail as it likes: it is there.
        if let Ok(calls) = error {
            panic!("call {at} of {calls} failed unnoticed");
        }
    }
}

#[test]
fn source_that_fails_leaves_nothing_behind() {
    struct Broken(bool);
    impl PageSource for Broken {
        fn memory_bytes(&self) -> u64 {
            1 << 20
        }
        fn next_run(&mut self) -> std::io::Result<Option<(u64, &[u8])>> {
            if std::mem::replace(&mut self.0, true) {
                return Err(std::io::Error::other("no memory"));
            }
            Ok(Some((0, &[1; 4096])))
        }
    }
    let scratch = Scratch::new();
    let store = scratch.store();
    let mut draft = store.lock("a", PATIENCE).unwrap().draft().unwrap();
    let error = draft.memory(&mut Broken(false)).unwrap_err();
    assert!(matches!(error, SnapshotError::Source(_)));
    drop(draft);
    assert!(names(&scratch.path().join("a")).is_empty());
}

#[test]
fn draft_without_memory_or_state_is_not_published() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let draft = || store.lock("a", PATIENCE).unwrap().draft().unwrap();
    assert!(draft().publish(description("key")).is_err());
    let mut without_state = draft();
    let content = memory(1);
    without_state.memory(&mut BytePages::new(&content)).unwrap();
    assert!(without_state.publish(description("key")).is_err());
    assert!(draft().state(b"not a state file").is_err());
    assert!(store.inspect("a").is_err());
    assert!(names(&scratch.path().join("a")).is_empty());
}
