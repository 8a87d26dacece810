//! Fuzz targets as plain functions over bytes. A fuzzer wraps them; the tests
//! here replay seeds and run a mutator with a fixed seed for a bounded time.
//!
//! Each function panics when an invariant is broken, and on nothing else.

mod layers;
mod model;
#[cfg(test)]
mod replay;

use std::io::{Cursor, Read};
use std::rc::Rc;
use std::sync::Arc;

use crate::config;
use crate::decompress::{Format, Windows, decompress};
use crate::document;
use crate::error::LayerError;
use crate::layer::read_tree;
use crate::limits::Limits;
use crate::reference::Reference;
use crate::section::ReadAt;
use crate::squashfs::{self, Compression};
use crate::tar::Reader;
use crate::tree::{Budget, Lower, Node};

pub use layers::fuzz_layer_stack;

/// Caps small enough that a target cannot be slow.
fn limits() -> Limits {
    Limits {
        max_layer_bytes: 1 << 20,
        max_entries: 2000,
        max_tree_bytes: 1 << 20,
        ..Limits::default()
    }
}

/// Room for whatever the limits above let pass.
fn budget() -> Rc<Budget> {
    Budget::new(1 << 30)
}

/// No layers below.
struct Bottom;

impl Lower for Bottom {
    fn find(&mut self, _path: &[Vec<u8>]) -> Result<Option<Node>, LayerError> {
        Ok(None)
    }
}

/// Arbitrary bytes as an archive: every extent lies inside it, reading it
/// twice gives the same, and what becomes a tree can be written.
pub fn fuzz_tar(data: &[u8]) {
    let archive = data.to_vec();
    let mut reader = Reader::new(&archive);
    let mut again = Reader::new(&archive);
    while let Ok(Some(entry)) = reader.next_entry() {
        let stored: u64 = entry.extents.iter().map(|e| e.len).sum();
        assert!(stored <= data.len() as u64 && stored <= entry.size);
        let mut end = 0;
        for extent in &entry.extents {
            assert!(extent.logical >= end && extent.len > 0);
            end = extent.logical + extent.len;
            assert!(end <= entry.size);
            assert!(extent.source + extent.len <= data.len() as u64);
        }
        assert_eq!(again.next_entry().ok().flatten(), Some(entry));
    }
    let source: Arc<dyn ReadAt + Send + Sync> = Arc::new(archive.clone());
    let Ok(tree) = read_tree(&archive, &source, &limits(), &budget(), &mut Bottom) else {
        return;
    };
    for compression in [Compression::None, Compression::Lz4] {
        let mut out = Cursor::new(Vec::new());
        if let Ok(image) = squashfs::write(&tree, &mut out, compression) {
            let out = out.into_inner();
            assert_eq!(image.bytes_used, out.len() as u64);
            assert_eq!(out[40..48], image.bytes_used.to_le_bytes());
            assert!(image.metadata_start <= image.bytes_used);
        }
    }
}

/// Arbitrary text as each of the JSON documents. The first byte chooses.
pub fn fuzz_documents(data: &[u8]) {
    let Some((choice, json)) = data.split_first() else {
        return;
    };
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    match choice % 5 {
        0 => {
            if let Ok(manifest) = document::parse_manifest(json, MANIFEST) {
                // CVE-2021-41190: never both.
                assert!(document::parse_index(json, None).is_err());
                for layer in &manifest.layers {
                    let text = layer.digest.to_string();
                    assert_eq!(text.parse().ok().as_ref(), Some(&layer.digest));
                    assert!(!layer.digest.blob_path().contains(".."));
                }
            }
        }
        1 => {
            if document::parse_index(json, None).is_ok() {
                assert!(document::parse_manifest(json, MANIFEST).is_err());
            }
        }
        2 => {
            if let Ok((config, _)) = config::parse(json) {
                assert!(config.working_dir.starts_with('/'));
                assert!(config.env.iter().all(|entry| !entry.contains('\0')));
                if let Ok(argv) = config.command(None, None) {
                    assert!(!argv.is_empty());
                }
            }
        }
        3 => {
            let _ = document::parse_saved(json);
        }
        _ => {
            let _ = document::layout_version_is_known(json);
        }
    }
}

/// Arbitrary text as a reference: what parses, prints as itself, or as its full
/// form if it is in a registry.
pub fn fuzz_reference(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(reference) = Reference::parse(&text) {
        if reference.registry_name().is_none() {
            assert_eq!(reference.to_string(), text);
        }
        assert_eq!(
            Reference::parse(&reference.to_string()).ok(),
            Some(reference)
        );
    }
}

/// Hands out one to seven bytes at a time.
struct Dribble<'a>(&'a [u8]);

impl Read for Dribble<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = (self.0.len() % 7 + 1).min(self.0.len()).min(buf.len());
        buf[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

/// Arbitrary bytes as a compressed stream; the first byte chooses the format.
/// However the input is cut into reads, the result is the same, and output
/// past the cap is never produced.
pub fn fuzz_compression(data: &[u8]) {
    const CAP: usize = 1 << 20;
    let Some((choice, stream)) = data.split_first() else {
        return;
    };
    let format = match choice % 2 {
        0 => Format::Gzip,
        _ => Format::Zstd,
    };
    let unpack = |input: &mut dyn Read| {
        let mut out = Vec::new();
        let result = decompress(input, format, &Windows::default(), &mut |bytes| {
            if out.len() + bytes.len() > CAP {
                return Err(LayerError::LimitExceeded {
                    what: "bytes",
                    limit: CAP as u64,
                });
            }
            out.extend_from_slice(bytes);
            Ok(())
        });
        result.ok().map(|()| out)
    };
    let whole = unpack(&mut &*stream);
    let dribbled = unpack(&mut Dribble(stream));
    assert!(whole == dribbled);
}
