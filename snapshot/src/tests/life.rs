//! What happens to snapshots that nobody disturbs.

use super::*;
use crate::limits::GRANULE_BYTES;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use vm_memory::Bytes;

#[test]
fn snapshot_comes_back_as_written() {
    let scratch = Scratch::new();
    let store = scratch.store();
    assert_eq!(publish(&store, "alpine", "key", 3).unwrap(), 1);
    let snapshot = store.open("alpine", &testing::stamp()).unwrap();
    check(&snapshot, 3);
    assert_eq!(snapshot.manifest().machine, description("key"));
    assert_eq!(snapshot.working_set().pages(), 3);
    snapshot.read_ahead().unwrap();
    assert_eq!(snapshot.read_extra_file("fs-0.bin", 5).unwrap(), b"extra");
    assert!(matches!(
        snapshot.read_extra_file("fs-0.bin", 4),
        Err(SnapshotError::TooLarge { .. })
    ));
    assert!(snapshot.read_extra_file("mem.bin", 1 << 30).is_err());
    assert_eq!(store.names().unwrap(), ["alpine"]);
    assert_eq!(names(snapshot.path()).len(), 5);
}

#[test]
fn only_the_owner_can_enter_and_only_data_is_stored() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "alpine", "key", 3).unwrap();
    let snapshot = store.inspect("alpine").unwrap();
    let mode = fs::metadata(snapshot.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let file = fs::metadata(snapshot.path().join("mem.bin")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert_eq!(file.len(), MEMORY_BYTES as u64);
    assert_eq!(snapshot.manifest().memory.stored_bytes, 21 * 4096);
    // Blocks of 512 bytes; some file systems allocate in clusters.
    assert!(file.blocks() * 512 <= 8 * (64 << 10), "{}", file.blocks());
}

#[test]
fn mapping_is_private_aligned_and_can_be_reset() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "alpine", "key", 3).unwrap();
    let snapshot = store.open("alpine", &testing::stamp()).unwrap();
    let maps: Vec<_> = (0..5).map(|_| snapshot.map_memory().unwrap()).collect();
    for (index, map) in maps.iter().enumerate() {
        assert_eq!(map.address().as_ptr() as u64 % GRANULE_BYTES, 0);
        let value = u8::try_from(index).unwrap() + 100;
        map.slice().write_obj(value, 4096).unwrap();
        map.slice().write_obj(value, 8192).unwrap();
    }
    assert_eq!(maps[0].slice().read_obj::<u8>(4096).unwrap(), 100);
    maps[0].copy_back(4096, 4096).unwrap();
    assert_eq!(maps[0].slice().read_obj::<u8>(4096).unwrap(), 3);
    assert_eq!(maps[0].slice().read_obj::<u8>(8192).unwrap(), 100);
    maps[1].map_afresh().unwrap();
    for offset in [4096, 8192] {
        let fresh = if offset == 4096 { 3 } else { 0 };
        assert_eq!(maps[1].slice().read_obj::<u8>(offset).unwrap(), fresh);
    }
    assert_eq!(maps[2].slice().read_obj::<u8>(8192).unwrap(), 102);
    assert!(maps[0].copy_back(MEMORY_BYTES as u64 - 1, 2).is_err());
    assert!(maps[0].copy_back(u64::MAX, 2).is_err());
    check(&snapshot, 3);
}

#[test]
fn only_what_files_have_or_a_guest_wrote_is_read() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "alpine", "key", 3).unwrap();
    let snapshot = store.open("alpine", &testing::stamp()).unwrap();
    let map = snapshot.map_memory().unwrap();
    let pages = || map.populated().unwrap().into_iter().flatten();
    let there: Vec<u64> = pages().collect();
    let content = memory(3);
    let is_zero = |page: u64| {
        let start = usize::try_from(page * 4096).unwrap();
        content[start..][..4096].iter().all(|byte| *byte == 0)
    };
    let all = 0..MEMORY_BYTES as u64 / 4096;
    let left_out: Vec<u64> = all.filter(|page| !there.contains(page)).collect();
    assert!(left_out.iter().all(|page| is_zero(*page)), "{there:?}");
    let file = fs::metadata(snapshot.path().join("mem.bin")).unwrap();
    let has_holes = file.blocks() * 512 < MEMORY_BYTES as u64;
    assert!(!left_out.is_empty() || !has_holes || cfg!(not(target_os = "linux")));
    if let Some(page) = left_out.last() {
        let at = usize::try_from(page * 4096).unwrap();
        map.slice().write_obj(1_u8, at).unwrap();
        assert!(pages().any(|other| other == *page));
    }
}

