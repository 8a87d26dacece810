//! Files that come with orders.

use super::flows::FlowLog;
use super::network;
use crate::link::protocol::Mount;
use net::policy::Policy;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use snapshot::OpenFiles;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use vmm_core::machine::RestoreOptions;
use vmm_core::{HostFile, Network, Share};

/// Files by the names they were sent with.
pub fn named(names: &[String], files: Vec<OwnedFd>) -> OpenFiles {
    let files = files.into_iter().map(File::from);
    OpenFiles::new(names.iter().cloned().zip(files))
}

/// What a machine has of the host, open.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Its read-only disks.
    pub layers: Vec<HostFile>,
    /// Directories that it can mount.
    pub shares: Vec<Share>,
    /// What its guest may reach, if it has a network interface.
    pub network: Option<Policy>,
    /// What became of its flows.
    pub flows: Arc<FlowLog>,
}

impl Given {
    /// The network interface, if there is one: it serves one machine.
    pub fn interface(&self) -> Option<Network> {
        let policy = self.network.clone()?;
        Some(network::interface(policy, &self.flows))
    }

    /// What a child of this process has the same: a log of its own.
    pub fn of_child(self) -> Self {
        Self {
            flows: Arc::default(),
            ..self
        }
    }

    /// All that a child of this process needs to have the same.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let directories = self.shares.iter().map(|share| &share.directory);
        let files = self.layers.iter().chain(directories);
        files.filter_map(HostFile::as_fd)
    }

    /// What a machine is restored with that has the same.
    pub fn options(&self) -> RestoreOptions {
        RestoreOptions {
            disks: self.layers.clone(),
            shares: self.shares.clone(),
            network: self.interface(),
            ..RestoreOptions::default()
        }
    }
}

/// Most descriptors that a worker with mounts is allowed, if its user may have as
/// many: a mount has at most 16,384.
const MAX_DESCRIPTORS: u64 = 32 << 10;
/// Most that macOS takes (`OPEN_MAX`) where there is no limit.
const WITHOUT_LIMIT: u64 = 10_240;

/// Raises the limit on open files as far as that is useful: guests have as many open as
/// they like, and each is a descriptor here.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(WITHOUT_LIMIT).min(MAX_DESCRIPTORS);
    if limit.current.is_some_and(|current| current < most) {
        let raised = Rlimit {
            current: Some(most),
            ..limit
        };
        // With fewer, guests are told that there are too many open.
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

/// Directories of the host, which are taken from the end of `files`.
pub fn shares(mounts: &[Mount], files: &mut Vec<OwnedFd>) -> Vec<Share> {
    if !mounts.is_empty() {
        allow_open_files();
    }
    let directories = files.split_off(files.len().saturating_sub(mounts.len()));
    let shares = mounts
        .iter()
        .zip(directories)
        .map(|(mount, directory)| Share {
            directory: HostFile::opened(File::from(directory), &mount.directory),
            tag: mount.tag.clone(),
            read_only: mount.read_only,
            symlinks: mount.symlinks,
            owner: mount.owner,
        });
    shares.collect()
}

/// Files to make a machine of, in their order.
pub fn in_order<'a>(
    names: impl Iterator<Item = &'a String>,
    files: Vec<OwnedFd>,
) -> impl Iterator<Item = HostFile> {
    let files = files.into_iter().map(File::from);
    files
        .zip(names)
        .map(|(file, name)| HostFile::opened(file, name))
}

/// Some of `files` to make a machine of, by their names.
pub fn among(files: &OpenFiles, names: &[String]) -> io::Result<Vec<HostFile>> {
    let open = |name: &String| {
        let file = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(HostFile::opened(file.try_clone()?, name))
    };
    names.iter().map(open).collect()
}
