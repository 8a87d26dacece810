//! Baking: an image is booted once, brought to the moment that copies start
//! from, and captured.

mod cache;

use crate::capture::{About, FirstSteps, quiet, write};
use crate::config::MachineId;
use crate::deadline::Deadline;
use crate::embedder::personalise::Personality;
use crate::exec::Wanted;
use crate::limits::{BAKE_LOCK_TIMEOUT, GUEST_ANSWER_TIMEOUT};
use crate::overrides::Overrides;
use crate::pull::{Fetch, PullPolicy};
use crate::template::{Template, Workload, read_layers};
use crate::unfinished::{NoExit, Unfinished};
use crate::{Error, Image, MountSpec, TmpfsSpec, Trigger, Vm, VmConfig, VolumeSpec, stamp};
use oci_bake::{BakeOptions, ExtraFile, Progress};
use snapshot::{Baked, Draft, Stamp, Store, WorkingSet};
use std::fmt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info, warn};

/// Port on which a workload is expected to listen, if nobody names one.
pub const DEFAULT_GUEST_PORT: u16 = 80;
/// Tag of a warm-up, if nobody gives it one.
pub const DEFAULT_WARMUP_TAG: &str = "default";

/// Most memory pages a working set is taken from: beyond that, reading ahead
/// costs more than it saves.
const MAX_WORKING_SET_PAGES: u64 = (32 << 20) / 4096;

type Warmup = Arc<dyn Fn(&Vm) -> Result<(), Error> + Send + Sync>;

/// Bakes a snapshot of an OCI image, or finds one that was baked before.
#[derive(Clone)]
pub struct OciImageBuilder {
    reference: String,
    fetch: Fetch,
    name: Option<String>,
    config: VmConfig,
    memory_mib: Option<usize>,
    vcpus: Option<u32>,
    cmd: Option<Vec<String>>,
    overrides: Overrides,
    env: Vec<(String, String)>,
    guest_port: Option<u16>,
    trigger: Trigger,
    quiesce: Duration,
    warmup: Option<Warmup>,
    warmup_tag: String,
    snapshots_dir: Option<PathBuf>,
    cache: Option<PathBuf>,
    files: Vec<ExtraFile>,
    mounts: Vec<MountSpec>,
    tmpfs: Vec<TmpfsSpec>,
    volumes: Vec<VolumeSpec>,
    volume_slots: usize,
    progress: Option<Arc<dyn Progress>>,
}

impl fmt::Debug for OciImageBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OciImageBuilder")
            .field("reference", &self.reference)
            .field("name", &self.name)
            .field("trigger", &self.trigger)
            .finish_non_exhaustive()
    }
}

impl OciImageBuilder {
    pub(crate) fn new(reference: String) -> Self {
        Self {
            reference,
            fetch: Fetch::default(),
            name: None,
            config: VmConfig::new(),
            memory_mib: None,
            vcpus: None,
            cmd: None,
            overrides: Overrides::default(),
            env: Vec::new(),
            guest_port: None,
            trigger: Trigger::Ready,
            quiesce: Duration::ZERO,
            warmup: None,
            warmup_tag: DEFAULT_WARMUP_TAG.to_owned(),
            snapshots_dir: None,
            cache: None,
            files: Vec::new(),
            mounts: Vec::new(),
            tmpfs: Vec::new(),
            volumes: Vec::new(),
            volume_slots: 0,
            progress: None,
        }
    }

    /// The image, as [`Image::load`] takes it: `nginx`, `oci:DIR[:TAG]` and so on.
    pub fn ref_(mut self, reference: impl Into<String>) -> Self {
        self.reference = reference.into();
        self
    }

    /// When the registry is asked for the image: if it is not here, unless this says
    /// otherwise.
    pub fn pull_policy(mut self, policy: PullPolicy) -> Self {
        self.fetch.policy = policy;
        self
    }

    /// Is told how far the layers of the image are while they are got and converted.
    pub fn progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// The file of a public key (ECDSA P-256 or Ed25519, in PEM) that the image must be
    /// signed by in its registry, as `cosign sign --key` does it.
    pub fn verify_key(mut self, file: impl Into<PathBuf>) -> Self {
        self.fetch.verify_key = Some(file.into());
        self
    }

