//! The published `VmResources`: names, defaults, checks and their texts.

pub use vmm_core::spec::{DEFAULT_CMDLINE, DEFAULT_EXEC_GUEST_PORT, DEFAULT_VCPUS};

/// Guest memory of a machine that names none, in MiB.
pub const DEFAULT_MEMORY_MIB: usize = 256;
/// vCPUs of [`VmProfile::Throughput`].
pub const THROUGHPUT_PROFILE_VCPUS: u32 = 4;
/// What a machine should be good at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmProfile {
    /// Starting and answering quickly.
    Latency,
    /// Getting parallel work done.
    Throughput,
}

impl VmProfile {
    /// Reads `latency`, `low-latency` or `throughput`.
    pub fn parse(s: &str) -> Option<Self> {
        match s {
            "latency" | "low-latency" => Some(Self::Latency),
            "throughput" => Some(Self::Throughput),
            _ => None,
        }
    }

    /// Number of vCPUs a machine of this profile starts with.
    pub fn default_vcpus(self) -> u32 {
        match self {
            Self::Latency => DEFAULT_VCPUS,
            Self::Throughput => THROUGHPUT_PROFILE_VCPUS,
        }
    }
}

/// Everything one virtual machine is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmResources {
    /// The guest kernel, an arm64 `Image`.
    pub kernel_path: Option<String>,
    /// The initial RAM disk.
    pub initrd_path: Option<String>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Guest memory in MiB.
    pub memory_mib: usize,
    /// Image files the guest sees as read-only disks, before the volumes.
    pub block_devices: Vec<String>,
    /// Files the guest sees as writable disks, after `block_devices`.
    pub volumes: Vec<VolumeSpec>,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// A saved machine to go on from, instead of booting a kernel.
    pub restore_from: Option<String>,
    /// Whether a restored machine shares the saved memory until it writes.
    pub cow_restore: bool,
    /// When and where to save the machine.
    pub snapshot: SnapshotResources,
    /// Host sockets that lead into the guest.
    pub endpoints: EndpointResources,
    /// Pages of 4 KiB that the guest is asked to give back once it is up.
    pub balloon_target_pages: Option<u32>,
}

/// A file on the host that the guest mounts for writing. It keeps its content
/// over runs, and saved machines hold only the mapping, never the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// The file; created sparse with `size_bytes` if it is missing.
    pub host_path: String,
    /// Where the guest mounts it.
    pub guest_path: String,
    /// Size of a newly created file in bytes.
    pub size_bytes: u64,
}

impl VolumeSpec {
    /// Size of a volume that names none, in bytes: 1 GiB.
    pub const DEFAULT_SIZE_BYTES: u64 = 1024 * 1024 * 1024;

    /// A volume of the default size.
    pub fn new(host_path: impl Into<String>, guest_path: impl Into<String>) -> Self {
        Self {
            host_path: host_path.into(),
            guest_path: guest_path.into(),
            size_bytes: Self::DEFAULT_SIZE_BYTES,
        }
    }

    /// Sets the size in bytes.
    pub fn with_size_bytes(mut self, size_bytes: u64) -> Self {
        self.size_bytes = size_bytes;
        self
    }
}

/// When and where to save the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotResources {
    /// After this many milliseconds.
    pub after_ms: Option<u64>,
    /// When the guest's workload has sent this many heartbeats.
    pub at_heartbeat: Option<u64>,
    /// When the guest's workload listens on a port.
    pub on_listener: bool,
    /// How long to let the guest settle first, in milliseconds.
    pub quiesce_ms: u64,
    /// The file to write.
    pub out_path: Option<String>,
}

/// Host sockets that lead into the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointResources {
    /// Unix socket on which a client names the guest port it wants.
    pub vsock_mux: Option<String>,
    /// TCP port of the guest's HTTP service.
    pub http_port: Option<String>,
    /// Unix socket that takes over accepted client connections, as passed
    /// file descriptors with the bytes read from them so far.
    pub vsock_mux_handoff: Option<String>,
    /// Unix socket whose every client is connected to the exec agent.
    pub vsock_exec: Option<String>,
    /// Guest vsock port of the exec agent; [`DEFAULT_EXEC_GUEST_PORT`] if
    /// unset.
    pub vsock_exec_guest_port: Option<u32>,
}

/// Why a machine cannot be run as described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// Neither a kernel nor a saved machine is named.
    #[error("kernel path or restore snapshot is required")]
    MissingKernel,
    /// There is no memory.
    #[error("memory must be greater than zero")]
    ZeroMemory,
    /// There is no vCPU.
    #[error("vCPU count must be greater than zero")]
    ZeroVcpus,
    /// The machine is to be saved, but not said where.
    #[error("snapshot trigger requires snapshot output path")]
    SnapshotTriggerWithoutOutput,
}

impl VmResources {
    /// A machine of the defaults; it still needs a kernel.
    pub fn new() -> Self {
        Self::default()
    }

    /// A machine that boots this kernel with this initial RAM disk.
    pub fn for_kernel(kernel_path: impl Into<String>, initrd_path: impl Into<String>) -> Self {
        Self::new()
            .with_kernel_path(kernel_path)
            .with_initramfs(initrd_path)
    }

    /// A machine that goes on from a saved one.
    pub fn from_snapshot(path: impl Into<String>) -> Self {
        Self::new().with_restore(path)
    }

    /// Sets the kernel.
    pub fn with_kernel_path(mut self, path: impl Into<String>) -> Self {
        self.kernel_path = Some(path.into());
        self
    }

