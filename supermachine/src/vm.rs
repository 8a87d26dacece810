//! One machine.

mod based;
mod belongings;
mod copy;

use crate::deadline::Deadline;
use crate::embedder::handle::VmStatus;
use crate::embedder::instance::Instance;
use crate::embedder::personalise::Personality;
use crate::exec::{Asked, Channel, Opens};
use crate::limits::GREETING_TIMEOUT;
use crate::link::protocol::Boot;
use crate::link::runtime_dir;
use crate::link::sockets;
use crate::pool::turns::{Turn, Turns};
use crate::ports::{Lease, OwnPorts, Ports};
use crate::running::{self, Description};
use crate::secret::Told;
use crate::{
    Command, Error, ExecBuilder, ExecChild, ExecOutcome, Image, MAX_VCPUS, MountSpec, VmConfig,
    VolumeSpec, mount, spans, volume,
};
use exec_proto::ProtoError;
use exec_proto::client::Session;
use net::Addresses;
use oci_bake::ImageConfig;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tracing::{Span, info};

pub use copy::CopyReport;

/// A running machine in a worker process of its own.
///
/// Dropping it stops it, as [`Vm::stop`] does, but never takes longer than half a
/// second: a worker that does not end in good order by then has been killed. What the
/// guest wrote to [volumes](VolumeSpec) and did not sync is lost then.
#[derive(Debug)]
pub struct Vm {
    image: Image,
    config: VmConfig,
    engine: OnceLock<String>,
    start: Mutex<Start>,
    /// Held from the order to stand still until the machine goes on: captures
    /// and forks of one machine come one after the other.
    still: Mutex<()>,
    /// The guest has volumes mounted that outlive it.
    has_volumes: AtomicBool,
    /// Of the pool that it is in.
    turns: OnceLock<Arc<Turns>>,
    /// Closed before the machine ends.
    ports: OwnPorts,
    /// What its guest was told of secrets, once it runs, if it has some.
    secrets: OnceLock<Arc<Told>>,
    instance: Instance,
}

#[derive(Debug, Default)]
struct Start {
    took: Duration,
    copy: Option<CopyReport>,
    fork_pause: Option<Duration>,
}

impl Vm {
    /// Starts a machine from `image`: a copy of its snapshot, if it has one,
    /// else one that boots. Returns when it serves commands.
    ///
    /// # Errors
    /// [`Error::Resources`], [`Error::TooManyVcpus`], [`Error::BadHostname`],
    /// [`Error::NameTaken`] and [`Error::MemoryOutOfRange`] for what `config` must not
    /// say; [`Error::Assets`] and [`Error::NoWorker`] for an incomplete installation;
    /// [`Error::Host`] for a kernel, init or layer that cannot be opened;
    /// [`Error::Start`] when the machine cannot be made here; [`Error::BootFailed`],
    /// with the end of the guest's console, when the guest ended or hung before it
    /// served commands; [`Error::Rebake`] for a snapshot that does not fit.
    pub fn start(image: &Image, config: &VmConfig) -> Result<Self, Error> {
        config.validate()?;
        if let Some(name) = &config.name {
            running::check_name(name)?;
        }
        match image.template() {
            Some(template) => {
                template.check_memory(config)?;
                let vm = Self::prepare(image, config)?;
                vm.restore(template)?;
                Ok(vm)
            }
            None => {
                let deadline = Deadline::within(config.boot_timeout);
                let vm = Self::boot_until(image, config, &config.volumes, deadline)?;
                let identity = Personality {
                    machine_id: config.machine_id.resolve()?,
                    clock: config.clock.clone(),
                    ..Personality::default()
                };
                // It boots with the host's time.
                if identity.machine_id.is_some() || !identity.clock.is_the_hosts() {
                    vm.instance.identify(&identity, deadline)?;
                }
                vm.mount_volumes()?;
                vm.tell_secrets()?;
                Ok(vm)
            }
        }
    }

