#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod aside;
mod assets;
#[cfg(feature = "tokio")]
pub mod async_;
mod bake;
mod base;
mod bundle;
mod capture;
mod changes;
#[cfg(feature = "cli")]
pub mod cli;
mod clock;
pub mod compat;
mod config;
mod connect;
mod deadline;
mod doubt;
mod embedder;
mod ending;
mod ends;
mod error;
mod events;
mod exec;
mod file_limit;
mod files;
mod guest_path;
mod host;
mod image;
mod life;
mod limits;
mod link;
mod log;
mod mount;
mod network;
mod overrides;
mod pool;
mod ports;
mod pull;
mod random;
pub mod running;
mod secret;
mod spans;
mod stamp;
mod stats;
mod store;
mod sync;
mod template;
mod tmpfs;
mod trigger;
mod unfinished;
mod vm;
mod volume;
mod while_wanted;
mod whole;
mod worker;
mod workload;

pub use assets::{AssetPaths, snapshots_dir};
pub use bake::{DEFAULT_GUEST_PORT, DEFAULT_WARMUP_TAG, OciImageBuilder};
pub use changes::{ChangeKind, MountChange};
pub use compat::{
    DEFAULT_CMDLINE, DEFAULT_EXEC_GUEST_PORT, DEFAULT_MEMORY_MIB, DEFAULT_VCPUS,
    THROUGHPUT_PROFILE_VCPUS,
};
pub use config::{Engine, MAX_VCPUS, MachineId, Tier, VmConfig};
pub use embedder::executable::{run_worker, worker_main};
pub use embedder::handle::VmStatus;
pub use error::{Cause, Error, ErrorKind};
pub use events::{VmEvent, VmEventKind, VmEvents};
pub use exec::{
    Command, ExecBuilder, ExecChild, ExecControl, ExecId, ExecInfo, ExecOutcome, ExecOutput,
    ExecState, ExecStatus, ExecStdin, OutputGap, StreamOffsets,
};
pub use exec_proto::ErrorKind as ExecErrorKind;
pub use files::{Copied, CopyOptions, FileInfo, FileKind, FileOptions};
pub use image::Image;
pub use mount::{DaxPolicy, IdMap, IdRange, MountSpec, SymlinkPolicy};
pub use network::{
    Network, NetworkCause, NetworkEnd, NetworkFlow, NetworkPolicy, NetworkProtocol, NetworkRule,
    NetworkSecretsUse, NetworkVerdict,
};
pub use oci_bake::{
    Digest, Event as ProgressEvent, ExtraFile, ImageConfig, InvalidDigest, Progress,
};
pub use pool::{Pool, PoolBuilder, PoolHook, PoolMetrics, PoolStats, PooledVm};
pub use ports::{TcpForwarder, UdpForwarder, UnixForwarder};
pub use pull::PullPolicy;
pub use secret::NetworkSecret;
pub use stats::{
    DiskStats, ExitStats, FaultStats, MemoryStats, NetworkStats, RestoreStats, VmStats,
};
pub use store::{Damage, GcOptions, Store, StoreItem, StoreKind};
pub use tmpfs::TmpfsSpec;
pub use trigger::Trigger;
pub use vm::{CopyReport, Vm};
pub use volume::{VolumeInfo, VolumeSpec, VolumeStore};
pub use while_wanted::WhileWanted;
pub use workload::{WorkloadState, WorkloadStatus};

/// What is shared between threads or sent to others stays so.
const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    const fn is_data<T: Clone + Send + Sync + 'static>() {}
    is_shared::<Vm>();
    is_shared::<PooledVm>();
    is_shared::<ExecBuilder<'_>>();
    is_shared::<ExecChild>();
    is_shared::<TcpForwarder>();
    is_shared::<UdpForwarder>();
    is_shared::<UnixForwarder>();
    is_shared::<Error>();
    is_data::<Image>();
    is_data::<Pool>();
    is_data::<VmConfig>();
    is_data::<Command>();
    is_data::<ExecOutcome>();
    is_data::<running::RunningVm>();
    is_data::<VmStats>();
    is_shared::<VmEvents>();
};