    /// Sets the initial RAM disk.
    pub fn with_initramfs(mut self, path: impl Into<String>) -> Self {
        self.initrd_path = Some(path.into());
        self
    }

    /// Sets the kernel's command line.
    pub fn with_cmdline(mut self, cmdline: impl Into<String>) -> Self {
        self.cmdline = cmdline.into();
        self
    }

    /// Sets guest memory, in MiB.
    pub fn with_memory_mib(mut self, memory_mib: usize) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Applies a profile's defaults.
    pub fn with_profile(mut self, profile: VmProfile) -> Self {
        self.apply_profile_defaults(profile);
        self
    }

    /// Sets the number of vCPUs.
    pub fn with_vcpus(mut self, vcpus: u32) -> Self {
        self.vcpus = vcpus;
        self
    }

    /// Adds a read-only disk.
    pub fn with_block_device(mut self, path: impl Into<String>) -> Self {
        self.block_devices.push(path.into());
        self
    }

    /// Adds a writable volume.
    pub fn with_volume(mut self, volume: VolumeSpec) -> Self {
        self.volumes.push(volume);
        self
    }

    /// Goes on from a saved machine.
    pub fn with_restore(mut self, path: impl Into<String>) -> Self {
        self.restore_from = Some(path.into());
        self
    }

    /// Sets whether saved memory is shared until it is written.
    pub fn with_cow_restore(mut self, enabled: bool) -> Self {
        self.cow_restore = enabled;
        self
    }

    /// Saves the machine after a time in milliseconds.
    pub fn with_snapshot_after_ms(mut self, after_ms: u64, out_path: impl Into<String>) -> Self {
        self.snapshot.after_ms = Some(after_ms);
        self.snapshot.out_path = Some(out_path.into());
        self
    }

    /// Saves the machine at a heartbeat of its workload.
    pub fn with_snapshot_at_heartbeat(
        mut self,
        at_heartbeat: u64,
        out_path: impl Into<String>,
    ) -> Self {
        self.snapshot.at_heartbeat = Some(at_heartbeat);
        self.snapshot.out_path = Some(out_path.into());
        self
    }

    /// Saves the machine when its workload listens on a port.
    pub fn with_snapshot_on_listener(mut self, out_path: impl Into<String>) -> Self {
        self.snapshot.on_listener = true;
        self.snapshot.out_path = Some(out_path.into());
        self
    }

    /// Sets how long the guest settles before it is saved, in milliseconds.
    pub fn with_quiesce_ms(mut self, quiesce_ms: u64) -> Self {
        self.snapshot.quiesce_ms = quiesce_ms;
        self
    }

    /// Sets [`EndpointResources::vsock_mux`].
    pub fn with_vsock_mux(mut self, path: impl Into<String>) -> Self {
        self.endpoints.vsock_mux = Some(path.into());
        self
    }

    /// Sets [`EndpointResources::http_port`].
    pub fn with_http_port(mut self, port: impl Into<String>) -> Self {
        self.endpoints.http_port = Some(port.into());
        self
    }

    /// Sets [`EndpointResources::vsock_mux_handoff`].
    pub fn with_vsock_mux_handoff(mut self, path: impl Into<String>) -> Self {
        self.endpoints.vsock_mux_handoff = Some(path.into());
        self
    }

    /// Sets [`EndpointResources::vsock_exec`].
    pub fn with_vsock_exec(mut self, path: impl Into<String>) -> Self {
        self.endpoints.vsock_exec = Some(path.into());
        self
    }

    /// Sets [`EndpointResources::vsock_exec_guest_port`].
    pub fn with_vsock_exec_guest_port(mut self, port: u32) -> Self {
        self.endpoints.vsock_exec_guest_port = Some(port);
        self
    }

    /// Guest memory in bytes; the largest number there is if that overflows.
    pub fn memory_bytes(&self) -> usize {
        self.memory_mib.saturating_mul(1024 * 1024)
    }

    /// Whether this goes on from a saved machine.
    pub fn is_restore(&self) -> bool {
        self.restore_from.is_some()
    }

    /// Applies a profile's defaults.
    pub fn apply_profile_defaults(&mut self, profile: VmProfile) {
        self.vcpus = profile.default_vcpus();
    }

    /// Whether this describes a machine that can be run.
    pub fn validate_for_run(&self) -> Result<(), ResourceError> {
        if self.memory_mib == 0 {
            return Err(ResourceError::ZeroMemory);
        }
        if self.vcpus == 0 {
            return Err(ResourceError::ZeroVcpus);
        }
        if self.kernel_path.is_none() && self.restore_from.is_none() {
            return Err(ResourceError::MissingKernel);
        }
        let SnapshotResources {
            after_ms,
            at_heartbeat,
            on_listener,
            out_path,
            ..
        } = &self.snapshot;
        let triggered = after_ms.is_some() || at_heartbeat.is_some() || *on_listener;
        if triggered && out_path.is_none() {
            return Err(ResourceError::SnapshotTriggerWithoutOutput);
        }
        Ok(())
    }
}

impl Default for VmResources {
    fn default() -> Self {
        Self {
            kernel_path: None,
            initrd_path: None,
            cmdline: DEFAULT_CMDLINE.to_owned(),
            memory_mib: DEFAULT_MEMORY_MIB,
            block_devices: Vec::new(),
            volumes: Vec::new(),
            vcpus: DEFAULT_VCPUS,
            restore_from: None,
            cow_restore: false,
            snapshot: SnapshotResources::default(),
            endpoints: EndpointResources::default(),
            balloon_target_pages: None,
        }
    }
}
