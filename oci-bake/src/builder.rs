//! Making small images: for demos, for tests, and for programs that have a
//! directory or an archive and want to run it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use crate::digest::{Algorithm, Digest, Hasher};
use crate::tar::Writer;

mod layer;

pub use layer::{LayerBuilder, Owner};

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A host file could not be read or written.
    #[error("cannot access {}", path.display())]
    Io {
        /// The host path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A layer's archive could not be read or compressed.
    #[error("cannot write the layer")]
    Layer(#[source] io::Error),
}

/// How the blobs of layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LayerCompression {
    /// Plain tar.
    None,
    /// gzip, as most images have it.
    #[default]
    Gzip,
}

enum LayerSource {
    Entries(LayerBuilder),
    Tar(Box<dyn Read>),
}

/// Builds an OCI image layout. Equal input gives equal bytes.
#[must_use]
pub struct ImageBuilder {
    architecture: String,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    user: String,
    working_dir: String,
    tag: Option<String>,
    compression: LayerCompression,
    layers: Vec<LayerSource>,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        Self {
            architecture: "arm64".to_owned(),
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: Vec::new(),
            user: String::new(),
            working_dir: String::new(),
            tag: None,
            compression: LayerCompression::default(),
            layers: Vec::new(),
        }
    }
}

fn strings<S: Into<String>>(items: impl IntoIterator<Item = S>) -> Vec<String> {
    items.into_iter().map(Into::into).collect()
}

impl ImageBuilder {
    /// An image for linux/arm64 without layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The architecture the image claims, in Go's naming.
    pub fn architecture(mut self, architecture: impl Into<String>) -> Self {
        self.architecture = architecture.into();
        self
    }

    /// Arguments that always come first.
    pub fn entrypoint<S: Into<String>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
        self.entrypoint = strings(argv);
        self
    }

    /// Default arguments after the entrypoint.
    pub fn cmd<S: Into<String>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
        self.cmd = strings(argv);
        self
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// The user to run as.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// The directory to start in.
    pub fn working_dir(mut self, dir: impl Into<String>) -> Self {
        self.working_dir = dir.into();
        self
    }

    /// The tag by which `oci:DIR:TAG` finds the image.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// How layer blobs are compressed; gzip by default.
    pub fn compression(mut self, compression: LayerCompression) -> Self {
        self.compression = compression;
        self
    }

    /// Adds a layer on top.
    pub fn layer(mut self, layer: LayerBuilder) -> Self {
        self.layers.push(LayerSource::Entries(layer));
        self
    }

    /// Adds an uncompressed tar archive as a layer on top, byte for byte.
    pub fn layer_tar(mut self, archive: impl Read + 'static) -> Self {
        self.layers.push(LayerSource::Tar(Box::new(archive)));
        self
    }

    /// Writes the layout into `dir`, which is made if need be; an image that
    /// is already there is replaced. Returns the manifest's digest.
    ///
    /// # Errors
    /// [`BuildError`] when a host file cannot be read or written.
    pub fn write_layout(self, dir: impl AsRef<Path>) -> Result<Digest, BuildError> {
        let dir = dir.as_ref();
        let blobs = dir.join("blobs").join("sha256");
        fs::create_dir_all(&blobs).map_err(at(&blobs))?;
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        let media_type = match self.compression {
            LayerCompression::None => "application/vnd.oci.image.layer.v1.tar",
            LayerCompression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        };
        for layer in self.layers {
            let (digest, size, diff_id) = write_layer(&blobs, layer, self.compression)?;
            layers.push(json!({
                "mediaType": media_type,
                "digest": digest.to_string(),
                "size": size,
            }));
            diff_ids.push(diff_id.to_string());
        }
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Cmd": self.cmd,
                "Env": self.env,
                "User": self.user,
                "WorkingDir": self.working_dir,
            },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let (config, config_size) = write_blob(&blobs, config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config.to_string(),
                "size": config_size,
            },
            "layers": layers,
        });
        let (manifest, manifest_size) = write_blob(&blobs, manifest.to_string().as_bytes())?;
        let mut descriptor = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest.to_string(),
            "size": manifest_size,
            "platform": { "os": "linux", "architecture": self.architecture },
        });
        if let Some(tag) = self.tag {
            descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        });
        replace(dir, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        replace(dir, "index.json", index.to_string().as_bytes())?;
        Ok(manifest)
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> BuildError + '_ {
    move |source| BuildError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Writes a file under a temporary name first, so that no reader sees half.
fn replace(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), BuildError> {
    let temporary = dir.join(format!(".{name}.{}.tmp", std::process::id()));
    let path = dir.join(name);
    fs::write(&temporary, bytes).map_err(at(&temporary))?;
    fs::rename(&temporary, &path).map_err(at(&path))
}

fn write_blob(blobs: &Path, bytes: &[u8]) -> Result<(Digest, usize), BuildError> {
    let digest = Digest::sha256_of(bytes);
    replace(blobs, digest.hex(), bytes)?;
    Ok((digest, bytes.len()))
}

fn write_layer(
    blobs: &Path,
    source: LayerSource,
    compression: LayerCompression,
) -> Result<(Digest, u64, Digest), BuildError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = blobs.join(format!(".layer.{}.{count}.tmp", std::process::id()));
    let result = write_layer_to(&temporary, blobs, source, compression);
    if result.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn write_layer_to(
    temporary: &Path,
    blobs: &Path,
    source: LayerSource,
    compression: LayerCompression,
) -> Result<(Digest, u64, Digest), BuildError> {
    let file = File::create(temporary).map_err(at(temporary))?;
    let blob = Hashing::new(BufWriter::new(file));
    let (blob, diff_id) = match compression {
        LayerCompression::None => {
            let (blob, diff_id) = write_archive(source, blob)?;
            (blob, diff_id)
        }
        LayerCompression::Gzip => {
            let encoder = flate2::GzBuilder::new()
                .mtime(0)
                .write(blob, flate2::Compression::fast());
            let (encoder, diff_id) = write_archive(source, encoder)?;
            (encoder.finish().map_err(BuildError::Layer)?, diff_id)
        }
    };
    let (mut out, digest, size) = blob.finish();
    out.flush().map_err(at(temporary))?;
    let path = blobs.join(digest.hex());
    fs::rename(temporary, &path).map_err(at(&path))?;
    Ok((digest, size, diff_id))
}

/// Writes the uncompressed archive to `out` and returns its digest.
fn write_archive<W: Write>(source: LayerSource, out: W) -> Result<(W, Digest), BuildError> {
    let mut hashing = Hashing::new(out);
    match source {
        LayerSource::Tar(mut archive) => {
            io::copy(&mut archive, &mut hashing).map_err(BuildError::Layer)?;
        }
        LayerSource::Entries(layer) => {
            let mut writer = Writer::new(hashing);
            layer.write_to(&mut writer)?;
            hashing = writer.finish().map_err(BuildError::Layer)?;
        }
    }
    let (out, digest, _) = hashing.finish();
    Ok((out, digest))
}

/// Hashes and counts what passes.
struct Hashing<W> {
    out: W,
    hasher: Hasher,
    len: u64,
}

impl<W> Hashing<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            hasher: Hasher::new(Algorithm::Sha256),
            len: 0,
        }
    }

    fn finish(self) -> (W, Digest, u64) {
        (self.out, self.hasher.finish(), self.len)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.out.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.len += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