    /// Boots a machine whose copies may have as many vCPUs as there can be, and volumes
    /// where it has disks without content.
    pub(crate) fn boot(image: &Image, config: &VmConfig) -> Result<Self, Error> {
        let config = VmConfig {
            volumes: Vec::new(),
            volume_slots: config.volume_slots(),
            ..config.without_secrets()
        };
        let deadline = Deadline::within(config.boot_timeout);
        let vm = Self::boot_until(image, &config, &[], deadline)?;
        vm.mount_kept_volumes()?;
        Ok(vm)
    }

    fn boot_until(
        image: &Image,
        config: &VmConfig,
        volumes: &[VolumeSpec],
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let begun = Instant::now();
        let assets = config.assets()?;
        let vm = Self::prepare(image, config)?;
        let _machine = vm.span().entered();
        let name = |path: &PathBuf| path.to_string_lossy().into_owned();
        let paths = [&assets.kernel, &assets.init_oci].into_iter();
        let files: Result<Vec<File>, Error> = paths
            .chain(image.layers())
            .map(|path| open_to_read(path))
            .collect();
        let mut files = files?;
        let mut layers: Vec<String> = image.layers().iter().map(name).collect();
        for _ in 0..config.layer_slots {
            let (name, file) = volume::empty()?;
            layers.push(name);
            files.push(file);
        }
        let (mounts, directories) = mount::open(&config.mounts)?;
        files.extend(directories);
        let (places, slots) = (config.volume_places(), config.volume_slots());
        let mut disks = volume::kept::make(&config.kept_volumes, places.dir)?;
        disks.extend(volume::open(volumes, places, slots, vm.id())?);
        let (volumes, disks): (Vec<_>, Vec<_>) = disks.into_iter().unzip();
        files.extend(disks);
        let boot = Boot {
            kernel: name(&assets.kernel),
            init: name(&assets.init_oci),
            memory_mib: config.boot_memory_mib(),
            vcpus: config.boot_vcpus(),
            possible_vcpus: MAX_VCPUS,
            layers,
            mounts,
            volumes,
            cmdline: command_line(image, config),
            network: config.network.policy(),
            secrets: vm.make_secrets()?,
        };
        vm.instance.boot(boot, &files, deadline)?;
        vm.mount_tmpfs(&[])?;
        vm.started(begun, None)?;
        info!(engine = vm.engine(), took = ?begun.elapsed(), "machine booted");
        Ok(vm)
    }

    /// Starts a worker that can boot or restore a machine.
    pub(crate) fn prepare(image: &Image, config: &VmConfig) -> Result<Self, Error> {
        let vcpus = config.vcpus.or(image.vcpus());
        let instance = Instance::spawn(config, vcpus.unwrap_or(config.boot_vcpus()))?;
        Ok(Self::over(image, config, instance))
    }

    /// A machine in a worker that is there already.
    pub(crate) fn over(image: &Image, config: &VmConfig, instance: Instance) -> Self {
        Self {
            image: image.detached(),
            config: config.clone(),
            engine: OnceLock::new(),
            start: Mutex::default(),
            still: Mutex::default(),
            has_volumes: AtomicBool::new(false),
            turns: OnceLock::new(),
            ports: OwnPorts::new(instance.dir().to_owned()),
            secrets: OnceLock::new(),
            instance,
        }
    }

    /// Whether the guest's clock is not that of its configuration any more.
    #[cfg(feature = "tokio")]
    pub(crate) fn clock_is_off(&self) -> bool {
        self.is_paused() || self.instance.clock_is_off(&self.config.clock)
    }

    /// Lets a machine go on that was left paused, and sets the guest's clock again if it
    /// is off.
    pub(crate) fn correct_clock(&self) -> Result<(), Error> {
        if self.is_paused() {
            return self.resume();
        }
        self.instance.correct_clock(&self.config.clock)
    }

    /// Sets the guest's clock.
    pub(crate) fn set_clock(&self) -> Result<(), Error> {
        self.instance.set_clock(&self.config.clock)
    }

    pub(crate) fn started(&self, begun: Instant, copy: Option<CopyReport>) -> Result<(), Error> {
        let engine = self.instance.engine()?;
        if self.engine.set(engine).is_ok() {
            self.register()?;
        }
        let mut start = self.start_report();
        start.took = begun.elapsed();
        start.copy = copy;
        Ok(())
    }

