//! Run any OCI image as a microVM with its own Linux kernel, embedded in your
//! app.
//!
//! ```no_run
//! use supermachine::{Image, VmConfig};
//!
//! let image = Image::load("oci:target/demo/busybox")?;
//! let vm = image.start(&VmConfig::new())?;
//! let out = vm.exec(["echo", "hello from a microVM"])?;
//! assert!(out.success());
//! assert_eq!(out.stdout, b"hello from a microVM\n");
//! vm.stop()?;
//! # Ok::<(), supermachine::Error>(())
//! ```
//!
//! Each machine lives in a worker process (`supermachine-worker`), which must
//! be installed beside the embedding executable or in `PATH`.
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
pub use config::{Engine, MAX_VCPUS, VmConfig};
pub use engine::spawn::VmStatus;
pub use error::Error;
pub use exec::{ExecBuilder, ExecChild, ExecOutcome, ExecStatus, ExecStdin};
pub use exec_proto::ErrorKind;
pub use image::Image;
pub use oci_bake::ImageConfig;
pub use vm::Vm;
pub use vmm_core::{
    EndpointResources, ResourceError, SnapshotResources, VmProfile, VmResources, VolumeSpec,
};
