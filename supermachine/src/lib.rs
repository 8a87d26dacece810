#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod assets;
#[cfg(feature = "tokio")]
pub mod async_;
mod bake;
mod base;
mod capture;
pub mod cli;
mod clock;
mod config;
mod connect;
mod deadline;
mod doubt;
mod ends;
pub mod engine;
mod error;
mod exec;
mod image;
mod pool;
pub mod registry;
mod stamp;
mod template;
mod unfinished;
mod vm;
mod workload;

pub use assets::{AssetPaths, snapshots_dir};
pub use bake::{OciImageBuilder, Trigger};
pub use config::{Engine, MAX_VCPUS, MachineId, VmConfig};
pub use engine::executable::worker_main;
pub use engine::spawn::VmStatus;
pub use error::Error;
pub use exec::{ExecBuilder, ExecChild, ExecOutcome, ExecOutput, ExecStatus, ExecStdin};
pub use exec_proto::ErrorKind;
pub use image::Image;
pub use oci_bake::ImageConfig;
pub use pool::{Pool, PoolBuilder, PoolStats, PooledVm};
pub use vm::{CopyReport, Vm};
pub use vmm_core::{
    EndpointResources, ResourceError, SnapshotResources, VmProfile, VmResources, VolumeSpec,
};
pub use workload::{WorkloadState, WorkloadStatus};