    /// Lets other processes of the user find it.
    fn register(&self) -> Result<(), Error> {
        let memory = self.config.memory_mib.or(self.image.memory_mib());
        let vcpus = self.config.vcpus.or(self.image.vcpus());
        running::write(
            self.instance.dir(),
            &Description {
                name: self.config.name.clone(),
                reference: self.image.reference().to_owned(),
                digest: self.image.digest(),
                engine: self.engine().to_owned(),
                memory_mib: memory.unwrap_or(self.config.boot_memory_mib()),
                vcpus: vcpus.unwrap_or(self.config.boot_vcpus()),
                worker_pid: self.instance.process().pid(),
                owner_pid: std::process::id(),
                started_unix_ms: running::unix_ms(),
                config: self.config_of_commands().clone(),
                labels: self.config.labels.clone(),
                ports: Vec::new(),
                has_own_time: !self.config.clock.is_the_hosts(),
                mounts: self
                    .config
                    .mounts
                    .iter()
                    .map(MountSpec::described)
                    .collect(),
                volumes: self.described_volumes(),
            },
        )
    }

    fn start_report(&self) -> MutexGuard<'_, Start> {
        self.start.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For whoever makes the machine stand still: waits until nobody else does.
    pub(crate) fn alone(&self) -> MutexGuard<'_, ()> {
        self.still.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told of it is in this span.
    pub(crate) fn span(&self) -> Span {
        spans::machine(self.instance.dir(), self.config.name.as_deref())
    }

    pub(crate) fn instance(&self) -> &Instance {
        &self.instance
    }

    pub(crate) fn ports(&self) -> &Arc<Ports> {
        self.ports.ports()
    }

    /// Ports are open no longer than this is kept.
    pub(crate) fn lease_ports(&self) -> Lease {
        self.ports.lease()
    }

    /// How long the machine paused for the last [`Vm::fork`].
    pub fn last_fork_pause(&self) -> Option<Duration> {
        self.start_report().fork_pause
    }

    pub(crate) fn note_fork_pause(&self, paused: Duration) {
        self.start_report().fork_pause = Some(paused);
    }

    /// What was done to make this machine a copy of its own, if it is one.
    pub fn copy_report(&self) -> Option<CopyReport> {
        self.start_report().copy
    }

    /// Has its collected commands wait for turns from now on.
    pub(crate) fn compute_by(&self, turns: &Arc<Turns>) {
        // It is in one pool all its life.
        let _ = self.turns.set(turns.clone());
    }

    /// Name of the engine that runs the guest.
    pub fn engine(&self) -> &str {
        self.engine.get().map_or("", String::as_str)
    }

    /// From the order to boot, restore or reset to the agent's first word.
    pub fn boot_time(&self) -> Duration {
        self.start_report().took
    }

    /// What `supermachine ps` calls it where nothing else is.
    pub fn id(&self) -> &str {
        runtime_dir::id(self.instance.dir()).unwrap_or_default()
    }

    /// What the image says about running it.
    pub fn image_config(&self) -> &ImageConfig {
        self.image.config()
    }

    /// The image it was started from.
    pub fn image(&self) -> &Image {
        &self.image
    }

    pub(crate) fn config(&self) -> &VmConfig {
        &self.config
    }

    /// The Unix socket that leads to the guest's agent.
    pub fn exec_path(&self) -> &std::path::Path {
        self.instance.exec_socket()
    }

    /// Stem of the machine's vsock sockets: connect there and send
    /// `CONNECT port` for a guest port; a guest that connects to port P of the
    /// host reaches the socket with `_P` appended.
    pub fn vsock_path(&self) -> PathBuf {
        sockets::stem(self.instance.dir())
    }

