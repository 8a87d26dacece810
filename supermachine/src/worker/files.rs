//! Files that come with orders.

use super::flows::FlowLog;
use super::network;
use crate::host;
use crate::link::protocol::{Mount, files_of_a_birth};
use net::policy::Policy;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use snapshot::OpenFiles;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use vmm_core::machine::RestoreOptions;
use vmm_core::{HostFile, Network, Overlay, Share, Volume};

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
    /// Its writable disks, which no other machine has.
    pub volumes: Vec<Volume>,
    /// What its guest may reach, if it has a network interface.
    pub network: Option<Policy>,
    /// Secrets for hosts that it reaches.
    pub secrets: Option<Box<broker::Orders>>,
    /// What became of its flows.
    pub flows: Arc<FlowLog>,
}

impl Given {
    /// The network interface, if there is one: it serves one machine.
    pub fn interface(&self) -> Option<Network> {
        let policy = self.network.clone()?;
        Some(network::interface(
            policy,
            self.secrets.as_deref(),
            &self.flows,
        ))
    }

    /// What a child of this process has the same: a log of its own.
    pub fn of_child(self) -> Self {
        Self {
            flows: Arc::default(),
            ..self
        }
    }

    /// For a child of this process, which has the parent's volumes no more: they are
    /// these of its `files`, after those that each child has.
    pub fn give_own_volumes(&mut self, files: &[OwnedFd]) {
        let mut own = Vec::new();
        for (volume, file) in self
            .volumes
            .iter()
            .zip(files.iter().skip(files_of_a_birth(0)))
        {
            let name = volume.file.name();
            // Without it the machine is refused for having other disks.
            if let (Ok(file), Ok(again)) = (file.try_clone(), file.try_clone()) {
                let overlay = volume.overlay.as_ref();
                let further =
                    overlay.map(|overlay| overlay.further(overlay.base().clone(), again.into()));
                own.push(Volume {
                    file: HostFile::opened(File::from(file), name),
                    new_bytes: 0,
                    overlay: further.map(Arc::new),
                });
            }
        }
        // Their descriptors are closed, and the numbers may be others' by now.
        std::mem::forget(std::mem::replace(&mut self.volumes, own));
    }

