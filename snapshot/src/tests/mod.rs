//! Tests over whole generations in a directory.

use crate::manifest::{FileEntry, MANIFEST_FORMAT, Manifest, MemoryTable};
use crate::testing::stamp;
use crate::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

mod bakers;
mod damage;
mod faults;
mod fuzz;
mod life;
mod links;
mod passed;

pub(crate) const MEMORY_BYTES: usize = 5 << 20;
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that goes away with its owner.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("snapshot-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(self.path()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Names in a directory, sorted; none of one that is not there.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        entries => entries.unwrap(),
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Memory with a few pages that differ by `seed`, on both sides of a chunk's
/// edge and at both ends, where it is as many as are left to a base.
pub(crate) fn memory(seed: u8) -> Vec<u8> {
    let mut memory = vec![0; MEMORY_BYTES];
    for page in [0, 1, 7, 511, 512].into_iter().chain(1264..1280) {
        memory[page * 4096..][..4096].fill(seed);
        memory[page * 4096 + 1] = page.to_le_bytes()[0];
    }
    memory
}

pub(crate) fn state(seed: u8) -> Vec<u8> {
    let mut writer = StateWriter::new();
    for (kind, instance) in [(SectionKind::MACHINE, 0), (SectionKind::VCPU, 1)] {
        let section = Section {
            kind,
            instance,
            version: 1,
            scope: Scope::Machine,
            bytes: &[seed; 50],
        };
        writer.section(&section).unwrap();
    }
    writer.finish().unwrap()
}

/// Fills a draft and publishes it.
pub(crate) fn fill(mut draft: Draft, key: &str, seed: u8) -> Result<u64> {
    draft.memory(&mut BytePages::new(&memory(seed)))?;
    draft.state(&state(seed))?;
    draft.working_set(&WorkingSet::from_pages([0, 1, 7]))?;
    draft.extra_file("fs-0.bin", &mut &b"extra"[..])?;
    draft.publish(description(key))
}

pub(crate) fn publish(store: &Store, image: &str, key: &str, seed: u8) -> Result<u64> {
    fill(store.lock(image, PATIENCE)?.draft()?, key, seed)
}

/// Publishes memory that has most in common with that of [`publish`] with seed 3.
pub(crate) fn base_of(store: &Store) -> Snapshot {
    let mut draft = store.lock("base", PATIENCE).unwrap().draft().unwrap();
    let mut memory = memory(3);
    // In the unit of pages 512 to 515.
    memory[514 * 4096] = 1;
    draft.memory(&mut BytePages::new(&memory)).unwrap();
    draft.state(&state(1)).unwrap();
    draft.publish(description("base")).unwrap();
    store.open("base", &stamp()).unwrap()
}

/// Checks every byte of a snapshot made by [`publish`].
pub(crate) fn check(snapshot: &Snapshot, seed: u8) {
    snapshot.verify().unwrap();
    let mapping = snapshot.map_memory().unwrap();
    let mut found = vec![0; MEMORY_BYTES];
    mapping.slice().copy_to(&mut found[..]);
    assert!(found == memory(seed), "memory differs");
    let mut claims = snapshot.state().claim();
    let section = claims.take(SectionKind::VCPU, 1, 1..=1).unwrap();
    assert_eq!(section.bytes, [seed; 50]);
}

pub(crate) fn description(key: &str) -> Description {
    Description {
        key: key.to_owned(),
        created_unix_s: 1_700_000_000,
        stamp: stamp(),
        vcpus: 2,
        resources: vec![Resource {
            kind: "disk".to_owned(),
            name: "root".to_owned(),
        }],
        labels: BTreeMap::from([("reference".to_owned(), "alpine:3".to_owned())]),
    }
}

pub(crate) fn manifest() -> Manifest {
    let memory = MemoryTable {
        stored_bytes: 8192,
        chunks: vec![(0, 1), (3, 2)],
        base_runs: vec![(2, 3), (9, 1)],
    };
    let entry = |bytes, crc32c| FileEntry { bytes, crc32c };
    let files = [
        ("state.bin", entry(100, 7)),
        ("mem.bin", entry(8 << 20, memory.crc32c())),
        ("ws.bin", entry(32, 8)),
        ("fs-0.bin", entry(5, 9)),
    ];
    Manifest {
        format: MANIFEST_FORMAT,
        name: "alpine".to_owned(),
        machine: description("key"),
        memory,
        files: files.map(|(name, entry)| (name.to_owned(), entry)).into(),
    }
}