#[test]
fn page_sources_give_the_same_file() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "bytes", "key", 3).unwrap();
    let mut content = memory(3);
    let pages: Vec<(u64, Vec<u8>)> = content
        .chunks(4096)
        .enumerate()
        .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
        .map(|(index, page)| (index as u64 * 4096, page.to_vec()))
        .collect();
    let pages = pages.iter().map(|(at, page)| (*at, &page[..]));
    let slice = vm_memory::VolatileSlice::from(&mut content[..]);
    let mut guest = GuestPages::new(&slice);
    let mut iter = IterPages::new(MEMORY_BYTES as u64, pages);
    let sources: [(&str, &mut dyn PageSource); 2] = [("guest", &mut guest), ("iter", &mut iter)];
    for (image, source) in sources {
        let mut draft = store.lock(image, PATIENCE).unwrap().draft().unwrap();
        draft.memory(source).unwrap();
        draft.state(&state(3)).unwrap();
        draft.publish(description("key")).unwrap();
        check(&store.open(image, &testing::stamp()).unwrap(), 3);
        assert_eq!(
            store.inspect(image).unwrap().manifest().memory,
            store.inspect("bytes").unwrap().manifest().memory
        );
    }
}

/// What hosts with pages of that size tell of memory, and do with it.
const HOST_PAGES: [usize; 2] = [4 << 10, 16 << 10];

#[test]
fn the_files_do_not_depend_on_the_page_size_of_the_host() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let mut content = memory(3);
    for page in HOST_PAGES {
        // A host tells of what was touched in pages of its own, and those with
        // anything in them have zeros around it.
        let touched: Vec<u64> = content
            .chunks(page)
            .enumerate()
            .filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0))
            .flat_map(|(index, _)| {
                let small = (page / 4096) as u64;
                (index as u64 * small..).take(page / 4096)
            })
            .collect();
        let working_set = WorkingSet::from_pages(touched.iter().copied());
        let slice = vm_memory::VolatileSlice::from(&mut content[..]);
        let runs = working_set.runs().to_vec();
        let mut draft = store
            .lock(&page.to_string(), PATIENCE)
            .unwrap()
            .draft()
            .unwrap();
        draft.memory(&mut GuestPages::of(&slice, runs)).unwrap();
        draft.state(&state(3)).unwrap();
        draft.working_set(&working_set).unwrap();
        draft.publish(description("key")).unwrap();
    }
    let [small, large] = HOST_PAGES.map(|page| {
        let snapshot = store.open(&page.to_string(), &stamp()).unwrap();
        check(&snapshot, 3);
        snapshot
    });
    let file = |snapshot: &Snapshot| fs::read(snapshot.path().join("mem.bin")).unwrap();
    assert!(file(&small) == file(&large));
    assert_eq!(small.manifest().memory, large.manifest().memory);

    // Written on the one, used on the other: read ahead, brought back page by
    // page, given back to the host.
    for (snapshot, page) in [(&small, HOST_PAGES[1]), (&large, HOST_PAGES[0])] {
        snapshot.read_ahead().unwrap();
        let ram = snapshot.map_memory().unwrap();
        let address = ram.address().addr().get();
        assert!(HOST_PAGES.iter().all(|page| address.is_multiple_of(*page)));
        assert!(ram.bytes().is_multiple_of(page));
        ram.slice().copy_from(&[0xee_u8; MEMORY_BYTES][..]);
        for start in (0..MEMORY_BYTES).step_by(page) {
            ram.copy_back(start as u64, page as u64).unwrap();
        }
        let mut found = vec![0; MEMORY_BYTES];
        ram.slice().copy_to(&mut found[..]);
        assert!(found == content);
        // Of the page at the edge only what belongs to nobody else goes.
        ram.slice().copy_from(&[0xee_u8; MEMORY_BYTES][..]);
        ram.discard(4096, 5 * 4096).unwrap();
        ram.slice().copy_to(&mut found[..]);
        assert!(found[..4096].iter().all(|byte| *byte == 0xee));
        assert!(found[6 * 4096..].iter().all(|byte| *byte == 0xee));
    }
}

