//! Files that come with orders.

use super::network;
use crate::link::protocol::Mount;
use net::policy::Policy;
use snapshot::OpenFiles;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
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
}

impl Given {
    /// The network interface, if there is one: it serves one machine.
    pub fn interface(&self) -> Option<Network> {
        self.network.clone().map(network::interface)
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

/// Directories of the host, which are taken from the end of `files`.
pub fn shares(mounts: &[Mount], files: &mut Vec<OwnedFd>) -> Vec<Share> {
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
