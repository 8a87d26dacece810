//! What is in the cache, and what of it goes.

mod support;

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use supermachine_oci_bake::{
    BakeOptions, Descriptor, Digest, EntryKind, Event, GcOptions, ImageBuilder, LayerBuilder,
    Progress, Reference, Store, StoreEntry, bake,
};
use support::{MANIFEST, Scratch, text};

const NAME: &str = "registry.example/o/i:1";

/// An image of two layers, and the digest of its manifest.
fn image(scratch: &Scratch) -> (String, Digest) {
    let layout = scratch.path("image");
    let digest = ImageBuilder::new()
        .layer(
            LayerBuilder::new()
                .dir("d", 0o755)
                .file("d/f", 0o644, vec![9; 200_000]),
        )
        .layer(LayerBuilder::new().file("g", 0o644, "x"))
        .cmd(["/d/f"])
        .write_layout(&layout)
        .unwrap();
    (format!("oci:{}", text(&layout)), digest)
}

fn layers(entries: &[StoreEntry]) -> Vec<&StoreEntry> {
    let is_layer = |entry: &&StoreEntry| entry.kind == EntryKind::Layer;
    entries.iter().filter(is_layer).collect()
}

fn paths(entries: &[StoreEntry]) -> Vec<PathBuf> {
    entries.iter().map(|entry| entry.path.clone()).collect()
}

fn all() -> GcOptions {
    GcOptions::default()
}

#[test]
fn what_a_bake_or_a_snapshot_has_stays_and_the_rest_goes() {
    let scratch = Scratch::new();
    assert!(Store::existing(scratch.path("cache")).unwrap().is_none());
    assert!(!scratch.path("cache").exists());
    let (reference, _) = image(&scratch);
    let baked = scratch.bake(&reference).unwrap();
    let store = Store::existing(scratch.path("cache")).unwrap().unwrap();

    // As long as somebody may start machines of it.
    let copy = baked.clone();
    drop(baked);
    let found = store.du().unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|entry| entry.in_use && !entry.is_damaged));
    assert!(found.iter().any(|entry| entry.bytes >= 200_000));
    assert!(store.gc(&all()).unwrap().is_empty());
    assert!(copy.layers.iter().all(|layer| layer.exists()));

    let layers = copy.layers.clone();
    drop(copy);
    assert!(store.du().unwrap().iter().all(|entry| !entry.in_use));
    // A snapshot has the file by another name.
    fs::hard_link(&layers[0], scratch.path("snapshot")).unwrap();
    let mut options = all();
    options.dry_run = true;
    assert_eq!(paths(&store.gc(&options).unwrap()), [layers[1].clone()]);
    assert!(layers[1].exists());
    assert_eq!(paths(&store.gc(&all()).unwrap()), [layers[1].clone()]);
    assert!(layers[0].exists() && !layers[1].exists());
    fs::remove_file(scratch.path("snapshot")).unwrap();
    let mut options = all();
    options.unused_for = Duration::from_secs(24 * 3600);
    assert!(store.gc(&options).unwrap().is_empty());
    assert_eq!(paths(&store.gc(&all()).unwrap()), [layers[0].clone()]);
    assert!(store.du().unwrap().is_empty());
    assert_eq!(scratch.bake(&reference).unwrap().layers, layers);
}

/// Collects whenever a bake has come a step further.
#[derive(Debug)]
struct Collecting(Store, Mutex<Vec<PathBuf>>);

impl Progress for Collecting {
    fn report(&self, _: &Event<'_>) {
        let gone = self.0.gc(&GcOptions::default()).unwrap();
        self.1.lock().unwrap().extend(paths(&gone));
    }
}

#[test]
fn layers_of_a_bake_under_way_stay() {
    let scratch = Scratch::new();
    let (reference, _) = image(&scratch);
    let collecting = Arc::new(Collecting(scratch.store(), Mutex::default()));
    let mut options = BakeOptions::default();
    options.progress = Some(collecting.clone());
    let reference = Reference::parse(&reference).unwrap();
    // First they are made, then they are found.
    for _ in 0..2 {
        let baked = bake(&reference, &options, &scratch.store()).unwrap();
        assert!(baked.layers.iter().all(|layer| layer.exists()));
        assert!(collecting.1.lock().unwrap().is_empty());
        options.progress = Some(collecting.clone());
    }
}

#[test]
fn what_a_dead_process_had_is_not_in_use() {
    let scratch = Scratch::new();
    let (reference, _) = image(&scratch);
    let baked = scratch.bake(&reference).unwrap();
    let store = scratch.store();
    let notes = || fs::read_dir(scratch.path("cache/leases")).unwrap();
    let note = notes().next().unwrap().unwrap().path();
    let copy = note.with_file_name("1-1-1.lease");
    fs::copy(&note, &copy).unwrap();
    drop(baked);
    assert!(!note.exists());
    assert_eq!(layers(&store.gc(&all()).unwrap()).len(), 2);
    assert_eq!(notes().count(), 0);
    // What cannot be read may name anything.
    scratch.bake(&reference).unwrap();
    let file = File::create(&copy).unwrap();
    file.lock().unwrap();
    file.set_len(2 << 20).unwrap();
    assert!(store.gc(&all()).unwrap().is_empty());
    drop(file);
    assert_eq!(store.gc(&all()).unwrap().len(), 2);
}