    /// A command to run.
    pub fn exec_builder(&self) -> ExecBuilder<'_> {
        ExecBuilder::new(self)
    }

    /// Runs a command that was built before, and collects its output.
    ///
    /// # Errors
    /// As [`ExecBuilder::output`].
    pub fn run(&self, command: &Command) -> Result<ExecOutcome, Error> {
        command.output_of(self)
    }

    /// Starts a command that was built before, with its streams open.
    ///
    /// # Errors
    /// As [`ExecBuilder::spawn`].
    pub fn spawn(&self, command: &Command) -> Result<ExecChild, Error> {
        command.spawn_on(self)
    }

    /// Runs a command and collects its output.
    pub fn exec<S: Into<Vec<u8>>>(
        &self,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<ExecOutcome, Error> {
        self.exec_builder().argv(argv).output()
    }

    pub(crate) fn open_session(
        &self,
        queue: impl Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Channel, Error> {
        self.instance
            .open_session(Deadline::within(GREETING_TIMEOUT), &queue)
    }

    /// How the machine is doing.
    ///
    /// # Errors
    /// [`Error::Ended`] once it has ended.
    pub fn status(&self) -> Result<VmStatus, Error> {
        self.instance.status()
    }

    /// Stops the machine at once, as pulling the plug would, but for its volumes: what
    /// the guest has written to them is there afterwards, if it writes it out within ten
    /// seconds for each.
    pub fn stop(self) -> Result<(), Error> {
        self.end();
        Ok(())
    }

    /// Stops the machine as [`Vm::stop`] does, for owners that share it.
    pub(crate) fn end(&self) {
        self.ports.close();
        self.flush_volumes();
        self.instance.end();
    }

    /// Kills the worker, for a process that must end now.
    pub(crate) fn abandon(&self) {
        self.ports.close();
        self.instance.abandon();
    }
}

impl Opens for Vm {
    fn image_config(&self) -> &ImageConfig {
        self.config_of_commands()
    }

    fn open_session(
        &self,
        deadline: Deadline,
        queue: &dyn Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Channel, Error> {
        self.instance.open_session(deadline, queue)
    }

    fn ask_at_once(
        &self,
        queue: &dyn Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Option<Asked>, Error> {
        self.instance.ask_at_once(queue)
    }

    fn turn(&self, is_wanted: &dyn Fn() -> bool) -> Result<Option<Turn>, Error> {
        let turns = self
            .turns
            .get()
            .filter(|turns| turns.are_for(self.engine()));
        let Some(turns) = turns else {
            return Ok(None);
        };
        let turn = turns.take(self.instance.process().pid(), is_wanted);
        turn.map(Some).ok_or(Error::Cancelled)
    }
}

/// Opens a file that a worker is to read. A pipe does not block.
fn open_to_read(path: &Path) -> Result<File, Error> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map(File::from)
        .map_err(|error| Error::host("cannot read", path)(error.into()))
}

/// What init is told on the kernel's command line.
fn command_line(image: &Image, config: &VmConfig) -> String {
    let hostname = config.hostname.clone().unwrap_or_else(|| {
        let digest = image.digest();
        let hex = digest.rsplit(':').next().unwrap_or_default();
        hex.chars().take(12).collect()
    });
    // The base is quiet, and the later setting wins. Errors are few, and among them is
    // that a program was killed because there was no memory left.
    let loglevel = if config.console { 7 } else { 4 };
    let processes = config.max_processes;
    let processes = processes.map_or_else(String::new, |most| format!(" sm.processes={most}"));
    let network = match config.network.is_on() {
        true => {
            let Addresses {
                gateway_mac: [a, b, c, d, e, f],
                guest,
                gateway,
                prefix,
                guest_mac: _,
                guest_v6,
                gateway_v6,
                prefix_v6,
            } = Addresses::default();
            format!(
                " sm.dns={gateway} sm.net={guest}/{prefix},{gateway},\
                 {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x},\
                 {guest_v6}/{prefix_v6},{gateway_v6}"
            )
        }
        false => String::new(),
    };
    let root = match config.layer_slots {
        0 => "",
        _ => " sm.root=later",
    };
    format!(
        "{} loglevel={loglevel} sm.layers={}{root} sm.hostname={hostname}{processes}{network}{}",
        kernel::recipe::BASE_COMMAND_LINE,
        image.layers().len(),
        mount::kernel_arguments(&config.mounts)
    )
}
