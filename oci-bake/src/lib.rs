//! OCI image layouts and archives to verified squashfs layers.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod ahead;
mod bake;
mod bare;
mod builder;
mod cancel;
mod config;
mod content;
mod decompress;
mod digest;
mod document;
mod error;
mod extra;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod job;
mod layer;
mod limits;
mod names;
mod no_follow;
mod options;
mod platform;
mod progress;
mod reference;
mod registry_name;
mod remembered;
mod resolve;
mod section;
mod source;
mod spool;
mod squashfs;
mod store;
mod tar;
mod tree;
#[cfg(feature = "oci-spec")]
pub mod vocabulary;

pub use bake::{BakedImage, bake, bake_from, bake_saved};
pub use builder::{BuildError, ImageBuilder, LayerBuilder, LayerCompression, Owner};
pub use cancel::Cancel;
pub use config::ImageConfig;
pub use digest::{Algorithm, Digest, InvalidDigest};
pub use document::Descriptor;
pub use error::{BakeError, ImageError, LayerError};
pub use extra::{ExtraFile, ExtraLayer, add_files};
pub use limits::Limits;
pub use options::BakeOptions;
pub use platform::{InvalidPlatform, Platform};
pub use progress::{Event, Progress};
pub use reference::{Reference, Transport};
pub use registry_name::RegistryName;
pub use source::BlobSource;
pub use squashfs::{Compression, SquashfsError};
pub use store::{EntryKind, GcOptions, Lease, Store, StoreEntry};
pub use tar::TarError;
