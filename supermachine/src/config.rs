//! How a machine is to be made.

use crate::AssetPaths;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vmm_core::resources::{DEFAULT_MEMORY_MIB, DEFAULT_VCPUS};

/// Which engine runs the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Engine {
    /// Hardware virtualization where there is some, else the software engine.
    #[default]
    Auto,
    /// Apple's Hypervisor.framework.
    Hvf,
    /// The software engine, on any host.
    Soft,
}

/// Configuration of a machine: what the image does not say.
#[derive(Clone, Debug)]
pub struct VmConfig {
    pub(crate) memory_mib: usize,
    pub(crate) vcpus: u32,
    pub(crate) engine: Engine,
    pub(crate) assets: Option<AssetPaths>,
    pub(crate) worker: Option<PathBuf>,
    pub(crate) boot_timeout: Duration,
    pub(crate) console: bool,
    pub(crate) hostname: Option<String>,
}

/// How long a guest may take from power-on to its agent's first word.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);

impl Default for VmConfig {
    fn default() -> Self {
        Self {
            memory_mib: DEFAULT_MEMORY_MIB,
            vcpus: DEFAULT_VCPUS,
            engine: Engine::Auto,
            assets: None,
            worker: None,
            boot_timeout: BOOT_TIMEOUT,
            console: false,
            hostname: None,
        }
    }
}

impl VmConfig {
    /// 256 MiB of memory, one vCPU, assets and worker found by themselves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Guest memory in MiB.
    pub fn with_memory_mib(mut self, memory_mib: usize) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Virtual CPUs.
    pub fn with_vcpus(mut self, vcpus: u32) -> Self {
        self.vcpus = vcpus;
        self
    }

    /// Which engine runs the guest.
    pub fn with_engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Where kernel and init are.
    pub fn with_assets(mut self, assets: AssetPaths) -> Self {
        self.assets = Some(assets);
        self
    }

    /// The worker executable, instead of the one found beside the running
    /// executable or in PATH.
    pub fn with_worker(mut self, worker: impl AsRef<Path>) -> Self {
        self.worker = Some(worker.as_ref().to_path_buf());
        self
    }

    /// How long the guest may take to come up.
    pub fn with_boot_timeout(mut self, timeout: Duration) -> Self {
        self.boot_timeout = timeout;
        self
    }

    /// Whether guest kernel messages go to the standard error of this process.
    pub fn with_console(mut self, console: bool) -> Self {
        self.console = console;
        self
    }

    /// The guest's host name; by default a part of the image's digest.
    pub fn with_hostname(mut self, hostname: impl Into<String>) -> Self {
        self.hostname = Some(hostname.into());
        self
    }
}
