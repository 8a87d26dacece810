//! A snapshot of a machine that runs, and goes on running.

use crate::embedder::birth::Made;
use crate::exec::Wanted;
use crate::host;
use crate::limits::SNAPSHOT_LOCK_TIMEOUT;
use crate::link::protocol::MAX_BIRTHS;
use crate::link::sockets;
use crate::template::{
    CODE_NOTES_FILE, IMAGE_FILE, ImageFile, LayerFiles, Template, Workload, layer_resources,
    link_layers, read_layers,
};
use crate::unfinished::{self, NoExit};
use crate::vm::CopyReport;
use crate::volume::kept;
use crate::{Error, Image, MAX_VCPUS, Vm, VmConfig, aside, mount, random, stamp, tmpfs};
use exec_proto::client::Event;
use rustix::process::{Resource, getrlimit};
use snapshot::{Description, Draft, SnapshotError, Stamp, Store, WorkingSet};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tracing::info;

/// Descriptors this process needs for a child while it is made: its directory and
/// log, both ends of its control connection, the socket where its agent calls, the
/// connection for the next command, and its process.
const DESCRIPTORS_PER_CHILD: u64 = 7;
/// Those for its sockets while they are passed, of as many children as an order makes.
const DESCRIPTORS_PER_BIRTH: u64 = sockets::COUNT as u64;

/// Whether this process may open what so many children need.
fn check_descriptors(count: usize, volumes: usize) -> Result<(), Error> {
    let limit = getrlimit(Resource::Nofile).current;
    // Without a limit, or a count, the system says when it is enough.
    let (Some(limit), Some(used)) = (limit, host::open_descriptors()) else {
        return Ok(());
    };
    let room = limit.saturating_sub(used);
    let each = DESCRIPTORS_PER_CHILD.saturating_add(volumes as u64);
    let births = DESCRIPTORS_PER_BIRTH * count.min(MAX_BIRTHS) as u64;
    let needed = (count as u64).saturating_mul(each).saturating_add(births);
    if needed <= room {
        return Ok(());
    }
    Err(Error::Descriptors {
        count,
        needed,
        room,
        limit,
    })
}

impl Vm {
    /// Makes a snapshot of the machine as it is now, in the directory `dest`:
    /// a new generation, if there is a snapshot already. The machine pauses
    /// while its memory is written and goes on, whether that works or not.
    ///
    /// Copies find everything as it was, but connections to the host are
    /// reset: commands that were running under one have ended there. What the machine's
    /// [volumes](crate::VolumeSpec) hold is copied while it pauses, and is in the snapshot:
    /// each copy begins with that, has what it changes to itself, and nothing of it is left
    /// when it ends. A volume that outlives machines stays this machine's.
    ///
    /// Of several captures and forks at once each waits for the others. Older
    /// generations that nobody uses are removed.
    ///
    /// # Errors
    /// [`Error::Snapshot`] if it cannot be written, [`Error::Refused`] if the
    /// machine has added memory; a snapshot that was there before stays then.
    pub fn snapshot(&self, dest: impl AsRef<Path>) -> Result<Image, Error> {
        self.snapshot_while(dest.as_ref(), &Wanted::always())
    }

