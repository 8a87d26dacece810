//! Images from elsewhere than a layout on the disk, for any platform, and what
//! a bake tells of itself.

mod support;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use serde_json::json;
use supermachine_oci_bake::{
    BakeError, BakeOptions, BlobSource, Descriptor, Digest, Event, ImageBuilder, ImageError,
    LayerBuilder, LayerError, Platform, Progress, Reference, bake, bake_from,
};
use support::*;

/// An image as a registry would have it.
#[derive(Debug, Default)]
struct Remote {
    blobs: BTreeMap<String, Vec<u8>>,
    roots: Vec<Descriptor>,
    /// A blob that never ends.
    endless: Option<Digest>,
}

impl Remote {
    fn add(&mut self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::sha256_of(bytes);
        self.blobs.insert(digest.to_string(), bytes.to_vec());
        Descriptor::new(media_type, digest, bytes.len() as u64)
    }

    /// An image of one layer for linux and some architecture.
    fn image(&mut self, architecture: &str, layer: &[u8]) -> Descriptor {
        let layer = self.add(LAYER, layer);
        let config = json!({
            "os": "linux", "architecture": architecture,
            "rootfs": { "type": "layers", "diff_ids": [layer.digest.to_string()] },
        });
        let config = self.add(CONFIG, config.to_string().as_bytes());
        let json = |d: &Descriptor| json!({ "mediaType": d.media_type, "digest": d.digest.to_string(), "size": d.size });
        let manifest = json!({
            "schemaVersion": 2, "config": json(&config), "layers": [json(&layer)],
        });
        let manifest = self.add(MANIFEST, manifest.to_string().as_bytes());
        self.roots.push(manifest.clone());
        manifest
    }
}

impl BlobSource for Remote {
    fn roots(&self) -> Result<Vec<Descriptor>, ImageError> {
        Ok(self.roots.clone())
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + '_>, ImageError> {
        if self.endless.as_ref() == Some(&blob.digest) {
            return Ok(Box::new(io::repeat(0)));
        }
        match self.blobs.get(&blob.digest.to_string()) {
            Some(bytes) => Ok(Box::new(&bytes[..])),
            None => Err(ImageError::Source(Box::new(io::Error::other(
                "the registry answered 503",
            )))),
        }
    }
}

fn layer(file: &str) -> Vec<u8> {
    LayerBuilder::new()
        .file(file, 0o644, file)
        .to_tar()
        .unwrap()
}

#[test]
fn an_image_from_a_source_of_another_crate_is_baked_and_checked() {
    let scratch = Scratch::new();
    let mut remote = Remote::default();
    let content = layer("hello");
    let digest = Digest::sha256_of(&content);
    let manifest = remote.image("arm64", &content);
    let options = BakeOptions::default();
    let baked = bake_from(&remote, &options, &scratch.store()).unwrap();
    assert_eq!(baked.manifest_digest, Some(manifest.digest));
    assert_eq!(baked.diff_ids, std::slice::from_ref(&digest));
    let names = listing(&baked.layers[0]);
    assert!(
        names.iter().any(|line| line.ends_with("/hello")),
        "{names:?}"
    );

    // What it gives is not believed: other bytes, less, more, none.
    let fresh = |remote: &Remote, cache: &str| {
        let store = supermachine_oci_bake::Store::open(scratch.path(cache)).unwrap();
        bake_from(remote, &options, &store).unwrap_err()
    };
    let key = digest.to_string();
    let content_error = |error: BakeError| match error {
        BakeError::Layer {
            source: LayerError::Content(error),
            ..
        } => *error,
        other => panic!("{}", chain(&other)),
    };
    remote.blobs.get_mut(&key).unwrap()[600] ^= 1;
    let error = content_error(fresh(&remote, "1"));
    assert!(
        matches!(error, ImageError::DigestMismatch { .. }),
        "{error}"
    );
    remote.blobs.get_mut(&key).unwrap().truncate(1024);
    let error = content_error(fresh(&remote, "2"));
    assert!(matches!(error, ImageError::SizeMismatch { .. }), "{error}");
    remote.endless = Some(digest);
    let error = content_error(fresh(&remote, "3"));
    assert!(matches!(error, ImageError::SizeMismatch { .. }), "{error}");
    remote.endless = None;
    remote.blobs.remove(&key);
    let error = chain(&fresh(&remote, "4"));
    assert!(error.contains("answered 503"), "{error}");
}