    /// Name of the snapshot, by default made of the reference, memory, vCPUs and
    /// the other options: those that differ live side by side.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Guest memory in MiB; 256 if not set.
    pub fn memory_mib(mut self, memory_mib: usize) -> Self {
        self.memory_mib = Some(memory_mib);
        self
    }

    /// Virtual CPUs; 1 if not set. Copies may have more.
    pub fn vcpus(mut self, vcpus: u32) -> Self {
        self.vcpus = Some(vcpus);
        self
    }

    /// Everything else about the machine: engine, assets, worker, host name,
    /// time limits. Memory and vCPUs set there count where the builder's own
    /// setting of that name was not called, before or after.
    pub fn vm_config(mut self, config: VmConfig) -> Self {
        self.config = config;
        self
    }

    /// Mounts memory in the machine, as [`VmConfig::with_tmpfs`] does; what a warm-up writes
    /// there the copies have.
    pub fn with_tmpfs(mut self, tmpfs: TmpfsSpec) -> Self {
        self.tmpfs.push(tmpfs);
        self
    }

    /// Gives the machine a directory of the host, as [`VmConfig::with_mount`] does.
    /// Nothing that is in it gets into the snapshot but what programs have read; each
    /// copy is given a directory for the tag anew.
    pub fn with_mount(mut self, mount: MountSpec) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Bakes a disk with the image, at most seven of them: it is mounted, empty, before
    /// anything runs, and what the workload and the warm-up leave there is in the snapshot.
    /// Each copy begins with that, and has what it writes to itself: the other copies do not
    /// see it, and it is gone with the copy or its [reset](crate::Pool). A
    /// [`VmConfig::with_volume`] of [`OciImageBuilder::vm_config`] is another thing: room
    /// for a disk that outlives a copy.
    pub fn with_volume(mut self, volume: VolumeSpec) -> Self {
        self.volumes.push(volume);
        self
    }

    /// Gives copies room for at least so many volumes that outlive them. Which these are,
    /// each copy is told anew, by [`VmConfig::with_volume`]; they are not there while the
    /// image is baked.
    pub fn volume_slots(mut self, count: usize) -> Self {
        self.volume_slots = count;
        self
    }