    /// The same, unless it is not wanted any more before it is published.
    pub(crate) fn snapshot_while(&self, dest: &Path, wanted: &Wanted) -> Result<Image, Error> {
        let name = dest.file_name().and_then(|name| name.to_str());
        let (Some(root), Some(name)) = (dest.parent(), name) else {
            return Err(Error::Unsuitable {
                what: "a snapshot",
                needs: "a directory with a name to go to",
            });
        };
        // A path of one word is in the current directory.
        let root = if root.as_os_str().is_empty() {
            Path::new(".")
        } else {
            root
        };
        let volumes = &self.config().volumes;
        kept::check_lengths(volumes, self.config().volume_places())?;
        std::fs::create_dir_all(root).map_err(Error::host("cannot create", root))?;
        let store = Store::new(root)?;
        let here = stamp::here(self.config())?;
        let layers = match self.image().template() {
            Some(template) => template.layer_files(),
            None => read_layers(self.image().layers())?,
        };
        quiet(self, wanted)?;
        let lock = store.lock(name, SNAPSHOT_LOCK_TIMEOUT)?;
        wanted.check()?;
        let mut draft = lock.draft()?;
        // No two are the same, so nobody takes this one for another.
        let key = format!("running {}", random::random_name()?);
        let workload = match self.image().template() {
            Some(template) => template.image().workload.clone(),
            None => Workload::None,
        };
        // What copies were to start runs here already.
        let workload = match workload {
            Workload::OnRestore(..) => Workload::Running,
            other => other,
        };
        if let Some(template) = self.image().template() {
            draft.share(template.snapshot())?;
        }
        let about = About {
            workload: &workload,
            layers: &layers,
            key: &key,
            here: &here,
        };
        let (_, no_exit) = write(self, draft, &about, wanted, |vm, _| {
            vm.instance().go_on()?;
            Ok(FirstSteps::default())
        })?;
        let template = Template::new(store.open(name, &here)?, &here)?;
        // What is in use or cannot be moved stays until the next time.
        let lock = store.lock(name, Duration::ZERO);
        let older = lock.and_then(|lock| lock.set_aside());
        older.into_iter().for_each(aside::remove);
        drop(no_exit);
        Ok(Image::from_template(Arc::new(template), None))
    }

    /// Makes `count` children of the running machine: each goes on from this
    /// moment, sharing memory with it until one of them writes. No file is
    /// involved, and the machine pauses only while the state of its devices
    /// and vCPUs is copied; see [`Vm::last_fork_pause`].
    ///
    /// As with a snapshot, connections to the host are reset in the children. What
    /// volumes hold is copied for each of them while the machine is paused, which takes
    /// no time only on file systems that share blocks of files (btrfs, XFS); their copies
    /// end with them.
    ///
    /// # Errors
    /// [`Error::Refused`] on engines and hosts where a process with a machine
    /// cannot fork (Apple's framework); [`Error::Descriptors`] for more
    /// children than this process can hold, before any is made. The machine
    /// goes on in any case.
    pub fn fork(&self, count: usize) -> Result<Vec<Vm>, Error> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let disks = self.volume_disks();
        check_descriptors(count, disks)?;
        let _machine = self.span().entered();
        let begun = Instant::now();
        let (paused, children) = {
            let _alone = self.alone();
            self.instance().check_running()?;
            let mounted = self.mounted_volumes().len();
            self.instance().fork(self.config(), mounted, disks, count)?
        };
        self.note_fork_pause(paused);
        info!(children = count, ?paused, "machine forked");
        // A name is one machine's.
        let config = VmConfig {
            name: None,
            ..self.config().clone()
        };
        let child = |made: Made| {
            let vm = Self::over(self.image(), &config, made.instance);
            // Its programs go on with what its parent's were told.
            vm.adopt_secrets(self.told_secrets());
            vm.started(
                begun,
                Some(CopyReport::new(made.stages, &made.identity, &made.resumed)),
            )?;
            Ok(vm)
        };
        children.into_iter().map(child).collect()
    }
}

/// What a snapshot says beside what is in the machine.
pub(crate) struct About<'a> {
    pub workload: &'a Workload,
    pub layers: &'a LayerFiles,
    pub key: &'a str,
    pub here: &'a Stamp,
}

/// What the first steps of a machine's copies need.
#[derive(Debug, Default)]
pub(crate) struct FirstSteps {
    /// These pages,
    pub(crate) working_set: WorkingSet,
    /// and this code, as the engine notes it.
    pub(crate) code_notes: Vec<u8>,
}