#[test]
fn page_source_out_of_order_or_out_of_bounds_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let page = [1; 8192];
    for runs in [
        vec![(4096, &page[..]), (0, &page[..])],
        vec![(0, &page[..]), (4096, &page[..])],
        vec![(1, &page[..])],
        vec![(0, &page[..4095])],
        vec![(MEMORY_BYTES as u64 - 4096, &page[..])],
        vec![(u64::MAX - 4095, &page[..])],
    ] {
        let mut draft = store.lock("a", PATIENCE).unwrap().draft().unwrap();
        let mut source = IterPages::new(MEMORY_BYTES as u64, runs.into_iter());
        assert!(matches!(
            draft.memory(&mut source),
            Err(SnapshotError::Malformed { .. })
        ));
    }
    assert!(names(&scratch.path().join("a")).is_empty());
}

#[test]
fn memory_of_a_size_the_format_does_not_know_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store();
    for bytes in [0, 4096, limits::MAX_MEMORY_BYTES + GRANULE_BYTES, u64::MAX] {
        let mut draft = store.lock("a", PATIENCE).unwrap().draft().unwrap();
        let mut source = IterPages::new(bytes, std::iter::empty());
        assert!(draft.memory(&mut source).is_err(), "{bytes}");
    }
}

#[test]
fn new_generation_replaces_the_old_one_which_its_users_keep() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "a", "old", 1).unwrap();
    let user = store.open("a", &testing::stamp()).unwrap();
    assert_eq!(publish(&store, "a", "new", 2).unwrap(), 2);
    check(&store.open("a", &testing::stamp()).unwrap(), 2);

    let lock = store.lock("a", PATIENCE).unwrap();
    assert_eq!(lock.collect().unwrap(), 0, "the old one is in use");
    check(&user, 1);
    drop(user);
    assert_eq!(lock.collect().unwrap(), 1);
    assert_eq!(names(&scratch.path().join("a")), ["0000000002", "current"]);
}

#[test]
fn what_is_set_aside_is_found_by_nobody_and_goes_by_itself_or_with_the_next_bake() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let directory = scratch.path().join("a");
    let mut current = publish(&store, "a", "first", 1).unwrap();
    for is_lost in [false, true] {
        current = publish(&store, "a", "next", 2).unwrap();
        let aside = store.lock("a", PATIENCE).unwrap().set_aside().unwrap();
        assert!(!aside.is_empty());
        let left = names(&directory);
        assert_eq!(left.len(), 3);
        assert!(
            left[0].starts_with('.') && left[0].ends_with(".tmp"),
            "{left:?}"
        );
        check(&store.open("a", &testing::stamp()).unwrap(), 2);
        match is_lost {
            false => drop(aside),
            // As when the process ends now.
            true => std::mem::forget(aside),
        }
        assert_eq!(names(&directory).len(), if is_lost { 3 } else { 2 });
    }
    // What is in use is not even moved.
    let user = store.open("a", &testing::stamp()).unwrap();
    let newest = publish(&store, "a", "last", 3).unwrap();
    assert!(newest > current);
    let aside = store.lock("a", PATIENCE).unwrap().set_aside().unwrap();
    assert!(aside.is_empty());
    check(&user, 2);
    assert_eq!(names(&directory).len(), 3);
}

