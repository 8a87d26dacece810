//! How a machine is to be made.

use crate::clock::WallClock;
use crate::compat::{DEFAULT_MEMORY_MIB, DEFAULT_VCPUS, ResourceError};
use crate::limits::{BOOT_TIMEOUT, RESTORE_TIMEOUT};
use crate::{
    AssetPaths, Error, MountSpec, Network, NetworkSecret, TmpfsSpec, VolumeSpec, mount, random,
    secret, tmpfs, volume,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

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

/// How the software engine executes a guest's code. The results are the same; this is
/// for diagnosis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Tier {
    /// What runs often is compiled, where the host lets it; all else is interpreted.
    #[default]
    Auto,
    /// Everything is interpreted.
    Interpret,
    /// Everything is compiled before it runs; a host where that cannot be is an error.
    Compile,
    /// Everything is interpreted, at a fraction of the speed, and the instructions are
    /// counted: [`VmStats::instructions`](crate::VmStats::instructions).
    Count,
    /// As [`Tier::Compile`], and [`VmStatus::census`](crate::VmStatus::census) tells what is
    /// executed and how much of it by the interpreter. Several times slower.
    Census,
}

/// What `/etc/machine-id` holds in a machine that starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MachineId {
    /// What the image or the snapshot has there, or nothing.
    #[default]
    Image,
    /// A new one for each machine: each copy, each lease, each forked child.
    Random,
    /// This one, not all zeroes, for every machine of the configuration.
    Fixed([u8; 16]),
}

impl MachineId {
    /// What to write, if anything: another one each time where it is random.
    pub(crate) fn resolve(self) -> Result<Option<[u8; 16]>, Error> {
        match self {
            Self::Image => Ok(None),
            Self::Fixed(id) => Ok(Some(id)),
            Self::Random => {
                let mut id = [0; 16];
                random::fill_random(&mut id)?;
                // As machine-id(5) wants it: RFC 9562, 5.4, version 4, variant 10.
                id[6] = id[6] & 0x0f | 0x40;
                id[8] = id[8] & 0x3f | 0x80;
                Ok(Some(id))
            }
        }
    }
}

/// What a machine's worker may take of its host, if it is limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostLimits {
    pub memory_mib: Option<u64>,
    pub cpu_thousandths: Option<u64>,
}

/// Configuration of a machine: what the image does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConfig {
    pub(crate) memory_mib: Option<usize>,
    pub(crate) vcpus: Option<u32>,
    pub(crate) engine: Engine,
    pub(crate) tier: Tier,
    pub(crate) assets: Option<AssetPaths>,
    pub(crate) worker: Option<PathBuf>,
    pub(crate) boot_timeout: Duration,
    pub(crate) restore_timeout: Duration,
    pub(crate) pool_warm: usize,
    pub(crate) console: bool,
    pub(crate) hostname: Option<String>,
    pub(crate) max_processes: Option<u32>,
    pub(crate) machine_id: MachineId,
    pub(crate) name: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) clock: WallClock,
    pub(crate) network: Network,
    /// A copy of a snapshot without an interface goes without.
    pub(crate) network_is_optional: bool,
    /// Nobody waits for the machine's first steps: a pool keeps it ready.
    pub(crate) starts_idle: bool,
    pub(crate) secrets: Vec<NetworkSecret>,
    pub(crate) mounts: Vec<MountSpec>,
    pub(crate) volumes: Vec<VolumeSpec>,
    pub(crate) tmpfs: Vec<TmpfsSpec>,
    pub(crate) volumes_dir: Option<PathBuf>,
    /// Volumes that are no files of the store, by name.
    pub(crate) volume_files: BTreeMap<String, PathBuf>,
    /// What these hold is in the snapshot that is baked.
    pub(crate) kept_volumes: Vec<VolumeSpec>,
    /// Copies have room for at least as many other volumes.
    pub(crate) volume_slots: usize,
    /// Disks without content: where a copy has the layers of its image, which it enters as
    /// its root when it is told to.
    pub(crate) layer_slots: usize,
    pub(crate) host_limits: HostLimits,
}

