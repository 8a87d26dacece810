//! File system device (virtio 1.2 §5.11): a directory of the host, or one file, by FUSE.
//!
//! The device speaks Linux's FUSE on every host. Requests are answered by a few
//! threads of the device, never on the one that notifies.
//!
//! What the guest says is names of single entries and numbers it was given.
//! Every path is made here, of names that were found, and resolved beneath the
//! shared directory without following links; pipes, sockets and devices are never
//! opened. No descriptor is held for a file that is not open.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use virtio_queue::{Queue, QueueState};

use self::handles::MAX_HANDLES;
use self::herald::Herald;
use self::threads::Threads;
use super::{
    ActivateError, Activation, DeviceState, F_RING_EVENT_IDX, F_RING_INDIRECT_DESC, F_VERSION_1,
    RestoreError, SavedState, SharedMemory, StateFormat, VirtioDevice, read_config_space,
};
use crate::{DeviceMemory, Ram};

mod handles;
mod herald;
mod host;
mod nodes;
mod owners;
mod requests;
mod saved;
mod server;
mod threads;
mod watch;
mod window;
mod wire;

pub use owners::{IdMap, IdRange, Owner, Owners};
#[cfg(any(all(test, feature = "default"), feature = "fuzzing"))]
pub(crate) use requests::InMemory;
pub use requests::Requests;
pub use saved::FsState;
pub(crate) use server::Exchange;
#[cfg(any(all(test, feature = "default"), feature = "fuzzing"))]
pub(crate) use server::Lately;
pub(crate) use server::{Rules, Server};
pub use watch::{DirectoryWatch, HostEvent};
pub use window::{FilePiece, FileWindow, PIECE_BYTES, PieceAccess};

/// Device type of a file system.
const DEVICE_ID: u32 = 26;
/// Bytes of the tag in the configuration space (virtio 1.2 §5.11.4).
pub const TAG_BYTES: usize = 36;
/// Number of the shared memory region that files are mapped into (virtio 1.2 §5.11.6.4).
const WINDOW_ID: u8 = 0;
/// Sizes of the queues: for what the guest forgets, and for requests. Linux takes
/// no more pages for a request than the second has entries.
const QUEUE_SIZES: &[u16] = &[128, 512];
/// The same with a queue between them, in which the guest is told something. For a driver
/// that does not take the feature it is the one for requests.
const QUEUE_SIZES_WITH_NOTIFICATIONS: &[u16] = &[128, 64, 512];
/// Which queue that is (virtio 1.2 §5.11.2).
const NOTIFICATIONS: usize = 1;
/// `VIRTIO_FS_F_NOTIFICATION` (virtio 1.2 §5.11.3): there is that queue.
const F_NOTIFICATION: u64 = 1 << 0;
/// Bytes that each of its buffers must have: a header, what has changed, and a name.
const NOTIFICATION_BYTES: u32 = 16 + 32 + 256;
/// Bytes of the configuration space (virtio 1.2 §5.11.4).
const CONFIG_BYTES: usize = TAG_BYTES + 8;

/// What becomes of symbolic links. The host never follows one but under
/// [`SymlinkPolicy::Follow`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum SymlinkPolicy {
    /// The guest cannot make any (`EPERM`), and one that leads out of the shared
    /// directory cannot be looked up (`EACCES`).
    Deny,
    /// Links are text: the guest makes them, reads them, and looks in its own tree
    /// for what they name.
    #[default]
    Opaque,
    /// Links that lead out of the shared directory are what they lead to. Only for
    /// guests that may see all that this process may.
    Follow,
}

/// Which files a guest maps rather than reads, if it has a window to map them into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum DaxPolicy {
    /// Files of 1 MiB and more. Smaller ones would each take 2 MiB of the window, and
    /// are read faster.
    #[default]
    LargeFiles,
    /// All files.
    Always,
}

/// Whether a guest is told what the host changes in directories that it has looked at, so
/// that its programs hear of that by inotify and it looks at nothing that is out of date.
///
/// What is told, and the structure it is told in, is ours: Linux needs the patch of
/// `kernel/patches` to take the feature. Another driver that takes it gets
/// messages with a number that FUSE does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostEdits {
    /// There is no queue to tell it in.
    #[default]
    Unknown,
    /// There is the queue, and nothing is told.
    Untold,
    /// It is told, as far as the host says what changes: on Linux of 8,192 directories,
    /// what is in `node_modules` and `.git/objects` left out.
    Told,
}

