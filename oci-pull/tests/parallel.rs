//! Layers that come beside each other, and pulls that end before they do.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use supermachine_oci_bake::{
    BakeError, BakeOptions, Digest, Event, ImageBuilder, ImageError, LayerBuilder,
    LayerCompression, LayerError, Progress, Reference,
};
use supermachine_oci_pull::{Client, PullPolicy};
use support::*;

/// For what must come at all, on a machine however slow.
const PATIENCE: Duration = Duration::from_secs(300);
/// Large enough to be kept when a pull ends.
const LARGE: usize = 1 << 21;

/// Bytes that do not compress.
fn noise(seed: usize, bytes: usize) -> Vec<u8> {
    let mut state = u32::try_from(seed).unwrap();
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(bytes)
    .collect()
}

/// An image of layers of these sizes, and the digests of their blobs, bottom first.
fn image(sizes: &[usize]) -> (Image, Vec<String>) {
    image_with(LayerCompression::None, sizes)
}

fn image_with(compression: LayerCompression, sizes: &[usize]) -> (Image, Vec<String>) {
    let builder = ImageBuilder::new().compression(compression);
    let layers = sizes.iter().enumerate().map(|(at, bytes)| {
        LayerBuilder::new().file(&format!("f{at}"), 0o644, noise(at + 1, *bytes))
    });
    let image = Image::of(layers.fold(builder.cmd(["/f0"]), ImageBuilder::layer));
    let (_, manifest) = &image.manifests[&image.root];
    let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    let digests = layers.map(|layer| layer["digest"].as_str().unwrap().to_owned());
    let digests = digests.collect();
    (image, digests)
}

/// Which layer a request is for.
fn layer_of(layers: &[String], request: &Request) -> Option<usize> {
    layers
        .iter()
        .position(|digest| request.path.ends_with(digest.as_str()))
}

/// Counts, and lets others wait for a count.
#[derive(Default)]
struct Count(Mutex<usize>, Condvar);

impl Count {
    fn add(&self) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_all();
    }

    fn reaches(&self, wanted: usize) -> bool {
        let count = self.0.lock().unwrap();
        let waited = self
            .1
            .wait_timeout_while(count, PATIENCE, |count| *count < wanted);
        *waited.unwrap().0 >= wanted
    }
}

fn partials(scratch: &Scratch) -> Vec<PathBuf> {
    files(&scratch.0.join("cache/partial"))
}

/// Where what came of a blob is kept.
fn partial(scratch: &Scratch, digest: &str) -> PathBuf {
    let name = digest.replace(':', "-");
    scratch.0.join("cache/partial").join(name)
}

/// A3S-Lab/Box#105: one after the other.
#[test]
fn three_layers_come_at_a_time_and_no_more() {
    let (image, layers) = image(&[1000; 7]);
    let (asked, now, most) = (Count::default(), AtomicUsize::new(0), AtomicUsize::new(0));
    let most = Arc::new(most);
    let seen = Arc::clone(&most);
    let server = Server::start(move |request| {
        if layer_of(&layers, request).is_some() {
            let beside = now.fetch_add(1, Ordering::SeqCst) + 1;
            seen.fetch_max(beside, Ordering::SeqCst);
            asked.add();
            // A client that gets one after the other would wait here for itself.
            assert!(asked.reaches(3));
            now.fetch_sub(1, Ordering::SeqCst);
        }
        image.answer(request)
    });
    let scratch = Scratch::new();
    let baked = pull(&format!("{}/a:v1", server.host()), &scratch.store()).unwrap();
    assert_eq!(baked.layers.len(), 7);
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[test]
fn a_layer_that_comes_last_holds_up_no_other_and_is_where_it_belongs() {
    let (image, layers) = image(&[1000; 6]);
    let others = Count::default();
    let server = Server::start(move |request| {
        match layer_of(&layers, request) {
            // The bottom one comes when all others are there.
            Some(0) => assert!(others.reaches(5)),
            Some(_) => others.add(),
            None => {}
        }
        image.answer(request)
    });
    let scratch = Scratch::new();
    let baked = pull(&format!("{}/a:v1", server.host()), &scratch.store()).unwrap();
    for (path, diff_id) in baked.layers.iter().zip(&baked.diff_ids) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.contains(diff_id.hex()), "{name} {diff_id}");
    }
    assert_eq!(baked.layers.len(), 6);
}