/// Captures a machine into a draft and publishes it, if it is wanted until then. The
/// machine goes on as `go_on` lets it, whatever else fails. With the number of the
/// generation comes what keeps the process until those before it are set aside.
pub(crate) fn write(
    vm: &Vm,
    mut draft: Draft,
    about: &About<'_>,
    wanted: &Wanted,
    go_on: impl FnOnce(&Vm, &Path) -> Result<FirstSteps, Error>,
) -> Result<(u64, NoExit), Error> {
    let _machine = vm.span().entered();
    let image = vm.image();
    let begun = Instant::now();
    let kept_volumes = vm.mounted_volumes();
    let (first_steps, unwritten) = {
        let _alone = vm.alone();
        vm.instance().check_running()?;
        let volumes = kept::files_for(kept_volumes.len(), draft.path())?;
        let (written, unwritten) = vm.instance().capture(draft.path(), &volumes)?;
        // The machine need not wait for the medium.
        let path = draft.path().to_owned();
        std::thread::scope(|scope| {
            let adopting = std::thread::Builder::new()
                .name("snapshot-sync".into())
                .spawn_scoped(scope, || draft.adopt(written));
            let first_steps = go_on(vm, &path);
            let adopted = adopting.map_err(Error::system("start a thread"))?.join();
            let first_steps = first_steps?;
            adopted.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok::<_, Error>((first_steps, unwritten))
        })?
    };
    link_layers(&mut draft, about.layers)?;
    for number in 0..kept_volumes.len() {
        match (unwritten.contains(&number), image.template()) {
            (false, _) => draft.adopt_file(&kept::file_name(number))?,
            (true, Some(template)) => template.link_volume(&mut draft, number)?,
            (true, None) => {
                let what = "volume that is said to hold what it began with";
                return Err(SnapshotError::Malformed { what }.into());
            }
        }
    }
    let file = ImageFile {
        reference: image.reference().to_owned(),
        digest: image.digest(),
        chain: image.chain().clone(),
        config: image.config().clone(),
        possible_vcpus: MAX_VCPUS,
        workload: about.workload.clone(),
        network: match image.template() {
            Some(template) => template.image().network,
            None => vm.config().network.is_on(),
        },
        volumes: vm.volume_disks(),
        kept_volumes,
        mounts: match image.template() {
            Some(template) => template.image().mounts.clone(),
            None => mount::points(&vm.config().mounts),
        },
        tmpfs: match image.template() {
            Some(template) => tmpfs::together(&template.image().tmpfs, &vm.config().tmpfs),
            None => vm.config().tmpfs.clone(),
        },
    };
    let text =
        serde_json::to_vec(&file).map_err(|error| Error::system("describe")(error.into()))?;
    draft.extra_file(IMAGE_FILE, &mut text.as_slice())?;
    draft.working_set(&first_steps.working_set)?;
    if !first_steps.code_notes.is_empty() {
        draft.extra_file(CODE_NOTES_FILE, &mut first_steps.code_notes.as_slice())?;
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let vcpus = vm.config().vcpus.or(image.vcpus());
    let description = Description {
        key: about.key.to_owned(),
        created_unix_s: since.unwrap_or_default().as_secs(),
        stamp: about.here.clone(),
        vcpus: u16::try_from(vcpus.unwrap_or(vm.config().boot_vcpus())).unwrap_or(u16::MAX),
        resources: layer_resources(image.layers()),
        labels: BTreeMap::from([("reference".to_owned(), image.reference().to_owned())]),
    };
    wanted.check()?;
    let no_exit = unfinished::no_exit();
    let number = draft.publish(description)?;
    info!(generation = number, took = ?begun.elapsed(), "snapshot written");
    Ok((number, no_exit))
}

/// Asks the guest to write its caches out to its disks.
pub(crate) fn quiet(vm: &Vm, wanted: &Wanted) -> Result<(), Error> {
    let channel = vm.open_session(|session| session.quiesce(false))?;
    channel.want(wanted.clone());
    channel.answer(|event| matches!(event, Event::Done).then_some(()))
}
