#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod assets;
pub mod cli;
mod config;
pub mod engine;
mod error;
mod exec;
mod image;
mod vm;

pub use assets::AssetPaths;
pub use config::{Engine, VmConfig};
pub use error::Error;
pub use exec::{ExecBuilder, ExecChild, ExecOutcome, ExecStatus, ExecStdin};
pub use exec_proto::ErrorKind;
pub use image::Image;
pub use oci_bake::ImageConfig;
pub use vm::{Vm, VmStatus};
pub use vmm_core::{
    EndpointResources, ResourceError, SnapshotResources, VmProfile, VmResources, VolumeSpec,
};