#[test]
fn a_wrong_layer_ends_the_others_at_once_and_spoils_none_of_them() {
    let (image, layers) = image(&[1000, LARGE, LARGE, 1000]);
    let is_bad = Arc::new(AtomicBool::new(true));
    let bad = Arc::clone(&is_bad);
    let third_is_asked_for = Count::default();
    let (honest, digests) = (image.clone(), layers.clone());
    let server = Server::start(move |request| {
        let reply = honest.answer(request);
        match layer_of(&digests, request) {
            Some(1) if bad.load(Ordering::SeqCst) => {
                // Beside one that says nothing more.
                assert!(third_is_asked_for.reaches(1));
                let mut reply = reply;
                reply.body[5000] ^= 1;
                reply
            }
            Some(2) if bad.load(Ordering::SeqCst) => {
                third_is_asked_for.add();
                reply.ending(Ending::Stall(LARGE / 2))
            }
            _ => reply,
        }
    });
    let scratch = Scratch::new();
    let store = scratch.store();
    let mut config = config();
    config.stall_timeout = Duration::from_secs(3600);
    let reference = format!("{}/a:v1", server.host());
    let begun = Instant::now();
    let error = pull_with(config, &reference, PullPolicy::Missing, &store).unwrap_err();
    assert!(begun.elapsed() < PATIENCE, "it waited for the silent one");
    let is_mismatch = |error: &ImageError| match error {
        ImageError::DigestMismatch { expected, .. } => expected.to_string() == layers[1],
        _ => false,
    };
    match &error {
        BakeError::Layer {
            source: LayerError::Content(content),
            ..
        } if is_mismatch(content) => {}
        other => panic!("{}", chain(other)),
    }
    // What was wrong is gone, and what came of the other is kept.
    assert!(!partial(&scratch, &layers[1]).exists());
    assert!(store.verify().unwrap().is_empty());

    is_bad.store(false, Ordering::SeqCst);
    let baked = pull(&reference, &store).unwrap();
    assert_eq!(baked.layers.len(), 4);
    assert!(store.verify().unwrap().is_empty());
    assert!(partials(&scratch).is_empty());
    // Nobody asked for a part of what was wrong.
    let parts = server.count(|request| {
        layer_of(&layers, request) == Some(1) && request.header("range").is_some()
    });
    assert_eq!(parts, 0);
}

#[test]
fn a_cancelled_pull_goes_on_where_it_was_with_every_layer() {
    let (image, layers) = image(&[LARGE; 3]);
    let stalls = Arc::new(AtomicBool::new(true));
    let (flag, digests, honest) = (Arc::clone(&stalls), layers.clone(), image.clone());
    let server = Server::start(move |request| {
        let reply = honest.answer(request);
        match layer_of(&digests, request) {
            Some(_) if flag.load(Ordering::SeqCst) => reply.ending(Ending::Stall(LARGE / 2)),
            _ => reply,
        }
    });
    let scratch = Scratch::new();
    let store = scratch.store();
    let reference = Reference::parse(&format!("{}/a:v1", server.host())).unwrap();
    let name = reference.registry_name().unwrap();
    let mut config = config();
    config.stall_timeout = Duration::from_secs(3600);
    let options = BakeOptions::default();
    let client = Client::new(config.clone());
    let kept = |digest: &String| {
        let file = fs::metadata(partial(&scratch, digest));
        file.map_or(0, |metadata| metadata.len())
    };
    let error = std::thread::scope(|scope| {
        let pull = scope.spawn(|| client.pull(name, PullPolicy::Missing, &options, &store));
        let begun = Instant::now();
        while layers.iter().any(|digest| kept(digest) < LARGE as u64 / 2) {
            assert!(begun.elapsed() < PATIENCE && !pull.is_finished());
            std::thread::sleep(Duration::from_millis(5));
        }
        options.cancel.cancel();
        pull.join().unwrap().unwrap_err()
    });
    assert!(matches!(error, BakeError::Cancelled), "{}", chain(&error));
    assert_eq!(scratch.layers(), 0);

    stalls.store(false, Ordering::SeqCst);
    // The same client can pull again.
    let baked = client
        .pull(name, PullPolicy::Missing, &BakeOptions::default(), &store)
        .unwrap();
    assert_eq!(baked.layers.len(), 3);
    let half = format!("bytes={}-", LARGE / 2);
    let parts = server.count(|request| request.header("range") == Some(half.as_str()));
    assert_eq!(parts, 3);
    assert!(partials(&scratch).is_empty());
}

