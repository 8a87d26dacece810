//! What the bindings of supermachine for other languages have in common: options as
//! those languages have them, checked; machines that are released once and refuse
//! what comes later; errors as words and sentences.
//!
//! A binding turns values of its language into the types here, and these into
//! values of its language, and does nothing else.

#![forbid(unsafe_code)]

mod attach;
mod begun;
mod blocking;
mod cancel;
mod changes;
mod child;
mod error;
mod events;
mod flows;
mod image;
mod installation;
mod machine;
mod mounts;
mod network;
mod numbers;
mod options;
mod volumes;
mod warmup;

pub use attach::AttachOptions;
pub use begun::{Beginning, Begun};
pub use cancel::Cancel;
pub use changes::{WantedChange, change_word, file_word};
pub use child::{Child, MAX_READ_BYTES};
pub use error::{BindingError, Result};
pub use events::Events;
pub use flows::Flow;
pub use image::{Image, Pool};
pub use installation::{Installation, install};
pub use machine::Machine;
pub use mounts::{MountOptions, OwnerMapOptions, TmpfsOptions};
pub use network::{NetworkOptions, NetworkRuleOptions, SecretOptions};
pub use options::{
    Assign, BuildOptions, ExecOptions, ExtraFileOptions, PoolOptions, StagedFile, StartOptions,
    VolumeOptions,
};
pub use supermachine::{
    ChangeKind, Command, Copied, ErrorKind, ExecInfo, ExecOutcome, ExecState, ExecStatus, FileInfo,
    FileKind, MountChange, PoolMetrics, PoolStats, TcpForwarder, UdpForwarder, UnixForwarder,
    VmEvent, VmEventKind, VolumeInfo, WorkloadState, WorkloadStatus,
};
pub use volumes::VolumeStore;
pub use warmup::{Warmup, WarmupVm};