#[test]
fn layers_of_an_earlier_version_go_as_soon_as_nothing_has_them() {
    let scratch = Scratch::new();
    let (reference, _) = image(&scratch);
    let baked = scratch.bake(&reference).unwrap();
    let old = baked.layers[1].clone();
    let mut bytes = fs::read(&old).unwrap();
    let digit = bytes.len() - 4096 + 7;
    bytes[digit] = b'1';
    fs::write(&old, bytes).unwrap();
    let store = scratch.store();
    let mut options = all();
    options.unused_for = Duration::from_secs(24 * 3600);
    assert!(store.gc(&options).unwrap().is_empty());
    drop(baked);
    let gone = store.gc(&options).unwrap();
    assert_eq!((paths(&gone), gone[0].is_damaged), (vec![old], true));
}

/// As if the image had come from a registry.
fn remember(scratch: &Scratch, manifest: &Digest) -> [PathBuf; 2] {
    let store = scratch.store();
    let blob = |digest: &Digest| {
        let path = scratch.path("image/blobs/sha256").join(digest.hex());
        fs::read(path).unwrap()
    };
    let bytes = blob(manifest);
    let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let config: Digest = document["config"]["digest"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    store.keep_document(manifest, &bytes).unwrap();
    store.keep_document(&config, &blob(&config)).unwrap();
    let root = Descriptor::new(MANIFEST, manifest.clone(), bytes.len() as u64);
    store.remember(NAME, &root).unwrap();
    [manifest, &config].map(|digest| {
        let name = format!("sha256-{}", digest.hex());
        scratch.path("cache/documents").join(name)
    })
}

#[test]
fn names_go_with_the_layers_of_their_images_and_documents_some_time_after() {
    let scratch = Scratch::new();
    let (reference, manifest) = image(&scratch);
    let baked = scratch.bake(&reference).unwrap();
    let documents = remember(&scratch, &manifest);
    let store = scratch.store();
    // Nobody needs this one.
    let spare = Digest::sha256_of(b"{}");
    store.keep_document(&spare, b"{}").unwrap();
    let spare = scratch
        .path("cache/documents")
        .join(format!("sha256-{}", spare.hex()));
    let is_used = |found: &[StoreEntry], name: &str| {
        found
            .iter()
            .find(|entry| entry.name == name)
            .unwrap()
            .in_use
    };
    let file_name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let found = store.du().unwrap();
    assert_eq!(found.len(), 6);
    assert!(is_used(&found, NAME) && is_used(&found, &file_name(&documents[1])));
    assert!(!is_used(&found, &file_name(&spare)));
    let age = |path: &PathBuf| {
        let before = SystemTime::now() - Duration::from_secs(3 * 3600);
        let file = File::options().append(true).open(path).unwrap();
        file.set_modified(before).unwrap();
    };
    // It may be that of a pull which has just begun.
    assert!(store.gc(&all()).unwrap().is_empty());
    age(&spare);
    age(&documents[0]);
    assert_eq!(paths(&store.gc(&all()).unwrap()), [spare]);

    drop(baked);
    let gone = store.gc(&all()).unwrap();
    let kinds: Vec<EntryKind> = gone.iter().map(|entry| entry.kind).collect();
    use EntryKind::{Document, Layer, Name};
    assert_eq!(kinds, [Layer, Layer, Name, Document]);
    assert_eq!(store.remembered(NAME), None);
    assert!(!documents[0].exists() && documents[1].exists());
}

#[test]
fn damage_is_found_by_reading_everything_and_removed_when_asked_for() {
    let scratch = Scratch::new();
    let (reference, manifest) = image(&scratch);
    let baked = scratch.bake(&reference).unwrap();
    let documents = remember(&scratch, &manifest);
    let store = scratch.store();
    assert!(store.verify().unwrap().is_empty());
    let layer = baked.layers[0].clone();
    let mut bytes = fs::read(&layer).unwrap();
    bytes[1000] ^= 1;
    fs::write(&layer, bytes).unwrap();
    fs::write(&documents[1], "{}").unwrap();
    let damaged = store.verify().unwrap();
    assert_eq!(paths(&damaged), [layer.clone(), documents[1].clone()]);
    drop(baked);
    let mut options = all();
    options.unused_for = Duration::from_secs(24 * 3600);
    options.verify = true;
    let gone = store.gc(&options).unwrap();
    assert!(paths(&gone).contains(&layer) && paths(&gone).contains(&documents[1]));
    // The image is no longer whole.
    assert_eq!(store.remembered(NAME), None);
    assert!(store.verify().unwrap().is_empty());
    assert_eq!(layers(&store.du().unwrap()).len(), 1);
}