/// Names the cache and the reference for this test's own process.
const CHILD: &str = "SUPERMACHINE_TEST_PULL_AND_BE_KILLED";

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    if let Ok(told) = std::env::var(CHILD) {
        let (cache, reference) = told.split_once('|').unwrap();
        let store = supermachine_oci_bake::Store::open(cache).unwrap();
        let mut config = config();
        config.stall_timeout = Duration::from_secs(3600);
        let _ = pull_with(config, reference, PullPolicy::Missing, &store);
        return;
    }
    let (image, layers) = image(&[1000, LARGE]);
    let stalls = First::times(1);
    let (digests, honest) = (layers.clone(), image.clone());
    let server = Server::start(move |request| {
        let reply = honest.answer(request);
        match layer_of(&digests, request) {
            Some(1) if stalls.take() => reply.ending(Ending::Stall(LARGE / 2)),
            _ => reply,
        }
    });
    let scratch = Scratch::new();
    let reference = format!("{}/a:v1", server.host());
    let cache = scratch.0.join("cache");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_pull_goes_on_where_it_was"])
        .env(CHILD, format!("{}|{reference}", cache.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let kept = partial(&scratch, &layers[1]);
    let bytes = || fs::metadata(&kept).map_or(0, |metadata| metadata.len());
    let begun = Instant::now();
    while bytes() < LARGE as u64 / 2 {
        assert!(begun.elapsed() < PATIENCE, "nothing is kept");
        assert!(child.try_wait().unwrap().is_none(), "the pull ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();

    let store = scratch.store();
    let baked = pull(&reference, &store).unwrap();
    assert_eq!(baked.layers.len(), 2);
    let half = format!("bytes={}-", LARGE / 2);
    let seen = server.seen();
    let ranges: Vec<_> = seen
        .iter()
        .filter(|request| layer_of(&layers, request) == Some(1))
        .map(|request| request.header("range"))
        .collect();
    assert_eq!(ranges, [None, Some(half.as_str())]);
    assert!(partials(&scratch).is_empty());
    assert!(store.verify().unwrap().is_empty());
}

#[test]
fn what_is_kept_and_damaged_is_got_again_and_no_reason_to_fail() {
    let (image, layers) = image_with(LayerCompression::Gzip, &[LARGE]);
    let blob = image.blobs[&layers[0]].clone();
    let honest = image.clone();
    let server = Server::start(move |request| honest.answer(request));
    let reference = format!("{}/a:v1", server.host());
    // Whole, a part, and what is no beginning of it at all, as after a crash.
    let mut flipped = blob.clone();
    flipped[1000] ^= 1;
    let zeros = vec![0; 4096];
    for damaged in [&flipped, &flipped[..LARGE / 2].to_vec(), &zeros] {
        let scratch = Scratch::new();
        let store = scratch.store();
        fs::create_dir_all(scratch.0.join("cache/partial")).unwrap();
        fs::write(partial(&scratch, &layers[0]), damaged).unwrap();
        let baked = pull(&reference, &store).unwrap();
        assert_eq!(baked.layers.len(), 1);
        assert!(partials(&scratch).is_empty());
    }
    // And what is whole is not asked for at all.
    let before = server.count(|request| layer_of(&layers, request).is_some());
    let scratch = Scratch::new();
    let store = scratch.store();
    fs::create_dir_all(scratch.0.join("cache/partial")).unwrap();
    fs::write(partial(&scratch, &layers[0]), &blob).unwrap();
    pull(&reference, &store).unwrap();
    let after = server.count(|request| layer_of(&layers, request).is_some());
    assert_eq!(after, before);
}

/// What was told of each layer, by its digest.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<(Digest, u64, u64)>>);

impl Progress for Told {
    fn report(&self, event: &Event<'_>) {
        if let Event::Read {
            diff_id,
            bytes,
            total_bytes,
            ..
        } = event
        {
            let line = ((*diff_id).clone(), *bytes, *total_bytes);
            self.0.lock().unwrap().push(line);
        }
    }
}

#[test]
fn progress_is_told_of_each_layer_by_its_digest_to_its_last_byte() {
    let (image, layers) = image(&[1000, LARGE, 1000]);
    let honest = image.clone();
    let server = Server::start(move |request| honest.answer(request));
    let scratch = Scratch::new();
    let told = Arc::new(Told::default());
    let mut options = BakeOptions::default();
    options.progress = Some(told.clone());
    let reference = Reference::parse(&format!("{}/a:v1", server.host())).unwrap();
    let name = reference.registry_name().unwrap();
    let baked = Client::new(config())
        .pull(name, PullPolicy::Missing, &options, &scratch.store())
        .unwrap();
    let told = told.0.lock().unwrap();
    for (diff_id, digest) in baked.diff_ids.iter().zip(&layers) {
        let size = image.blobs[digest].len() as u64;
        let of_it: Vec<_> = told.iter().filter(|(id, ..)| id == diff_id).collect();
        assert!(of_it.is_sorted_by_key(|(_, bytes, _)| *bytes));
        assert_eq!(of_it.last().map(|(_, bytes, _)| *bytes), Some(size));
        assert!(of_it.iter().all(|(.., total)| *total == size));
    }
}
