//! The demo's image with something changed: what the digests say stays true
//! unless breaking that is the point.

use crate::sandbox::{Sandbox, busybox_layout};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// A private copy of the demo's image layout.
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub fn copy(sandbox: &Sandbox) -> Self {
        let (from, dir) = (busybox_layout(), sandbox.path("layout"));
        let _ = fs::remove_dir_all(&dir);
        let blobs = "blobs/sha256";
        fs::create_dir_all(dir.join(blobs)).expect("a directory");
        for name in ["oci-layout", "index.json"] {
            fs::copy(from.join(name), dir.join(name)).expect("a copy");
        }
        for entry in fs::read_dir(from.join(blobs)).expect("blobs") {
            let entry = entry.expect("a blob");
            fs::copy(entry.path(), dir.join(blobs).join(entry.file_name())).expect("a copy");
        }
        Self { dir }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn reference(&self) -> String {
        format!("oci:{}", self.dir.display())
    }

    fn json(path: &Path) -> Value {
        serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
    }

    /// Path of the blob that a descriptor names.
    fn blob(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let hex = digest.strip_prefix("sha256:").expect("a sha256");
        self.dir.join("blobs/sha256").join(hex)
    }

    /// Stores bytes as a blob and points a descriptor at it.
    pub fn store(&self, bytes: &[u8], descriptor: &mut Value) {
        let hex: String = Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        descriptor["digest"] = json!(format!("sha256:{hex}"));
        descriptor["size"] = json!(bytes.len());
        fs::write(self.blob(descriptor), bytes).expect("a blob");
    }

    pub fn index(&self) -> Value {
        Self::json(&self.dir.join("index.json"))
    }

    pub fn edit_index(&self, edit: impl FnOnce(&mut Value)) {
        let mut index = self.index();
        edit(&mut index);
        fs::write(self.dir.join("index.json"), index.to_string()).expect("a file");
    }

    pub fn manifest(&self) -> Value {
        Self::json(&self.manifest_path())
    }

    pub fn manifest_path(&self) -> PathBuf {
        self.blob(&self.index()["manifests"][0])
    }

    /// Changes the manifest; the index follows.
    pub fn edit_manifest(&self, edit: impl FnOnce(&Self, &mut Value)) {
        let mut manifest = self.manifest();
        edit(self, &mut manifest);
        self.edit_index(|index| {
            self.store(manifest.to_string().as_bytes(), &mut index["manifests"][0]);
        });
    }

    pub fn config_path(&self) -> PathBuf {
        self.blob(&self.manifest()["config"])
    }

    /// Changes the image's config; manifest and index follow.
    pub fn edit_config(&self, edit: impl FnOnce(&mut Value)) {
        let mut config = Self::json(&self.config_path());
        edit(&mut config);
        self.edit_manifest(|layout, manifest| {
            layout.store(config.to_string().as_bytes(), &mut manifest["config"]);
        });
    }

    /// Path of the topmost layer's blob.
    pub fn layer_path(&self) -> PathBuf {
        let manifest = self.manifest();
        let layers = manifest["layers"].as_array().expect("layers");
        self.blob(layers.last().expect("a layer"))
    }
}