    /// The workload: a command each copy runs by itself. By default that is
    /// nothing, or the image's own command if a trigger needs a workload.
    pub fn cmd<S: Into<String>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
        self.cmd = Some(argv.into_iter().map(Into::into).collect());
        self
    }

    /// The program that commands begin with, instead of the image's Entrypoint and Cmd.
    pub fn entrypoint<S: Into<String>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
        self.overrides.entrypoint = Some(argv.into_iter().map(Into::into).collect());
        self
    }

    /// The directory that commands start in, instead of the image's.
    pub fn workdir(mut self, directory: impl Into<String>) -> Self {
        self.overrides.working_dir = Some(directory.into());
        self
    }

    /// The user that commands run as (`USER[:GROUP]`, by name or number), instead of the
    /// image's.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.overrides.user = Some(user.into());
        self
    }

    /// Adds labels to those of the image, instead of its own of the same name.
    pub fn labels<K: Into<String>, V: Into<String>>(
        mut self,
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let pairs = labels.into_iter().map(|(k, v)| (k.into(), v.into()));
        self.overrides.labels.extend(pairs);
        self
    }

    /// Adds a variable to the workload's environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// TCP port the workload listens on; [`DEFAULT_GUEST_PORT`] if not set.
    pub fn guest_port(mut self, port: u16) -> Self {
        self.guest_port = Some(port);
        self
    }

    /// Whether the workload must listen on the guest port when the snapshot is
    /// made.
    pub fn listener_required(mut self, required: bool) -> Self {
        self.trigger = if required {
            Trigger::Listener
        } else {
            Trigger::Ready
        };
        self
    }

    /// When the snapshot is made.
    pub fn trigger(mut self, trigger: Trigger) -> Self {
        self.trigger = trigger;
        self
    }

    /// How long the machine may settle before it is captured.
    pub fn quiesce_ms(mut self, milliseconds: u64) -> Self {
        self.quiesce = Duration::from_millis(milliseconds);
        self
    }

    /// Runs in the machine before it is captured, after the trigger: what it
    /// leaves in memory and in files, every copy has. Nothing secret should be
    /// in there, and no generator of random numbers that was seeded.
    pub fn with_warmup(
        mut self,
        warmup: impl Fn(&Vm) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        self.warmup = Some(Arc::new(warmup));
        self
    }

    /// Tells warm-ups apart: another tag, another snapshot; [`DEFAULT_WARMUP_TAG`] if not
    /// set.
    pub fn with_warmup_tag(mut self, tag: impl Into<String>) -> Self {
        self.warmup_tag = tag.into();
        self
    }

    /// Where snapshots are kept; see [`crate::snapshots_dir`] for the default.
    pub fn snapshots_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.snapshots_dir = Some(dir.into());
        self
    }

    /// Where layers are cached; by default in the user's cache directory.
    pub fn layer_cache(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache = Some(dir.into());
        self
    }

    /// Puts a file of the host into the image, with its permissions, belonging to root.
    /// The snapshot is made anew when its content changes; the layers of the image are
    /// not.
    pub fn extra_file(self, host: impl Into<PathBuf>, guest: impl Into<String>) -> Self {
        self.extra_files([ExtraFile::new(host, guest)])
    }

    /// Puts files of the host into the image, as [`OciImageBuilder::extra_file`] does.
    pub fn extra_files(mut self, files: impl IntoIterator<Item = ExtraFile>) -> Self {
        self.files.extend(files);
        self
    }

    /// Bakes as [`OciImageBuilder::build`] does; another name for it.
    ///
    /// # Errors
    /// As [`OciImageBuilder::build`].
    pub fn run(self) -> Result<Image, Error> {
        self.build()
    }

    /// Bakes the snapshot, unless one of the same image and options is there
    /// already. Of several processes that bake the same, one does and the
    /// others wait for it.
    ///
    /// # Errors
    /// As [`Image::load`] and [`Vm::start`]; what the warm-up says;
    /// [`Error::Snapshot`] if the snapshot cannot be written. A snapshot that
    /// was there before stays then.
    pub fn build(self) -> Result<Image, Error> {
        let cache = self.cache_dir()?;
        let mut options = BakeOptions::default();
        options.progress = self.progress.clone();
        let image = Image::load_with(&self.reference, &cache, &self.fetch, &options)?;
        self.build_on(&image)
    }

    /// Bakes as [`OciImageBuilder::build`] does, of an image that is loaded already.
    pub(crate) fn build_on(mut self, image: &Image) -> Result<Image, Error> {
        self.config.memory_mib = self.memory_mib.or(self.config.memory_mib);
        self.config.vcpus = self.vcpus.or(self.config.vcpus);
        self.config.mounts.append(&mut self.mounts);
        self.config.tmpfs.append(&mut self.tmpfs);
        self.config.kept_volumes.append(&mut self.volumes);
        self.config.volume_slots = self.volume_slots;
        self.config.validate()?;
        let with_files = match self.files.as_slice() {
            [] => None,
            files => Some(image.with_files(files, &self.cache_dir()?)?),
        };
        let image = with_files.as_ref().unwrap_or(image);
        let image = &image.with_config(self.overrides.apply(image.config())?);
        let here = stamp::here(&self.config)?;
        let root = match &self.snapshots_dir {
            Some(dir) => dir.clone(),
            None => crate::snapshots_dir()?,
        };
        let name = match &self.name {
            Some(name) => name.clone(),
            None => self.default_name(&here),
        };
        if let Some(above) = root.parent() {
            std::fs::create_dir_all(above).map_err(Error::host("cannot create", above))?;
        }
        let store = Store::new(root)?;
        let _bake =
            tracing::error_span!("bake", snapshot = name, reference = self.reference).entered();
        let find = || self.find_or_bake(image, &store, &name, &here);
        let (template, kept) = match find()? {
            (Baked::Reused(found), _) => {
                let number = found.number();
                debug!(generation = number, "snapshot is there already");
                match (Template::new(found, &here), number) {
                    // Its manifest is good, and something else of it is not.
                    (Err(Error::Rebake { reason }), Some(number)) => {
                        warn!(
                            generation = number,
                            reason, "snapshot is of no use, baking it again"
                        );
                        store.lock(&name, BAKE_LOCK_TIMEOUT)?.retire(number)?;
                        let (baked, kept) = find()?;
                        (Template::new(baked.into_snapshot(), &here)?, kept)
                    }
                    (found, _) => (found?, None),
                }
            }
            (baked, kept) => (Template::new(baked.into_snapshot(), &here)?, kept),
        };
        let template = Arc::new(template.cached_in(store, name));
        // Of a machine with volumes nobody makes a copy: theirs are over what the snapshot
        // holds, and its own are not.
        let kept = kept.filter(|_| self.config.kept_volumes.is_empty());
        debug!(path = %template.path().display(), "image is ready");
        Ok(Image::from_template(template, kept))
    }

    /// Has a machine of the image come up and captures it; it is given back running.
    fn bake(
        &self,
        image: &Image,
        base: &Arc<Template>,
        key: &str,
        here: &Stamp,
        draft: Draft,
        unfinished: &Unfinished,
    ) -> Result<(u64, Vm, NoExit), Error> {
        // The machine that is kept is for those who ask for no other either.
        let config = self.config.clone().with_machine_id(MachineId::Image);
        info!("baking a snapshot");
        let (vm, workload, layers) = std::thread::scope(|scope| {
            let layers = scope.spawn(|| read_layers(image.layers()));
            let vm = Vm::boot_from(base, image, &config)?;
            unfinished.written_by(vm.instance().process().clone());
            let workload = self.reach_moment(image, &vm)?;
            if !self.quiesce.is_zero() {
                std::thread::sleep(self.quiesce);
            }
            let layers = layers.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            Ok::<_, Error>((vm, workload, layers))
        })?;
        // What every command needs is in the page cache of the copies, whether
        // the image has a `true` or not.
        let _ = vm.exec(["true"]);
        quiet(&vm, &Wanted::always())?;
        let about = About {
            workload: &workload,
            layers: &layers,
            key,
            here,
        };
        let (number, no_exit) = write(&vm, draft, &about, &Wanted::always(), first_steps)?;
        Ok((number, vm, no_exit))
    }

    /// Brings a machine to the moment its copies start from; what is left for
    /// them to start.
    fn reach_moment(&self, image: &Image, vm: &Vm) -> Result<Workload, Error> {
        let argv = match (&self.cmd, self.trigger) {
            (Some(cmd), _) => Some(image.config().command(None, Some(cmd))?),
            (None, Trigger::Ready) => None,
            (None, _) => Some(image.config().command(None, None)?),
        };
        let workload = match argv {
            None => Workload::None,
            Some(argv) => {
                let pairs = self
                    .env
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"));
                Workload::OnRestore(argv, pairs.collect())
            }
        };
        let workload = if self.trigger == Trigger::Ready {
            workload
        } else {
            vm.start_workload(&workload, Deadline::within(GUEST_ANSWER_TIMEOUT))?;
            let port = self.guest_port.unwrap_or(DEFAULT_GUEST_PORT);
            self.trigger.await_in(vm, port)?;
            debug!(trigger = ?self.trigger, "workload has come to the moment of the snapshot");
            Workload::Running
        };
        if let Some(warmup) = &self.warmup {
            warmup(vm)?;
        }
        Ok(workload)
    }
}

/// Lets a captured machine take the first steps of a copy on the memory that
/// was written, and sees which pages and which code they need.
fn first_steps(vm: &Vm, written: &Path) -> Result<FirstSteps, Error> {
    vm.instance().go_on_from(written, &Personality::default())?;
    // What every command needs; whether there is a `true` does not matter.
    let _ = vm.exec(["true"]);
    let touched = vm.instance().touched()?;
    let most = usize::try_from(MAX_WORKING_SET_PAGES).unwrap_or(usize::MAX);
    let pages = touched.runs.into_iter().flatten().take(most);
    Ok(FirstSteps {
        working_set: WorkingSet::from_pages(pages),
        code_notes: touched.code_notes,
    })
}