/// Most vCPUs a guest can use: what its kernel is built for
/// (`CONFIG_NR_CPUS`), whatever an engine could do.
pub const MAX_VCPUS: u32 = 16;
/// Longest host name in bytes (Linux, `__NEW_UTS_LEN`).
const MAX_HOSTNAME_BYTES: usize = 64;

impl Default for VmConfig {
    fn default() -> Self {
        Self {
            memory_mib: None,
            vcpus: None,
            engine: Engine::Auto,
            tier: Tier::Auto,
            assets: None,
            worker: None,
            boot_timeout: BOOT_TIMEOUT,
            restore_timeout: RESTORE_TIMEOUT,
            pool_warm: 0,
            console: false,
            hostname: None,
            max_processes: None,
            machine_id: MachineId::Image,
            name: None,
            labels: BTreeMap::new(),
            clock: WallClock::default(),
            network: Network::Off,
            network_is_optional: false,
            starts_idle: false,
            secrets: Vec::new(),
            mounts: Vec::new(),
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            volumes_dir: None,
            volume_files: BTreeMap::new(),
            kept_volumes: Vec::new(),
            volume_slots: 0,
            layer_slots: 0,
            host_limits: HostLimits::default(),
        }
    }
}

impl VmConfig {
    /// Memory and vCPUs of the image's snapshot, or 256 MiB and one; assets and
    /// worker where they are usually found.
    pub fn new() -> Self {
        Self::default()
    }

    /// Guest memory in MiB; if not set, that of the snapshot, or 256. It is
    /// taken from the host only as the guest touches it. For copies see
    /// [`crate::PoolBuilder::memory_mib`].
    pub fn with_memory_mib(mut self, memory_mib: usize) -> Self {
        self.memory_mib = Some(memory_mib);
        self
    }

    /// Virtual CPUs, 1 to [`MAX_VCPUS`]; if not set, those of the snapshot, or 1.
    pub fn with_vcpus(mut self, vcpus: u32) -> Self {
        self.vcpus = Some(vcpus);
        self
    }

    /// Which engine runs the guest.
    pub fn with_engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// How the software engine executes code; other engines have no such choice.
    pub fn with_tier(mut self, tier: Tier) -> Self {
        self.tier = tier;
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

    /// How long the guest may take to come up; 60 seconds if not set. A guest
    /// that takes longer is [`Error::BootFailed`].
    pub fn with_boot_timeout(mut self, timeout: Duration) -> Self {
        self.boot_timeout = timeout;
        self
    }

    /// How long a copy of a snapshot may take until it serves commands; 30
    /// seconds if not set.
    pub fn with_restore_timeout(mut self, timeout: Duration) -> Self {
        self.restore_timeout = timeout;
        self
    }

    /// How many machines [`crate::Image::acquire_with`] keeps ready from then
    /// on, instead of starting one each time. Configurations that differ in
    /// nothing else share a pool.
    pub fn with_pool_warm(mut self, machines: usize) -> Self {
        self.pool_warm = machines;
        self
    }

    /// Whether guest kernel messages go to the standard error of this process.
    pub fn with_console(mut self, console: bool) -> Self {
        self.console = console;
        self
    }

    /// The guest's host name, 1 to 64 letters, digits, dots and hyphens; by
    /// default the first 12 digits of the image's digest.
    pub fn with_hostname(mut self, hostname: impl Into<String>) -> Self {
        self.hostname = Some(hostname.into());
        self
    }

    /// Most processes and threads that one command, or the workload, has at a
    /// time; 4,096 if not set, and never more than three quarters of what the
    /// guest's kernel has room for. A copy has its snapshot's limit.
    pub fn with_max_processes(mut self, processes: u32) -> Self {
        self.max_processes = Some(processes);
        self
    }

    /// What `/etc/machine-id` holds; if not set, what the image has there. A
    /// machine whose image has no `/etc` cannot be given one and is not handed
    /// out. A bake leaves it out of the snapshot.
    pub fn with_machine_id(mut self, machine_id: MachineId) -> Self {
        self.machine_id = machine_id;
        self
    }

    /// What the machine is called in `supermachine ps` and for `exec` and
    /// `stop`: as a host name. Without one it has only its id. Of this user's
    /// running machines only one has it: pools are refused it, and forked
    /// children go without.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Says something about the machine that `supermachine ps` shows and can
    /// select by. A later value of the same label wins.
    pub fn with_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// What time guests have, instead of that of the host's wall clock: asked
    /// when a machine starts, is copied or reset, and when one is acquired from a
    /// pool. It must not block. Two configurations are equal only if one was cloned
    /// from the other since.
    pub fn with_wall_clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = WallClock::new(now);
        self
    }