#[test]
fn image_in_use_is_not_removed_under_its_user() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "a", "key", 1).unwrap();
    let user = store.open("a", &testing::stamp()).unwrap();
    let lock = store.lock("a", PATIENCE).unwrap();
    assert!(lock.is_in_use().unwrap());
    assert!(matches!(lock.remove(), Err(SnapshotError::InUse { .. })));
    check(&user, 1);
    drop(user);
    store.lock("a", PATIENCE).unwrap().remove().unwrap();
    assert!(names(scratch.path()).is_empty());
    let error = store.inspect("a").unwrap_err();
    assert!(matches!(error, SnapshotError::NotFound { .. }));
    assert!(store.lock("a", PATIENCE).unwrap().remove().is_err());
}

#[test]
fn lock_names_its_holder_and_gives_up_at_the_deadline() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let lock = store.lock("a", PATIENCE).unwrap();
    let Err(SnapshotError::Locked { holder, .. }) = store.lock("a", Duration::from_millis(5))
    else {
        panic!("locked twice");
    };
    assert_eq!(holder, Some(std::process::id()));
    drop(lock);
    store.lock("a", Duration::ZERO).unwrap();
}

#[test]
fn sweep_takes_only_its_own_leftovers_of_images_nobody_changes() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "a", "key", 1).unwrap();
    let image = scratch.path().join("a");
    let kept = [
        ".foreign.tmp",
        ".0000000007.2147483000.xyz.tmp",
        "notes.txt",
    ];
    let leave = |names: &[&str]| {
        for name in names {
            fs::create_dir_all(image.join(name)).unwrap();
            fs::write(image.join(name).join("mem.bin"), "x").unwrap();
        }
    };
    // Whose they were does not matter, nor whether a process has that number.
    let own = format!(".0000000008.{}.0123456789abcdef.tmp", std::process::id());
    let dead = [".0000000007.2147483000.0123456789abcdef.tmp", &own];
    leave(&kept);
    leave(&dead);
    let lock = store.lock("a", PATIENCE).unwrap();
    assert_eq!(store.sweep().unwrap(), 0, "somebody is at work");
    drop(lock);
    assert_eq!(store.sweep().unwrap(), 2);
    let check_left = || {
        let left = names(&image);
        assert!(!left.iter().any(|name| dead.contains(&name.as_str())));
        assert!(kept.iter().all(|name| left.iter().any(|left| left == name)));
    };
    check_left();
    check(&store.open("a", &testing::stamp()).unwrap(), 1);

    // Finding a baked image, and baking one, sweep as well.
    leave(&dead);
    let never = |_: Draft| -> Result<u64> { panic!("baked again") };
    let found = store.bake("a", "key", &testing::stamp(), PATIENCE, never);
    assert!(matches!(found.unwrap(), Baked::Reused(_)));
    check_left();
    leave(&dead);
    publish(&store, "a", "key", 2).unwrap();
    check_left();
}

#[test]
fn a_process_that_must_end_removes_only_what_it_has_begun() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "a", "key", 1).unwrap();
    let foreign = scratch
        .path()
        .join("a/.0000000002.2147483000.0123456789abcdef.tmp");
    fs::create_dir(&foreign).unwrap();
    let lock = store.lock("a", PATIENCE).unwrap();
    let draft = Draft::new(lock, 3).unwrap();
    let path = draft.path().to_owned();
    fs::write(path.join("mem.bin"), "x").unwrap();
    store.abandon("a").unwrap();
    assert!(!path.exists() && foreign.exists());
    assert!(fill(draft, "key", 2).is_err());
    check(&store.open("a", &testing::stamp()).unwrap(), 1);
    store.abandon("none").unwrap();
}

