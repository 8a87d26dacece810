//! Snapshots as one file: whole, damaged, and made to do harm.

use super::*;
use crate::testing::stamp;
use crate::tests::{PATIENCE, Scratch, description, memory, names, publish, state};
use crate::{BytePages, WorkingSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// A snapshot `a` that has most of its memory in common with another, and what is exported.
fn exported(scratch: &Scratch) -> Vec<u8> {
    let store = scratch.store();
    publish(&store, "base", "base", 1).unwrap();
    let base = store.open("base", &stamp()).unwrap();
    let mut draft = store.lock("a", PATIENCE).unwrap().draft().unwrap();
    draft.share(&base).unwrap();
    let mut own = memory(1);
    own[700 * 4096 + 5] = 9;
    own[7 * 4096 + 5] = 9;
    draft.memory(&mut BytePages::new(&own)).unwrap();
    draft.state(&state(1)).unwrap();
    draft
        .working_set(&WorkingSet::from_pages([0, 1, 7]))
        .unwrap();
    draft
        .extra_file("layer", &mut &vec![3; 3 << 20][..])
        .unwrap();
    draft.extra_file("empty", &mut &b""[..]).unwrap();
    draft.publish(description("key")).unwrap();
    let mut bundle = Vec::new();
    store.inspect("a").unwrap().export(&mut bundle).unwrap();
    bundle
}

fn import(bundle: &[u8], into: &Scratch) -> Result<Snapshot> {
    let mut input = bundle;
    let mut known = |_: &str, _| None;
    into.store()
        .import(None, &mut input, &stamp(), PATIENCE, &mut known)
}

/// What is wrong with a file, of which nothing is left.
fn refusal(bundle: &[u8], what: &str) -> SnapshotError {
    let into = Scratch::new();
    let error = import(bundle, &into).expect_err(what);
    assert_eq!(names(into.path()), Vec::<String>::new(), "{what}: {error}");
    error
}

#[test]
fn a_snapshot_comes_back_as_it_was_and_takes_no_more_room() {
    let (from, into) = (Scratch::new(), Scratch::new());
    let bundle = exported(&from);
    // All that is in it are a few pages, and repetitions.
    assert!(bundle.len() < 200_000, "{}", bundle.len());
    let found = import(&bundle, &into).unwrap();
    assert_eq!(found.path(), into.path().join("a/0000000001"));
    let old = from.store().inspect("a").unwrap();
    assert!(old.base().is_some());
    assert_eq!(found.manifest(), old.manifest());
    assert_eq!(found.working_set(), old.working_set());
    for name in [
        "mem.bin",
        "state.bin",
        "ws.bin",
        "layer",
        "empty",
        "manifest.json",
    ] {
        let read = |found: &Inspection| fs::read(found.path().join(name)).unwrap();
        assert!(read(&found) == read(&old), "{name}");
    }
    let blocks = |name: &str| fs::metadata(found.path().join(name)).unwrap().blocks();
    assert!(blocks("mem.bin") * 512 < 1 << 20 && blocks("base.bin") * 512 < 1 << 20);
    found.verify().unwrap();
    // Again, under another name, with a file that is here already.
    let layer = found.path().join("layer");
    let mut known = |name: &str, entry: FileEntry| {
        let is_same = FileEntry::of(&crate::SystemFiles, &layer).unwrap() == entry;
        (name == "layer" && is_same).then(|| layer.clone())
    };
    let mut input = bundle.as_slice();
    let other = into.store();
    let other = other
        .import(Some("b"), &mut input, &stamp(), PATIENCE, &mut known)
        .unwrap();
    assert_eq!(other.manifest().name, "b");
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&other.path().join("layer")), inode(&layer));
    // And once more over the first.
    let again = import(&bundle, &into).unwrap();
    assert_eq!(again.number(), Some(2));
}

#[test]
fn what_was_damaged_on_the_way_is_refused_and_leaves_nothing() {
    let bundle = exported(&Scratch::new());
    let step = bundle.len() / 20 + 1;
    for at in (0..bundle.len()).step_by(step).chain([bundle.len() - 1]) {
        let mut bad = bundle.clone();
        bad[at] ^= 0x20;
        refusal(&bad, &format!("byte {at}"));
        refusal(&bundle[..at], &format!("{at} bytes"));
    }
    let longer = [&bundle[..], b"x"].concat();
    assert!(
        refusal(&longer, "longer")
            .to_string()
            .contains("after its end")
    );
    for other in [
        &b"not at all"[..],
        b"",
        &[0; 5000],
        &[0x28, 0xb5, 0x2f, 0xfd],
    ] {
        assert!(matches!(
            refusal(other, "other"),
            SnapshotError::Bundle { .. }
        ));
    }
}