/// What a file system device is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsConfig {
    /// Name by which the guest mounts it: 1 to [`TAG_BYTES`] bytes.
    pub tag: String,
    /// Refuse every change on the host side, whatever the guest tries.
    pub read_only: bool,
    /// What becomes of symbolic links.
    pub symlinks: SymlinkPolicy,
    /// Whom files belong to, for the guest and on the host.
    pub owners: Owners,
    /// Which files are mapped, if there is a [window](Fs::with_window).
    pub dax: DaxPolicy,
    /// Whether the guest is told what the host changes. Nothing is told of one file that is
    /// shared alone, for which there is no queue.
    pub edits: HostEdits,
    /// Most requests worked on at the same time, 1 to 16.
    pub workers: usize,
    /// Most files and directories that the guest may have open at the same time, up to
    /// 16,384. Each is a descriptor of this process, which may need others.
    pub open_files: usize,
}

impl FsConfig {
    /// A directory the guest may write to, links being text.
    pub fn new(tag: impl Into<String>) -> Self {
        Self {
            tag: tag.into(),
            read_only: false,
            symlinks: SymlinkPolicy::default(),
            owners: Owners::default(),
            dax: DaxPolicy::default(),
            edits: HostEdits::default(),
            workers: 4,
            open_files: MAX_HANDLES,
        }
    }
}

/// What the owner of a file system device has for it.
#[derive(Debug, Clone, Default)]
pub struct FsParts {
    /// A window that files are mapped into.
    pub window: Option<Arc<dyn FileWindow>>,
    /// How the host says what changes, where there is another way than this crate's, which
    /// is Linux's inotify.
    pub watch: Option<Arc<dyn DirectoryWatch>>,
}

/// Why a file system device could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsError {
    /// The tag does not fit its field.
    #[error("tag {0:?} is not 1 to 36 bytes without a zero byte")]
    BadTag(String),
    /// The number of workers is out of range.
    #[error("number of workers {0} is not within 1 to 16")]
    BadWorkers(usize),
    /// Numbers of owners do not stand for one each.
    #[error("ranges of owners overlap, are empty or endless, or are more than 32")]
    BadMap,
    /// The window is empty, or not made of whole pieces.
    #[error("the window for mapped files is not made of pieces of 2 MiB")]
    BadWindow,
    /// What was given is no directory and no file, or cannot be looked at, or is not open
    /// for what the guest may do.
    #[error("the shared directory or file cannot be used")]
    Directory(#[source] std::io::Error),
}

/// A file system device over a directory.
#[derive(Debug)]
pub struct Fs<M: DeviceMemory = Ram> {
    tag: String,
    config_space: [u8; CONFIG_BYTES],
    server: Arc<Server>,
    /// There is a queue to tell the guest something in.
    notifies: bool,
    /// Before the threads, which it uses.
    herald: Herald,
    threads: Threads<M>,
}

impl<M: DeviceMemory> Fs<M> {
    /// A device over an open directory, or over one open file: the guest finds that
    /// as `file`, alone in the directory that it mounts.
    pub fn new(directory: OwnedFd, config: FsConfig) -> Result<Self, FsError> {
        Self::with_parts(directory, config, FsParts::default())
    }

    /// A device over an open directory, of which its guest can map files into `window`.
    /// Descriptors of this device can point there; for others it is no
    /// [`DeviceMemory`].
    pub fn with_window(
        directory: OwnedFd,
        config: FsConfig,
        window: Arc<dyn FileWindow>,
    ) -> Result<Self, FsError> {
        let parts = FsParts {
            window: Some(window),
            ..FsParts::default()
        };
        Self::with_parts(directory, config, parts)
    }

    /// A device over an open directory, with what its owner has for it.
    pub fn with_parts(
        directory: OwnedFd,
        config: FsConfig,
        parts: FsParts,
    ) -> Result<Self, FsError> {
        if let Some(window) = &parts.window {
            let whole = window.bytes().is_multiple_of(PIECE_BYTES)
                && window.address().is_multiple_of(PIECE_BYTES);
            if window.bytes() == 0
                || !whole
                || window.address().checked_add(window.bytes()).is_none()
            {
                return Err(FsError::BadWindow);
            }
        }
        Self::make(directory, config, parts)
    }