#[test]
fn a_draft_is_removed_while_a_worker_still_writes_into_it() {
    let scratch = Scratch::new();
    let store = scratch.store();
    for _ in 0..50 {
        let lock = store.lock("a", PATIENCE).unwrap();
        let draft = lock.draft().unwrap();
        let path = draft.path().to_owned();
        let worker = std::thread::spawn(move || {
            let names = ["mem.bin", "state.bin", "ws.bin", "x"];
            names.map(|name| fs::write(path.join(name), "x").is_ok())
        });
        std::thread::yield_now();
        store.abandon("a").unwrap();
        worker.join().unwrap();
        drop(draft);
        assert_eq!(names(&scratch.path().join("a")), Vec::<String>::new());
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let scratch = Scratch::new();
    let store = scratch.store();
    for bad in ["..", "a/b", "/etc", "", ".a", "a\0b"] {
        assert!(matches!(
            store.lock(bad, PATIENCE),
            Err(SnapshotError::Name { .. })
        ));
        assert!(store.inspect(bad).is_err());
    }
}

#[test]
fn what_memory_has_in_common_with_a_base_is_stored_once_and_found_in_all_ways() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let base = base_of(&store);
    let mut draft = store.lock("a", PATIENCE).unwrap().draft().unwrap();
    assert!(draft.share(&base).unwrap());
    assert!(draft.share(&base).is_err());
    fill(draft, "key", 3).unwrap();
    drop(base);
    // It goes on without the one it was taken from.
    store.lock("base", PATIENCE).unwrap().remove().unwrap();
    let snapshot = store.open("a", &stamp()).unwrap();
    check(&snapshot, 3);
    let table = &snapshot.manifest().memory;
    // Those at the end; the units of pages 0, 1, 7 and 511 are the same, but too few in a
    // row, and 512 is in one that differs.
    assert_eq!(table.base_runs, [(316, 4)]);
    assert_eq!(table.shared_bytes(), 4 * GRANULE_BYTES);
    assert_eq!(table.stored_bytes, 5 * 4096);
    let own = std::fs::metadata(snapshot.path().join("mem.bin")).unwrap();
    assert!(own.blocks() * 512 <= 32 << 10, "{}", own.blocks());

    let ram = snapshot.map_memory().unwrap();
    for at in [5_usize, 512 * 4096, 1279 * 4096] {
        ram.slice().subslice(at, 3).unwrap().copy_from(&[9_u8; 3]);
    }
    ram.copy_back(0, 16 << 10).unwrap();
    ram.copy_back(511 * 4096, 769 * 4096).unwrap();
    let mut found = vec![0; MEMORY_BYTES];
    ram.slice().copy_to(&mut found[..]);
    assert!(found == memory(3), "copied back");
    ram.slice().subslice(0, 99).unwrap().copy_from(&[9_u8; 99]);
    ram.map_afresh().unwrap();
    ram.slice().copy_to(&mut found[..]);
    assert!(found == memory(3), "mapped afresh");
    snapshot.read_ahead().unwrap();

    // A draft that shares with a snapshot on a base gets the same base.
    let mut draft = store.lock("b", PATIENCE).unwrap().draft().unwrap();
    draft.share(&snapshot).unwrap();
    fill(draft, "key", 3).unwrap();
    let other = store.open("b", &stamp()).unwrap();
    check(&other, 3);
    assert_eq!(other.manifest().memory, snapshot.manifest().memory);
}

#[test]
fn a_base_of_another_size_or_with_nothing_in_common_is_left_out() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let base = base_of(&store);
    let mut draft = store.lock("short", PATIENCE).unwrap().draft().unwrap();
    let unit = [1; 16 << 10];
    draft.memory(&mut BytePages::new(&unit)).unwrap();
    draft.state(&state(1)).unwrap();
    draft.publish(description("short")).unwrap();
    let short = store.open("short", &stamp()).unwrap();
    for (base, seed) in [(&short, 3), (&base, 4)] {
        let mut draft = store.lock("a", PATIENCE).unwrap().draft().unwrap();
        assert!(draft.share(base).unwrap());
        fill(draft, "key", seed).unwrap();
        let snapshot = store.open("a", &stamp()).unwrap();
        check(&snapshot, seed);
        assert_eq!(snapshot.manifest().memory.base_runs, []);
        assert!(!snapshot.path().join("base.bin").exists());
    }
}