    /// What the guest may reach of the network; nothing if not set. A copy has an
    /// interface if and only if its snapshot was baked with one, by any policy; what
    /// it may reach is said here, each time.
    pub fn with_network(mut self, network: impl Into<Network>) -> Self {
        self.network = network.into();
        self
    }

    /// Keeps a secret from the guest, and puts it into its requests to the secret's hosts:
    /// see [`NetworkSecret`]. A machine has at most 64. Each start makes placeholders, and
    /// an authority that its guest trusts, anew; forked children keep their parent's. What
    /// is baked has none of it.
    pub fn with_secret(mut self, secret: NetworkSecret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// The same without secrets, which are for what runs and not for what is baked.
    pub(crate) fn without_secrets(&self) -> Self {
        Self {
            secrets: Vec::new(),
            ..self.clone()
        }
    }

    /// As [`VmConfig::with_network`], for copies that have an interface.
    #[cfg(feature = "cli")]
    pub(crate) fn with_network_where_there_is_one(self, network: Network) -> Self {
        Self {
            network,
            network_is_optional: true,
            ..self
        }
    }

    /// Gives the guest a directory of the host. A copy needs those that its snapshot
    /// was baked with, by their tags, and no others; which directories they are
    /// is said for each.
    pub fn with_mount(mut self, mount: MountSpec) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Gives the guest a disk that outlives it, at most seven of them. A machine of an
    /// image without a snapshot can have any; a copy as many as its snapshot was baked
    /// with, of any names. Pools are refused them, as only one machine can have one. A
    /// snapshot of the machine holds a copy of each as it was at that moment; copies, and
    /// forked children, go on with copies of their own, which end with them.
    pub fn with_volume(mut self, volume: VolumeSpec) -> Self {
        self.volumes.push(volume);
        self
    }

    /// Where volumes are kept, instead of where [`crate::VolumeStore::of_user`] has them.
    pub fn with_volumes_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.volumes_dir = Some(dir.into());
        self
    }

    /// Mounts memory in the guest before it runs anything. While an image is baked it is
    /// there too, and copies have what is in it by then; a copy can also have more of
    /// them, which are empty.
    pub fn with_tmpfs(mut self, tmpfs: TmpfsSpec) -> Self {
        self.tmpfs.push(tmpfs);
        self
    }

    /// The most memory of the host that the machine's worker may have, in MiB: the guest's
    /// memory that it has touched, what it writes of its snapshot's, and some 20 MiB. At
    /// the limit the system reclaims what it can, and then ends the worker. On Linux, by
    /// a control group of version 2 that this user may make, as in a session of systemd;
    /// elsewhere no machine starts with a limit. Children of a fork share their
    /// parent's.
    pub fn with_host_memory_mib(mut self, memory_mib: u64) -> Self {
        self.host_limits.memory_mib = Some(memory_mib);
        self
    }

    /// The most processor time of the host that the machine's worker gets, in
    /// processors: half of one with 0.5. It is slowed down to that. By the same means as
    /// [`VmConfig::with_host_memory_mib`].
    pub fn with_host_cpus(mut self, cpus: f64) -> Self {
        // A conversion of floats saturates.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let thousandths = (cpus * 1000.0) as u64;
        self.host_limits.cpu_thousandths = Some(thousandths);
        self
    }