    fn make(directory: OwnedFd, config: FsConfig, parts: FsParts) -> Result<Self, FsError> {
        let tag = config.tag.as_bytes();
        if tag.is_empty() || tag.len() > TAG_BYTES || tag.contains(&0) {
            return Err(FsError::BadTag(config.tag));
        }
        if !(1..=16).contains(&config.workers) {
            return Err(FsError::BadWorkers(config.workers));
        }
        let mut config_space = [0; CONFIG_BYTES];
        config_space[..tag.len()].copy_from_slice(tag);
        let numbers = &mut config_space[TAG_BYTES..];
        numbers[..4].copy_from_slice(&1u32.to_le_bytes()); // num_request_queues
        let mut server = server(directory, &config)?;
        if let Some(window) = parts.window {
            server = server.with_window(window, config.dax);
        }
        let notifies = config.edits != HostEdits::Unknown && !server.is_single();
        if notifies {
            numbers[4..].copy_from_slice(&NOTIFICATION_BYTES.to_le_bytes()); // notify_buf_size
        }
        if notifies && config.edits == HostEdits::Told {
            server = match parts.watch {
                Some(watch) => server.with_watch(watch),
                None => server.with_host_watch(),
            };
        }
        let server = Arc::new(server);
        Ok(Self {
            tag: config.tag,
            config_space,
            notifies,
            herald: Herald::new(server.clone()),
            threads: Threads::new(server.clone(), config.workers),
            server,
        })
    }

    /// As [`VirtioDevice::reset`], but forgets nothing: with the next activation the
    /// guest goes on where it was. For owners who stop queues of a guest that is only
    /// paused, as vhost-user does. A guest that has begun anew says so itself, in its
    /// first request.
    pub fn release(&self) -> Vec<Queue> {
        self.threads.stop()
    }
}

/// What answers for a directory or a file.
fn server(directory: OwnedFd, config: &FsConfig) -> Result<Server, FsError> {
    if let Owners::Map(map) = &config.owners
        && !map.is_sound()
    {
        return Err(FsError::BadMap);
    }
    let rules = Rules {
        read_only: config.read_only,
        symlinks: config.symlinks,
        owners: config.owners.clone(),
    };
    let server = Server::new(directory, rules);
    let server = server.map_err(|error| FsError::Directory(error.into()))?;
    Ok(server.with_open_files(config.open_files))
}

impl<M: DeviceMemory> VirtioDevice<M> for Fs<M> {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_max_sizes(&self) -> &[u16] {
        match self.notifies {
            true => QUEUE_SIZES_WITH_NOTIFICATIONS,
            false => QUEUE_SIZES,
        }
    }

    fn features(&self) -> u64 {
        let notification = if self.notifies { F_NOTIFICATION } else { 0 };
        F_VERSION_1 | F_RING_EVENT_IDX | F_RING_INDIRECT_DESC | notification
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.config_space, offset, data);
    }

    fn shared_memory(&self, id: u8) -> Option<SharedMemory> {
        let window = self.server.window().filter(|_| id == WINDOW_ID)?;
        Some(SharedMemory {
            address: window.address(),
            bytes: window.bytes(),
        })
    }

    fn activate(&self, activation: Activation<M>) -> Result<(), ActivateError> {
        let takes = self.notifies && activation.features & F_NOTIFICATION != 0;
        self.threads
            .start(activation, takes.then_some(NOTIFICATIONS))?;
        if takes {
            self.herald.start(self.threads.shared())?;
        }
        Ok(())
    }

    fn reset(&self) -> Vec<Queue> {
        let queues = self.threads.stop();
        self.server.reset();
        queues
    }

    fn pause(&self) {
        self.threads.pause();
    }

    fn resume(&self) {
        self.threads.resume();
        self.herald.wake();
    }

    fn notify(&self, queue: u16) {
        if self.notifies && usize::from(queue) == NOTIFICATIONS {
            self.herald.wake();
        }
        // Without the feature that queue is for requests.
        self.threads.wake();
    }

    fn queue_states(&self) -> Vec<QueueState> {
        self.threads.drain()
    }

    fn state_format(&self) -> StateFormat {
        FsState::FORMAT
    }

    fn state(&self) -> SavedState {
        SavedState::of(&FsState::of(&self.tag, &self.server))
    }

    fn restore(&self, state: &SavedState) -> Result<(), RestoreError> {
        let state: FsState = state.read()?;
        if state.tag != self.tag {
            return Err(RestoreError::Invalid("tag"));
        }
        state.give_to(&self.server)?;
        self.herald.restored();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