#[test]
fn a_document_that_does_not_end_is_read_no_further_than_it_should_go() {
    let scratch = Scratch::new();
    let mut remote = Remote::default();
    let manifest = remote.image("arm64", &layer("f"));
    remote.endless = Some(manifest.digest);
    let error = bake_from(&remote, &BakeOptions::default(), &scratch.store()).unwrap_err();
    assert!(
        matches!(&error, BakeError::Image(ImageError::SizeMismatch { .. })),
        "{}",
        chain(&error)
    );
    remote.endless = None;
    remote.roots[0].size = u64::MAX;
    let error = bake_from(&remote, &BakeOptions::default(), &scratch.store()).unwrap_err();
    assert!(
        matches!(
            &error,
            BakeError::Image(ImageError::DocumentTooLarge { .. })
        ),
        "{}",
        chain(&error)
    );
}

#[test]
fn the_platform_chooses_the_image_and_an_error_lists_what_there_is() {
    let scratch = Scratch::new();
    let mut remote = Remote::default();
    let arm64 = remote.image("arm64", &layer("arm")).digest;
    let amd64 = remote.image("amd64", &layer("amd")).digest;
    let bake = |platform: &str| {
        let mut options = BakeOptions::default();
        options.platform = platform.parse().unwrap();
        bake_from(&remote, &options, &scratch.store())
    };
    let chosen = |platform| bake(platform).unwrap();
    assert_eq!(chosen("linux/arm64").manifest_digest, Some(arm64));
    assert_eq!(chosen("linux/amd64").manifest_digest, Some(amd64));
    assert_eq!(
        chosen("linux/amd64").config.platform(),
        Platform::new("linux", "amd64")
    );
    let error = chain(&bake("linux/riscv64").unwrap_err());
    for part in [
        "linux/arm64",
        "linux/amd64",
        "get the one for linux/riscv64",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[derive(Debug, Default)]
struct Log(Mutex<Vec<String>>);

impl Progress for Log {
    fn report(&self, event: &Event<'_>) {
        let text = match event {
            Event::Resolved { layers } => format!("{layers} layers"),
            Event::Cached { layer, .. } => format!("{layer} cached"),
            Event::Read {
                layer,
                bytes,
                total_bytes,
                ..
            } => format!("{layer} read {bytes} of {total_bytes}"),
            Event::Baked { layer, .. } => format!("{layer} baked"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(text);
    }
}

#[test]
fn progress_tells_of_each_layer_whether_it_is_read_or_cached() {
    let scratch = Scratch::new();
    let layout = scratch.path("image");
    ImageBuilder::new()
        .layer(LayerBuilder::new().file("a", 0o644, vec![1; 3 << 20]))
        .layer(LayerBuilder::new().file("b", 0o644, "small"))
        .write_layout(&layout)
        .unwrap();
    let reference = Reference::parse(&format!("oci:{}", text(&layout))).unwrap();
    let told = || {
        let log = Arc::new(Log::default());
        let mut options = BakeOptions::default();
        options.progress = Some(log.clone());
        bake(&reference, &options, &scratch.store()).unwrap();
        log.0.lock().unwrap().clone()
    };
    let first = told();
    assert_eq!(first.first().unwrap(), "2 layers");
    assert_eq!(first.last().unwrap(), "1 baked");
    let read: Vec<&String> = first
        .iter()
        .filter(|line| line.starts_with("0 read"))
        .collect();
    assert!(!read.is_empty(), "{first:?}");
    let last = read.last().unwrap();
    let (done, all) = last["0 read ".len()..].split_once(" of ").unwrap();
    assert_eq!(done, all, "{first:?}");
    assert_eq!(told(), ["2 layers", "0 cached", "1 cached"]);
}