#[test]
fn what_cannot_run_here_is_refused_before_the_rest_is_read() {
    let bundle = exported(&Scratch::new());
    let mut here = stamp();
    here.engine = crate::EngineId::new("another");
    let into = Scratch::new();
    // The manifest, and next to nothing after it.
    let mut input = &bundle[..bundle.len().min(8 + 4096)];
    let mut known = |_: &str, _| None;
    let error = into
        .store()
        .import(None, &mut input, &here, PATIENCE, &mut known);
    assert!(
        matches!(error, Err(SnapshotError::WrongEngine { .. })),
        "{error:?}"
    );
    assert_eq!(names(into.path()), Vec::<String>::new());
}

/// The records of a file.
fn records(bundle: &[u8]) -> Vec<Record> {
    let mut bytes = &bundle[8..];
    let mut input = In {
        input: &mut bytes,
        crc32c: crc32c::crc32c(&bundle[..8]),
    };
    let mut records = Vec::new();
    loop {
        match input.record().unwrap() {
            Record::End => return records,
            record => records.push(record),
        }
    }
}

/// A file of records, with a right checksum.
fn file_of(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut out = Out {
        out: &mut bytes,
        crc32c: 0,
    };
    out.put(MAGIC).unwrap();
    for record in records {
        match record {
            Record::File { name, bytes } => out.begin(name, *bytes).unwrap(),
            Record::Data { offset, content } => out.data(*offset, content).unwrap(),
            Record::End => {}
        }
    }
    out.put(&[END]).unwrap();
    let crc32c = out.crc32c;
    out.put(&crc32c.to_le_bytes()).unwrap();
    bytes
}

fn file(name: &str, bytes: u64) -> Record {
    Record::File {
        name: name.to_owned(),
        bytes,
    }
}

fn data(offset: u64, content: &[u8]) -> Record {
    Record::Data {
        offset,
        content: content.to_vec(),
    }
}

#[test]
fn a_file_that_was_made_to_do_harm_is_refused() {
    let bundle = exported(&Scratch::new());
    assert!(import(&file_of(&records(&bundle)), &Scratch::new()).is_ok());
    let name_at = |records: &[Record], wanted: &str| {
        let is_it = |record: &Record| matches!(record, Record::File { name, .. } if name == wanted);
        records.iter().position(is_it).unwrap()
    };
    type Change<'a> = &'a dyn Fn(&mut Vec<Record>);
    let changes: [(&str, Change<'_>); 12] = [
        ("outside", &|all| all.insert(2, file("../../x", 1))),
        ("absolute", &|all| all.insert(2, file("/x", 1))),
        ("not in the manifest", &|all| all.insert(2, file("more", 1))),
        ("manifest again", &|all| all.push(file("manifest.json", 1))),
        ("twice", &|all| all.push(file("layer", 3 << 20))),
        ("another length", &|all| {
            let at = name_at(all, "layer");
            all[at] = file("layer", 1 << 50);
        }),
        ("a file is missing", &|all| {
            let at = name_at(all, "empty");
            all.remove(at);
        }),
        ("behind the end", &|all| {
            let at = name_at(all, "empty");
            all.insert(at + 1, data(0, b"x"));
        }),
        ("far behind the end", &|all| {
            let at = name_at(all, "layer");
            all.insert(at + 1, data(u64::MAX - 1, b"xyz"));
        }),
        ("backwards", &|all| {
            let at = name_at(all, "layer");
            all.insert(at + 2, data(0, b"x"));
        }),
        ("other content", &|all| {
            let at = name_at(all, "layer");
            all[at + 1] = data(0, b"x");
        }),
        ("other memory", &|all| {
            let at = name_at(all, "mem.bin");
            all[at + 1] = data(0, b"x");
        }),
    ];
    for (what, change) in changes {
        let mut all = records(&bundle);
        change(&mut all);
        refusal(&file_of(&all), what);
    }
    // Content that is longer than it says.
    let packed = compress_to_vec(&vec![0; 1 << 20][..], CompressionLevel::Fastest);
    for (bytes, method) in [(100, ZSTD), (1 << 30, ZSTD), (100, 7), (100, PLAIN)] {
        let mut bad = bundle[..8].to_vec();
        bad.extend([FILE, 13]);
        bad.extend(b"manifest.json");
        bad.extend(1000_u64.to_le_bytes());
        bad.push(DATA);
        bad.extend(0_u64.to_le_bytes());
        bad.extend(u32::to_le_bytes(bytes));
        bad.extend(u32::to_le_bytes(packed.len().try_into().unwrap()));
        bad.push(method);
        bad.extend(&packed);
        let error = refusal(&bad, "too much content");
        assert!(matches!(error, SnapshotError::Bundle { .. }), "{error}");
    }
    // A manifest without an end.
    let endless = [file("manifest.json", u64::MAX)];
    let error = refusal(&file_of(&endless), "endless");
    assert!(matches!(error, SnapshotError::TooLarge { .. }), "{error}");
}
