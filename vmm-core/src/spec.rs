//! What one virtual machine is made of, as plain data.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use devices::virtio::blk::{Overlay, OverlayError};
pub use devices::virtio::fs::{DaxPolicy, IdMap, IdRange, Owner, Owners, SymlinkPolicy};
use devices::virtio::net::{Net, NetBackend, NetConfig};
pub use devices::virtio::vsock::VsockSocket;

/// Kernel command line of a machine that names none: console on the PL011,
/// restart instead of halting on `reboot` and at once on a panic.
pub const DEFAULT_CMDLINE: &str = "console=ttyAMA0 reboot=t panic=-1";
/// Guest memory of a machine that names none, in bytes.
pub const DEFAULT_MEMORY_BYTES: u64 = 256 << 20;
/// vCPUs of a machine that names none.
pub const DEFAULT_VCPUS: u32 = 1;
/// Guest vsock port of the exec agent, unless another is set.
pub const DEFAULT_EXEC_GUEST_PORT: u32 = 1028;
/// Host vsock port that the exec agent calls. Only a privileged process of the
/// guest reaches it: one whose own port is below 1024.
pub const AGENT_HOST_PORT: u32 = 1027;

/// A file of the host that a machine reads.
#[derive(Clone, Debug)]
pub enum HostFile {
    /// The machine opens it.
    Path(PathBuf),
    /// The caller has opened it.
    Open {
        /// The file. Its position is of no consequence, and changes.
        file: Arc<File>,
        /// What errors call it.
        name: PathBuf,
    },
}

impl HostFile {
    /// A file that is open already.
    pub fn opened(file: File, name: impl Into<PathBuf>) -> Self {
        Self::Open {
            file: Arc::new(file),
            name: name.into(),
        }
    }

    /// What errors call it.
    pub fn name(&self) -> &Path {
        match self {
            Self::Path(name) | Self::Open { name, .. } => name,
        }
    }

    /// Its descriptor, if it is open.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Path(_) => None,
            Self::Open { file, .. } => Some(file.as_fd()),
        }
    }

    /// A descriptor of its own.
    pub(crate) fn to_file(&self) -> io::Result<File> {
        match self {
            Self::Path(path) => File::open(path),
            Self::Open { file, .. } => file.try_clone(),
        }
    }
}

impl From<PathBuf> for HostFile {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<&Path> for HostFile {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<&str> for HostFile {
    fn from(path: &str) -> Self {
        Self::Path(path.into())
    }
}

/// A machine that boots a kernel. [`MachineSpec::new`] has the defaults:
///
/// ```
/// use supermachine_vmm_core::MachineSpec;
///
/// let spec = MachineSpec {
///     initrd: Some("initrd.cpio".into()),
///     memory_bytes: 512 << 20,
///     vcpus: 2,
///     ..MachineSpec::new("Image")
/// };
/// assert_eq!(spec.cmdline, "console=ttyAMA0 reboot=t panic=-1");
/// ```
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// The guest kernel, an arm64 `Image`.
    pub kernel: HostFile,
    /// The initial RAM disk.
    pub initrd: Option<HostFile>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// vCPUs it boots with.
    pub vcpus: u32,
    /// vCPUs the guest is told of. Those beyond what the machine boots with
    /// are absent until a restore brings them; fewer than that mean as many.
    pub possible_vcpus: u32,
    /// Let the kernel choose a random place for itself.
    pub randomize_kernel: bool,
    /// Read-only disks, in the order the guest sees them.
    pub disks: Vec<HostFile>,
    /// Writable disks, after the others.
    pub volumes: Vec<Volume>,
    /// Directories of the host that the guest can mount.
    pub shares: Vec<Share>,
    /// Host sockets that lead into the guest.
    pub endpoints: Endpoints,
    /// What the guest's network interface leads to; without it there is none.
    pub network: Option<Network>,
}

impl MachineSpec {
    /// A machine with 256 MiB, one vCPU, no disks and no sockets.
    pub fn new(kernel: impl Into<HostFile>) -> Self {
        Self {
            kernel: kernel.into(),
            initrd: None,
            cmdline: DEFAULT_CMDLINE.to_owned(),
            memory_bytes: DEFAULT_MEMORY_BYTES,
            vcpus: DEFAULT_VCPUS,
            possible_vcpus: 0,
            randomize_kernel: false,
            disks: Vec::new(),
            volumes: Vec::new(),
            shares: Vec::new(),
            endpoints: Endpoints::default(),
            network: None,
        }
    }
}

/// A network interface of the guest, and what its frames go to.
#[derive(Clone)]
pub struct Network {
    /// What the guest sees of it.
    pub config: NetConfig,
    /// Where its frames go. It serves one machine.
    pub backend: Arc<dyn NetBackend>,
}

impl Network {
    pub(crate) fn device(&self) -> Net {
        Net::new(self.config, self.backend.clone())
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A file of the host that is a writable disk of one machine at a time. It keeps
/// its content over runs; no snapshot holds it.
///
/// A machine can have one of no bytes. Its copies have then a file of any length there,
/// and their kernels are told.
#[derive(Clone, Debug)]
pub struct Volume {
    /// The file. If it is a path, it is locked, and made, sparse, if it is missing. Of
    /// one that is open already, whoever opened it has made sure that nobody else has it.
    pub file: HostFile,
    /// Size of a file that is made, in bytes.
    pub new_bytes: u64,
    /// What the disk begins with, and what it has changed of that: it is not
    /// [`Volume::file`] then, which only says what errors call it. For a machine that is
    /// reset, or forked, whoever made it does what has to become of it.
    pub overlay: Option<Arc<Overlay>>,
}

/// A directory of the host that the guest can mount, by virtio-fs. Snapshots hold
/// nothing that is in it, and not where it is.
#[derive(Clone, Debug)]
pub struct Share {
    /// The directory.
    pub directory: HostFile,
    /// What the guest mounts it by: 1 to 36 bytes.
    pub tag: String,
    /// Refuse every change, whatever the guest tries.
    pub read_only: bool,
    /// What becomes of symbolic links.
    pub symlinks: SymlinkPolicy,
    /// Whom files belong to, for the guest and on the host.
    pub owners: Owners,
    /// The guest maps files instead of reading them.
    pub dax: Option<Dax>,
    /// The guest is told what the host changes, as far as the host says it.
    pub watched: bool,
    /// Most files and directories that the guest has open there at the same time, each of
    /// which is a descriptor of this process.
    pub open_files: usize,
}

/// How a guest maps files of a directory: into a window of its addresses, each for as
/// long as it is used. Whatever of its size is used, the guest's kernel takes a 64th of
/// it from the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dax {
    /// Which files.
    pub policy: DaxPolicy,
    /// Length of the window in bytes: whole pieces of 2 MiB.
    pub window_bytes: u64,
}

/// Host sockets that lead into the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Unix socket on which a client names the guest port it wants.
    pub mux: Option<VsockSocket>,
    /// The guest reaches the sockets whose paths are this one, `_` and a port.
    pub stem: Option<PathBuf>,
    /// Unix socket whose every client is connected to the exec agent.
    pub exec: Option<VsockSocket>,
    /// Guest vsock port of the exec agent.
    pub exec_guest_port: u32,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            mux: None,
            stem: None,
            exec: None,
            exec_guest_port: DEFAULT_EXEC_GUEST_PORT,
        }
    }
}
