//! Pulling from a registry that does everything right.

mod support;

use std::sync::{Arc, Mutex};

use serde_json::json;
use supermachine_oci_bake::{BakeError, BakeOptions, ImageBuilder, LayerBuilder, Reference};
use supermachine_oci_bake::{Digest, ImageError, Platform};
use supermachine_oci_pull::{Client, PullError, PullPolicy};
use support::*;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[test]
fn an_image_is_pulled_once_and_found_without_the_network_from_then_on() {
    let image = Image::new(300_000);
    let answers = image.clone();
    let server = Server::start(move |request| answers.answer(request));
    let scratch = Scratch::new();
    let store = scratch.store();
    let reference = format!("{}/a/b:v1", server.host());

    let error = pull_with(config(), &reference, PullPolicy::Never, &store).unwrap_err();
    assert!(
        matches!(cause(&error), PullError::NotHere { .. }),
        "{error}"
    );
    assert_eq!(server.seen().len(), 0);

    assert_whole(&pull(&reference, &store).unwrap(), &image);
    let asked = server.seen().len();
    assert_eq!(server.count(|r| r.path.ends_with("/manifests/v1")), 1);
    for policy in [PullPolicy::Missing, PullPolicy::Never] {
        let again = pull_with(config(), &reference, policy, &store).unwrap();
        assert_whole(&again, &image);
    }
    assert_eq!(server.seen().len(), asked);

    // Asked again, it is the same: no blob comes a second time.
    let blobs = server.count(Request::is_blob);
    pull_with(config(), &reference, PullPolicy::Always, &store).unwrap();
    assert_eq!(server.count(|r| r.path.ends_with("/manifests/v1")), 2);
    assert_eq!(server.count(Request::is_blob), blobs);

    // By its digest too, which names the same layers.
    let pinned = format!("{}/a/b@{}", server.host(), image.root);
    assert_whole(&pull(&pinned, &store).unwrap(), &image);
    assert_eq!(server.count(Request::is_blob), blobs);
}

#[test]
fn a_tag_that_moved_is_followed_by_those_who_always_ask() {
    let first = Image::new(1000);
    let second = Image::new(2000);
    let current = Arc::new(Mutex::new(first.clone()));
    let answers = Arc::clone(&current);
    let server = Server::start(move |request| answers.lock().unwrap().answer(request));
    let scratch = Scratch::new();
    let store = scratch.store();
    let reference = format!("{}/a:v1", server.host());
    assert_whole(&pull(&reference, &store).unwrap(), &first);
    *current.lock().unwrap() = second.clone();
    assert_whole(&pull(&reference, &store).unwrap(), &first);
    let always = pull_with(config(), &reference, PullPolicy::Always, &store).unwrap();
    assert_whole(&always, &second);
    assert_whole(&pull(&reference, &store).unwrap(), &second);
}

/// An index of images for some platforms, and an attestation as BuildKit adds it.
fn index_of(platforms: &[&str]) -> Image {
    let mut all = Image::new(0);
    let mut entries = vec![json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": Digest::sha256_of(b"attestation").to_string(), "size": 11,
        "platform": { "os": "unknown", "architecture": "unknown" },
    })];
    for platform in platforms {
        let (os, architecture) = platform.split_once('/').unwrap();
        let layer = LayerBuilder::new().file("platform", 0o644, *platform);
        let one = Image::of(ImageBuilder::new().architecture(architecture).layer(layer));
        let (kind, bytes) = &one.manifests[&one.root];
        entries.push(json!({
            "mediaType": kind, "digest": one.root, "size": bytes.len(),
            "platform": { "os": os, "architecture": architecture },
        }));
        all.manifests.extend(one.manifests.clone());
        all.blobs.extend(one.blobs);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    let bytes = index.to_string().into_bytes();
    all.root = Digest::sha256_of(&bytes).to_string();
    for name in ["v1", &all.root] {
        let entry = (INDEX.to_owned(), bytes.clone());
        all.manifests.insert(name.to_owned(), entry);
    }
    all
}

#[test]
fn an_index_leads_to_the_platform_that_is_asked_for() {
    let image = index_of(&["linux/amd64", "linux/arm64"]);
    let server = Server::start(move |request| image.answer(request));
    let scratch = Scratch::new();
    let store = scratch.store();
    let reference = format!("{}/a:v1", server.host());
    let pulled = pull(&reference, &store).unwrap();
    assert_eq!(pulled.config.platform(), Platform::default());

    let mut options = BakeOptions::default();
    options.platform = "linux/amd64".parse().unwrap();
    let parsed = Reference::parse(&reference).unwrap();
    let name = parsed.registry_name().unwrap();
    let client = Client::new(config());
    let other = client
        .pull(name, PullPolicy::Missing, &options, &store)
        .unwrap();
    assert_ne!(other.config_digest, pulled.config_digest);

    options.platform = "linux/riscv64".parse().unwrap();
    let error = client
        .pull(name, PullPolicy::Missing, &options, &store)
        .unwrap_err();
    let BakeError::Image(ImageError::WrongPlatform { found, .. }) = &error else {
        panic!("{}", chain(&error));
    };
    assert_eq!(*found, ["linux/amd64", "linux/arm64"]);
}

#[test]
fn what_could_not_be_baked_is_not_remembered() {
    let image = index_of(&["linux/amd64"]);
    let server = Server::start(move |request| image.answer(request));
    let scratch = Scratch::new();
    let store = scratch.store();
    let reference = format!("{}/a:v1", server.host());
    assert!(pull(&reference, &store).is_err());
    let asked = server.count(|r| r.path.ends_with("/manifests/v1"));
    assert!(pull(&reference, &store).is_err());
    assert!(server.count(|r| r.path.ends_with("/manifests/v1")) > asked);
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let image = Image::new(0);
    let server = Server::start(move |request| image.answer(request));
    let scratch = Scratch::new();
    let reference = format!("{}/a/b:other", server.host());
    let error = pull(&reference, &scratch.store()).unwrap_err();
    assert!(
        matches!(cause(&error), PullError::NotFound { .. }),
        "{error}"
    );
    assert!(chain(&error).contains("a/b:other"), "{}", chain(&error));
}

/// moby#14239: several at once, of one store, with layers in common.
#[test]
fn pulls_at_the_same_time_share_layers_without_harm() {
    let image = Image::new(500_000);
    let answers = image.clone();
    let server = Server::start(move |request| answers.answer(request));
    let scratch = Scratch::new();
    let store = scratch.store();
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let (reference, store, image) =
                (format!("{}/{name}:v1", server.host()), &store, &image);
            scope.spawn(move || assert_whole(&pull(&reference, store).unwrap(), image));
        }
    });
    assert_eq!(scratch.layers(), 2);
    // Each waited for the one who got it.
    assert_eq!(server.count(|request| image.is_layer(request)), 1);
}