    /// All that a child of this process shares with it. Its volumes are its own, but for
    /// what they begin with.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let directories = self.shares.iter().map(|share| &share.directory);
        let files = self.layers.iter().chain(directories);
        let overlays = self
            .volumes
            .iter()
            .filter_map(|volume| volume.overlay.as_ref());
        files
            .filter_map(HostFile::as_fd)
            .chain(overlays.map(|overlay| overlay.base().as_fd()))
    }

    /// What a machine is restored with that has the same.
    pub fn options(&self) -> RestoreOptions {
        RestoreOptions {
            disks: self.layers.clone(),
            shares: self.shares.clone(),
            volumes: self.volumes.clone(),
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

/// Descriptors that guests leave for everything else that a worker does: what its owner
/// asks of it, connections, and each request while it is answered.
const OTHER_DESCRIPTORS: u64 = 1024;

/// Raises the limit on open files as far as that is useful: guests have as many open as
/// they like, and each is a descriptor here. How many they may have in each of so many
/// mounts.
fn allow_open_files(mounts: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(WITHOUT_LIMIT).min(MAX_DESCRIPTORS);
    if limit.current.is_some_and(|current| current < most) {
        let raised = Rlimit {
            current: Some(most),
            ..limit
        };
        // With fewer, guests are told sooner that there are too many open.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    let most = getrlimit(Resource::Nofile)
        .current
        .unwrap_or(MAX_DESCRIPTORS);
    let others = OTHER_DESCRIPTORS.min(most / 2);
    usize::try_from(most - others).unwrap_or(usize::MAX) / mounts.max(1)
}

/// Directories of the host, which are taken from the end of `files`.
pub fn shares(mounts: &[Mount], files: &mut Vec<OwnedFd>) -> Vec<Share> {
    let open_files = match mounts.len() {
        0 => 0,
        mounts => allow_open_files(mounts),
    };
    let directories = files.split_off(files.len().saturating_sub(mounts.len()));
    let shares = mounts
        .iter()
        .zip(directories)
        .map(|(mount, directory)| Share {
            directory: HostFile::opened(File::from(directory), &mount.directory),
            tag: mount.tag.clone(),
            read_only: mount.read_only,
            symlinks: mount.symlinks,
            owners: mount.owners.clone(),
            dax: mount.dax,
            watched: mount.watched,
            open_files,
        });
    shares.collect()
}

/// Writable disks, which are taken from the end of `files`.
pub fn volumes(names: &[String], files: &mut Vec<OwnedFd>) -> Vec<Volume> {
    let disks = files.split_off(files.len().saturating_sub(names.len()));
    let volumes = names.iter().zip(disks).map(|(name, disk)| Volume {
        file: HostFile::opened(File::from(disk), name),
        new_bytes: 0,
        overlay: None,
    });
    volumes.collect()
}

/// Has the first of `volumes` begin with what the files of these names hold.
pub fn begin_with(volumes: &mut [Volume], bases: &[String], files: &OpenFiles) -> io::Result<()> {
    for (number, base) in bases.iter().enumerate() {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let volume = volumes.get_mut(number).ok_or_else(missing)?;
        let base = files.get(base).ok_or_else(missing)?.try_clone()?;
        let HostFile::Open { file, .. } = &volume.file else {
            return Err(missing());
        };
        let overlay = Overlay::new(base, file.try_clone()?);
        volume.overlay = Some(Arc::new(overlay.map_err(io::Error::other)?));
    }
    Ok(())
}

/// Has volumes of a machine that stands still hold again what they began with.
pub fn rewind_volumes(volumes: &[Volume]) -> io::Result<()> {
    let mut overlays = volumes.iter().filter_map(|volume| volume.overlay.as_ref());
    overlays.try_for_each(|overlay| overlay.rewind())
}

/// Has files hold all that `volumes` hold, which nobody writes to meanwhile, but for those
/// that hold what they began with: the numbers of these.
pub fn keep_volumes(volumes: &[Volume], files: &[OwnedFd]) -> io::Result<Vec<usize>> {
    let mut unwritten = Vec::new();
    for (number, (volume, file)) in volumes.iter().zip(files).enumerate() {
        let to = File::from(file.try_clone()?);
        match (&volume.overlay, &volume.file) {
            (Some(overlay), _) if overlay.is_unwritten() => unwritten.push(number),
            (Some(overlay), _) => host::copy_pieces(overlay.pieces(), overlay.bytes(), &to)?,
            (None, HostFile::Open { file, .. }) => host::copy_content(file, &to, || Ok(()))?,
            (None, HostFile::Path(_)) => return Err(io::ErrorKind::Unsupported.into()),
        }
    }
    Ok(unwritten)
}

/// Gives a volume's file this size, if it is smaller; whether it was.
pub fn grow(volume: &Volume, mib: u64) -> io::Result<bool> {
    let (HostFile::Open { file, .. }, None) = (&volume.file, &volume.overlay) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let metadata = file.metadata()?;
    let bytes = mib.checked_mul(1 << 20).filter(|_| metadata.is_file());
    let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?;
    if metadata.len() >= bytes {
        return Ok(false);
    }
    file.set_len(bytes)?;
    Ok(true)
}

/// Has `copies` hold what `volumes` hold of their own, which nobody writes to meanwhile.
pub fn copy_volumes(volumes: &[Volume], copies: &[OwnedFd]) -> io::Result<()> {
    for (volume, copy) in volumes.iter().zip(copies) {
        if let HostFile::Open { file, .. } = &volume.file {
            host::copy_content(file, &File::from(copy.try_clone()?), || Ok(()))?;
        }
    }
    Ok(())
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