    /// Where its volumes are that outlive it.
    pub(crate) fn volume_places(&self) -> volume::Places<'_> {
        volume::Places {
            dir: self.volumes_dir.as_deref(),
            files: &self.volume_files,
        }
    }

    /// How many volumes copies of a machine that is baked can have beside those whose
    /// content is in the snapshot.
    pub(crate) fn volume_slots(&self) -> usize {
        self.volumes.len().max(self.volume_slots)
    }

    /// Where kernel and init are.
    pub(crate) fn assets(&self) -> Result<AssetPaths, Error> {
        match &self.assets {
            Some(assets) => Ok(assets.clone()),
            None => AssetPaths::discover(),
        }
    }

    /// Guest memory of a machine that boots, in MiB.
    pub(crate) fn boot_memory_mib(&self) -> usize {
        self.memory_mib.unwrap_or(DEFAULT_MEMORY_MIB)
    }

    /// vCPUs of a machine that boots.
    pub(crate) fn boot_vcpus(&self) -> u32 {
        self.vcpus.unwrap_or(DEFAULT_VCPUS)
    }

    /// What can be told without a worker.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.memory_mib == Some(0) {
            return Err(ResourceError::ZeroMemory.into());
        }
        match self.vcpus {
            Some(0) => return Err(ResourceError::ZeroVcpus.into()),
            Some(vcpus) if vcpus > MAX_VCPUS => {
                return Err(Error::TooManyVcpus {
                    vcpus,
                    max: MAX_VCPUS,
                });
            }
            _ => {}
        }
        mount::validate(&self.mounts)?;
        volume::validate_together(&self.kept_volumes, &self.volumes, self.volume_slots)?;
        tmpfs::validate(&self.tmpfs)?;
        if self.max_processes == Some(0) {
            return Err(Error::Unsuitable {
                what: "a limit on processes",
                needs: "at least one",
            });
        }
        let HostLimits {
            memory_mib,
            cpu_thousandths,
        } = self.host_limits;
        // The kernel takes no less than a hundredth of a processor.
        if memory_mib == Some(0) || cpu_thousandths.is_some_and(|thousandths| thousandths < 10) {
            return Err(Error::Unsuitable {
                what: "a limit on what a machine takes of its host",
                needs: "at least 1 MiB, and a hundredth of a processor",
            });
        }
        // It becomes a word of the kernel's command line.
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        for name in [&self.hostname, &self.name].into_iter().flatten() {
            let fits = (1..=MAX_HOSTNAME_BYTES).contains(&name.len());
            if !fits || !name.chars().all(allowed) {
                return Err(Error::BadHostname {
                    hostname: name.clone(),
                });
            }
        }
        self.network.check()?;
        secret::check(&self.secrets, self.network.is_on())?;
        if self.machine_id == MachineId::Fixed([0; 16]) {
            return Err(Error::Unsuitable {
                what: "a machine id",
                needs: "a digit that is not zero",
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_checked_before_anything_is_started() {
        let refused = |config: VmConfig| config.validate().unwrap_err().to_string();
        assert!(VmConfig::new().validate().is_ok());
        assert!(VmConfig::new().with_vcpus(MAX_VCPUS).validate().is_ok());
        assert!(refused(VmConfig::new().with_memory_mib(0)).contains("memory"));
        assert!(refused(VmConfig::new().with_vcpus(0)).contains("vCPU"));
        assert!(refused(VmConfig::new().with_max_processes(0)).contains("processes"));
        for cpus in [0.0, 0.009, -1.0, f64::NAN] {
            assert!(refused(VmConfig::new().with_host_cpus(cpus)).contains("of its host"));
        }
        assert!(refused(VmConfig::new().with_host_memory_mib(0)).contains("of its host"));
        let text = refused(VmConfig::new().with_vcpus(17));
        assert!(text.contains("17") && text.contains("at most 16"), "{text}");
    }

    #[test]
    fn random_machine_ids_differ_and_zeroes_are_refused() {
        let random = || MachineId::Random.resolve().unwrap().unwrap();
        let id = random();
        assert_ne!(id, random());
        assert_eq!((id[6] >> 4, id[8] >> 6), (4, 2));
        assert_eq!(MachineId::Image.resolve().unwrap(), None);
        let with = |id| VmConfig::new().with_machine_id(MachineId::Fixed(id));
        assert!(with([0; 16]).validate().is_err());
        assert!(with([1; 16]).validate().is_ok());
    }

    #[test]
    fn hostname_cannot_smuggle_kernel_parameters() {
        for bad in ["", "a b", "x\ninit=/bin/sh", "a\"b", &"h".repeat(65)] {
            assert!(
                VmConfig::new().with_hostname(bad).validate().is_err(),
                "{bad:?}"
            );
        }
        assert!(
            VmConfig::new()
                .with_hostname("web-1.example")
                .validate()
                .is_ok()
        );
    }
}