#[test]
fn damage_to_a_base_is_found() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let source = base_of(&store);
    let mut draft = store.lock("a", PATIENCE).unwrap().draft().unwrap();
    draft.share(&source).unwrap();
    fill(draft, "key", 3).unwrap();
    drop(source);
    store.lock("base", PATIENCE).unwrap().remove().unwrap();
    let base = scratch.path().join("a/0000000001/base.bin");
    let whole = std::fs::read(&base).unwrap();
    let open = || store.open("a", &stamp());

    let mut changed = whole.clone();
    changed[1270 * 4096 + 9] ^= 1;
    std::fs::write(&base, &changed).unwrap();
    let error = open().unwrap().verify().unwrap_err();
    assert!(error.to_string().contains("chunk 2"), "{error}");
    // What is not taken from it may be anything.
    let mut other = whole.clone();
    other[600 * 4096] = 1;
    std::fs::write(&base, &other).unwrap();
    check(&open().unwrap(), 3);

    std::fs::write(&base, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(open(), Err(SnapshotError::Truncated { .. })));
    std::fs::write(&base, &whole).unwrap();
    let snapshot = open().unwrap();
    std::fs::write(&base, b"").unwrap();
    assert!(matches!(
        snapshot.map_memory(),
        Err(SnapshotError::Truncated { what: "base.bin" })
    ));
    std::fs::remove_file(&base).unwrap();
    assert!(matches!(open(), Err(SnapshotError::Io { .. })));
}

#[test]
fn linked_files_are_shared_checked_and_only_what_was_described() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let source = scratch.path().join("source");
    std::fs::write(&source, b"a layer").unwrap();
    let entry = FileEntry::of(&SystemFiles, &source).unwrap();
    let draft = || store.lock("a", PATIENCE).unwrap().draft().unwrap();
    let longer = FileEntry { bytes: 8, ..entry };
    assert!(draft().link("layer", &source, longer).is_err());
    assert!(draft().link("layer", scratch.path(), entry).is_err());
    assert!(draft().link("../layer", &source, entry).is_err());
    assert!(draft().link("mem.bin", &source, entry).is_err());

    let mut draft = draft();
    draft.link("layer", &source, entry).unwrap();
    assert!(draft.link("layer", &source, entry).is_err());
    fill(draft, "key", 1).unwrap();
    let snapshot = store.open("a", &stamp()).unwrap();
    check(&snapshot, 1);
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&snapshot.path().join("layer")), inode(&source));

    std::fs::write(&source, b"altered").unwrap();
    let error = snapshot.verify().unwrap_err();
    assert!(error.to_string().contains("layer"), "{error}");
}

#[test]
fn links_in_a_generation_are_not_followed() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "a", "key", 1).unwrap();
    let generation = scratch.path().join("a/0000000001");
    let elsewhere = scratch.path().join("elsewhere");
    fs::rename(generation.join("mem.bin"), &elsewhere).unwrap();
    symlink(&elsewhere, generation.join("mem.bin")).unwrap();
    assert!(store.inspect("a").is_err());
}

#[test]
fn generation_opens_wherever_it_was_copied() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "a", "key", 1).unwrap();
    let moved = scratch.path().join("moved");
    fs::rename(scratch.path().join("a/0000000001"), &moved).unwrap();
    let found = Store::inspect_path(&moved).unwrap();
    check(&found.admit(&testing::stamp()).unwrap(), 1);
}

#[test]
fn wrong_engine_is_told_with_the_remedy() {
    let scratch = Scratch::new();
    let store = scratch.store();
    publish(&store, "a", "key", 1).unwrap();
    let here = Stamp {
        engine: EngineId::new("hvf"),
        ..testing::stamp()
    };
    let error = store.open("a", &here).unwrap_err();
    assert!(error.wants_rebake());
    assert!(error.to_string().ends_with("bake it again"), "{error}");
    let SnapshotError::WrongEngine { found, here } = error else {
        panic!("{error}");
    };
    assert_eq!((found.as_str(), here.as_str()), ("soft", "hvf"));
}
