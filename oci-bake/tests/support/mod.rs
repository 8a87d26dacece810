//! What the tests of this directory share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use supermachine_oci_bake::{BakeError, BakeOptions, BakedImage, Digest, Reference, Store, bake};

/// A directory that is removed at the end of the test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = std::env::temp_dir().join(format!(
            "oci-bake-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn store(&self) -> Store {
        Store::open(self.path("cache")).unwrap()
    }

    pub fn bake(&self, reference: &str) -> Result<BakedImage, BakeError> {
        bake(
            &Reference::parse(reference).unwrap(),
            &BakeOptions::default(),
            &self.store(),
        )
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a tool that `cargo xtask test` installs; fails the test when the tool
/// fails or is not there.
pub fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (`cargo xtask test` installs it)"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What `unsquashfs` sees: mode, owner, size or device, path (and target) of
/// each inode, dates left out.
pub fn listing(image: &Path) -> Vec<String> {
    let out = run("unsquashfs", &["-lln", text(image)]);
    let out = String::from_utf8(out).unwrap();
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    out.lines()
        .filter(|l| l.contains("squashfs-root"))
        .map(line)
        .map(|line| line.replace("squashfs-root", ""))
        .collect()
}

/// The error and its causes, as a program would print them.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Writes an OCI layout by hand, so that every field can be wrong.
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub fn new(dir: PathBuf) -> Self {
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { dir }
    }

    pub fn reference(&self) -> String {
        format!("oci:{}", text(&self.dir))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256_of(bytes);
        std::fs::write(self.dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        digest
    }

    pub fn descriptor(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = self.blob(bytes).to_string();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    pub fn index(&self, manifests: &[Value]) {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        std::fs::write(self.dir.join("index.json"), index.to_string()).unwrap();
    }

    /// A manifest with one layer, given its blob, media type and DiffID.
    pub fn manifest(&self, blob: &[u8], media_type: &str, diff_id: &Digest) -> Value {
        let config = json!({
            "os": "linux", "architecture": "arm64",
            "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
        });
        let config = self.descriptor(CONFIG, config.to_string().as_bytes());
        let layer = self.descriptor(media_type, blob);
        json!({ "schemaVersion": 2, "config": config, "layers": [layer] })
    }

    /// An image of one plain layer.
    pub fn image(&self, layer: &[u8]) {
        let manifest = self.manifest(layer, LAYER, &Digest::sha256_of(layer));
        self.index(&[self.descriptor(MANIFEST, manifest.to_string().as_bytes())]);
    }
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A tar header made by hand, with a right checksum.
pub fn header(name: &str, typeflag: u8, size: usize, link: &str) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = typeflag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

/// Data padded to a whole number of blocks.
pub fn padded(data: &[u8]) -> Vec<u8> {
    let mut out = data.to_vec();
    out.resize(data.len().next_multiple_of(512), 0);
    out
}
