//! Names of the published versions that nothing else here uses, kept so that
//! programs written for them compile.
//!
//! [`VmResources`] describes a machine by strings and numbers. What it says of a
//! machine that boots becomes a [`MachineSpec`] of `supermachine-vmm-core`, for
//! that crate's `Machine::start`:
//!
//! ```no_run
//! use supermachine::compat::{CompatError, MachineSpec, VmResources};
//!
//! fn main() -> Result<(), CompatError> {
//!     let resources = VmResources::for_kernel("Image", "initrd.cpio").with_vcpus(2);
//!     let spec = MachineSpec::try_from(&resources)?;
//!     assert_eq!(spec.memory_bytes, 256 << 20);
//!     Ok(())
//! }
//! ```
//!
//! One that goes on from a saved machine becomes a [`RestoredVm`], with what it says of
//! triggers, the balloon and sockets: [`VmResources::restore`]. A machine that boots a
//! kernel of its own has no agent that could tell when to save it, so a description of
//! one that asks for this is refused by a [`CompatError`] which names the call that does
//! it, and never booted without.

mod resources;
mod restore;
#[cfg(test)]
mod tests;

pub use resources::{
    DEFAULT_CMDLINE, DEFAULT_EXEC_GUEST_PORT, DEFAULT_MEMORY_MIB, DEFAULT_VCPUS, EndpointResources,
    ResourceError, SnapshotResources, THROUGHPUT_PROFILE_VCPUS, VmProfile, VmResources, VolumeSpec,
};
pub use restore::RestoredVm;
pub use vmm_core::MachineSpec;

use std::path::{Path, PathBuf};
use vmm_core::spec::VsockSocket;
use vmm_core::{Endpoints, HostFile, Volume};

/// Why a description is not that of a machine which boots.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompatError {
    /// The description contradicts itself or lacks something.
    #[error(transparent)]
    Resources(#[from] ResourceError),
    /// [`VmResources::restore_from`], which
    /// [`cow_restore`](VmResources::cow_restore) is about too.
    #[error(
        "a saved machine is not booted: VmResources::restore, or Image::from_snapshot and \
         Image::start, make a copy of {}, which shares its memory until it writes",
        path.display()
    )]
    Restore {
        /// The saved machine.
        path: PathBuf,
    },
    /// [`SnapshotResources::after_ms`].
    #[error(
        "no machine saves itself after a time: call Vm::snapshot then, or bake with \
         OciImageBuilder::trigger and Trigger::After"
    )]
    SnapshotAfter,
    /// [`SnapshotResources::at_heartbeat`].
    #[error(
        "no machine saves itself at a heartbeat: bake with OciImageBuilder::trigger and \
         Trigger::Heartbeat"
    )]
    SnapshotAtHeartbeat,
    /// [`SnapshotResources::on_listener`].
    #[error(
        "no machine saves itself when a program listens: bake with OciImageBuilder::trigger \
         and Trigger::Listener"
    )]
    SnapshotOnListener,
    /// [`VmResources::balloon_target_pages`].
    #[error(
        "no memory is taken from a guest that boots: give a copy less with \
         VmConfig::with_memory_mib, or name fewer MiB here"
    )]
    Balloon,
    /// [`EndpointResources::http_port`].
    #[error("no TCP port leads into a guest: Vm::connect reaches a vsock port of it")]
    HttpPort,
    /// [`EndpointResources::vsock_mux_handoff`].
    #[error(
        "no socket takes over the connections of others: connect to the one of \
         EndpointResources::vsock_mux and pass the bytes on"
    )]
    Handoff,
}

impl TryFrom<&VmResources> for MachineSpec {
    type Error = CompatError;

    /// The machine that boots as described. All fields count but these, which
    /// say how and nothing without what is refused:
    /// [`cow_restore`](VmResources::cow_restore),
    /// [`quiesce_ms`](SnapshotResources::quiesce_ms) and
    /// [`out_path`](SnapshotResources::out_path). A volume is a disk of the guest,
    /// after the others; that it is mounted at
    /// [`guest_path`](VolumeSpec::guest_path) is its init's business.
    fn try_from(resources: &VmResources) -> Result<Self, CompatError> {
        resources.validate_for_run()?;
        refuse(resources)?;
        let kernel = resources
            .kernel_path
            .as_ref()
            .ok_or(ResourceError::MissingKernel)?;
        let volume = |volume: &VolumeSpec| Volume {
            file: (&*volume.host_path).into(),
            new_bytes: volume.size_bytes,
            overlay: None,
        };
        let endpoints = &resources.endpoints;
        let path = |path: &Option<String>| path.as_ref().map(PathBuf::from);
        Ok(Self {
            initrd: resources.initrd_path.as_deref().map(HostFile::from),
            cmdline: resources.cmdline.clone(),
            memory_bytes: resources.memory_bytes() as u64,
            vcpus: resources.vcpus,
            disks: resources
                .block_devices
                .iter()
                .map(|path| HostFile::from(&**path))
                .collect(),
            volumes: resources.volumes.iter().map(volume).collect(),
            endpoints: Endpoints {
                mux: path(&endpoints.vsock_mux).map(VsockSocket::Path),
                stem: path(&endpoints.vsock_mux),
                exec: path(&endpoints.vsock_exec).map(VsockSocket::Path),
                exec_guest_port: endpoints
                    .vsock_exec_guest_port
                    .unwrap_or(DEFAULT_EXEC_GUEST_PORT),
            },
            ..Self::new(Path::new(kernel))
        })
    }
}

/// Refuses what is done by other calls here.
fn refuse(resources: &VmResources) -> Result<(), CompatError> {
    if let Some(path) = &resources.restore_from {
        let path = PathBuf::from(path);
        return Err(CompatError::Restore { path });
    }
    let (snapshot, endpoints) = (&resources.snapshot, &resources.endpoints);
    let refused = [
        (snapshot.after_ms.is_some(), CompatError::SnapshotAfter),
        (
            snapshot.at_heartbeat.is_some(),
            CompatError::SnapshotAtHeartbeat,
        ),
        (snapshot.on_listener, CompatError::SnapshotOnListener),
        // None to be given back is what a guest that boots gives back.
        (
            resources
                .balloon_target_pages
                .is_some_and(|pages| pages > 0),
            CompatError::Balloon,
        ),
        (endpoints.http_port.is_some(), CompatError::HttpPort),
        (endpoints.vsock_mux_handoff.is_some(), CompatError::Handoff),
    ];
    match refused.into_iter().find(|(is_asked_for, _)| *is_asked_for) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}
