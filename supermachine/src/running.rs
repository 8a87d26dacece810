//! The running machines of a user, whichever process they belong to.
//!
//! Each is described by a file in its runtime directory. It counts as running
//! as long as its worker holds the lock there, which ends with the worker.

use crate::deadline::Deadline;
use crate::embedder::dial::{connect, patiently};
use crate::ending::ask_to_end;
use crate::exec::{self, Channel, Opens, Unwatched};
use crate::host;
use crate::limits::{KILL_TIMEOUT, OTHERS_END_PAUSE};
use crate::link::runtime_dir::{self, Occupant};
use crate::link::sockets;
use crate::{Command, Error, ExecBuilder, ExecChild, ExecId, ExecInfo, ExecOutcome, StreamOffsets};
use exec_proto::ProtoError;
use exec_proto::client::Session;
use oci_bake::ImageConfig;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const FILE: &str = "vm.json";
/// Longest description in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a machine says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// What it is called, if it has a name.
    pub name: Option<String>,
    /// The image it was started from.
    pub reference: String,
    /// Digest of the image's config.
    pub digest: String,
    /// Name of the engine.
    pub engine: String,
    /// Guest memory in MiB.
    pub memory_mib: usize,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// The worker's process id.
    pub worker_pid: u32,
    /// Process id of the worker's owner.
    pub owner_pid: u32,
    /// When it was started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// What the image says about running it.
    pub config: ImageConfig,
    /// What it was labelled with.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Ports of the host that lead to the guest, as `127.0.0.1:8080->80/tcp`.
    #[serde(default)]
    pub ports: Vec<String>,
    /// It has another time than the host, which its owner gives it.
    #[serde(default)]
    pub has_own_time: bool,
    /// Directories of the host that it has.
    #[serde(default)]
    pub mounts: Vec<Mounted>,
    /// Volumes that it has.
    #[serde(default)]
    pub volumes: Vec<MountedVolume>,
}

/// A volume that a machine has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountedVolume {
    /// Its name.
    pub name: String,
    /// The file of the store; none if it is a copy of that, for a forked child.
    pub file: Option<PathBuf>,
    /// Where it is in the guest.
    pub place: String,
}

/// A directory of the host that a machine has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mounted {
    /// The directory.
    pub directory: PathBuf,
    /// What the guest knows it by.
    pub tag: String,
    /// Where it is in the guest, if it was mounted for it.
    pub place: Option<String>,
    /// Nothing of it can be changed.
    pub read_only: bool,
    /// What is changed is in the guest's memory.
    pub copy_on_write: bool,
}

/// A machine that runs, in this process or another.
#[derive(Clone, Debug)]
pub struct RunningVm {
    /// What it is called where nothing else is.
    pub id: String,
    /// What it says about itself.
    pub description: Description,
    dir: PathBuf,
    occupant: Arc<Occupant>,
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Describes the machine of a runtime directory, from when on it is found.
///
/// # Errors
/// [`Error::NameTaken`] if another running machine has its name.
pub(crate) fn write(dir: &Path, description: &Description) -> Result<(), Error> {
    let Some(name) = &description.name else {
        return write_file(dir, description);
    };
    // Until this one can be seen, nobody else looks.
    let _alone =
        runtime_dir::lock_names().map_err(Error::host("cannot lock the names of machines", dir))?;
    check_name(name)?;
    write_file(dir, description)
}

/// Describes which ports lead to the machine of a runtime directory now. Its owner
/// alone does, one at a time.
pub(crate) fn set_ports(dir: &Path, ports: Vec<String>) -> Result<(), Error> {
    match described(dir) {
        Some(description) => write_file(
            dir,
            &Description {
                ports,
                ..description
            },
        ),
        None => Ok(()),
    }
}

/// Whether a machine may have this name now.
///
/// # Errors
/// [`Error::NameTaken`] if another running machine has it.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let is_taken = |vm: &RunningVm| vm.description.name.as_deref() == Some(name);
    match list().iter().any(is_taken) {
        true => Err(Error::NameTaken {
            name: name.to_owned(),
        }),
        false => Ok(()),
    }
}

fn write_file(dir: &Path, description: &Description) -> Result<(), Error> {
    let path = dir.join(FILE);
    let next = dir.join(".vm.json.tmp");
    let failed = || Error::host("cannot describe the machine", &path);
    let text = serde_json::to_vec(description).map_err(|error| failed()(error.into()))?;
    // Nothing is synced: it does not outlive the process.
    std::fs::write(&next, text).map_err(failed())?;
    std::fs::rename(&next, &path).map_err(failed())
}

/// The running machines of this user, oldest first. What cannot be read is
/// left out: it is being made or removed.
pub fn list() -> Vec<RunningVm> {
    let mut found: Vec<RunningVm> = runtime_dir::all()
        .iter()
        .filter_map(|dir| read(dir))
        .collect();
    found.sort_by_key(|vm| vm.description.started_unix_ms);
    found
}

#[cfg(feature = "cli")]
/// The machine of this id, if it runs.
pub(crate) fn of(id: &str) -> Option<RunningVm> {
    read(&runtime_dir::of(id)?)
}

/// What is written down of the machine of a runtime directory.
fn described(dir: &Path) -> Option<Description> {
    let mut text = Vec::new();
    let file = runtime_dir::open_regular(&dir.join(FILE)).ok()?;
    // What is longer is left out, not cut.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).ok()?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return None;
    }
    serde_json::from_slice(&text).ok()
}

/// The machine of a runtime directory, if it has one that runs.
fn read(dir: &Path) -> Option<RunningVm> {
    let occupant = Occupant::of(dir).ok()?;
    if !occupant.is_alive() {
        return None;
    }
    Some(RunningVm {
        id: runtime_dir::id(dir)?.to_owned(),
        description: described(dir)?,
        dir: dir.to_owned(),
        occupant: Arc::new(occupant),
    })
}

/// The machine of this name, this id, or whose id alone starts like this.
///
/// # Errors
/// [`Error::NoSuchVm`] if there is none, or more than one.
pub fn find(name: &str) -> Result<RunningVm, Error> {
    let all = list();
    let exact = |vm: &&RunningVm| vm.id == name || vm.description.name.as_deref() == Some(name);
    let mut matching: Vec<&RunningVm> = all.iter().filter(exact).collect();
    if matching.is_empty() && !name.is_empty() {
        matching = all.iter().filter(|vm| vm.id.starts_with(name)).collect();
    }
    match matching[..] {
        [vm] => Ok(vm.clone()),
        _ => Err(Error::NoSuchVm {
            name: name.to_owned(),
            count: matching.len(),
        }),
    }
}

impl RunningVm {
    /// A command to run in it.
    pub fn exec_builder(&self) -> ExecBuilder<'_> {
        ExecBuilder::new(self)
    }

    /// Runs a command and collects its output.
    ///
    /// # Errors
    /// As [`ExecBuilder::output`].
    pub fn exec<S: Into<Vec<u8>>>(
        &self,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<ExecOutcome, Error> {
        self.exec_builder().argv(argv).output()
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

    /// The durable commands of the machine, as [`crate::Vm::execs`] lists them.
    ///
    /// # Errors
    /// [`Error::Ended`] once the machine has ended.
    pub fn execs(&self) -> Result<Vec<ExecInfo>, Error> {
        exec::list(self)
    }

    /// Takes up the streams of a durable command, as [`crate::Vm::attach`] does.
    ///
    /// # Errors
    /// As [`crate::Vm::attach`].
    pub fn attach(&self, id: ExecId, from: StreamOffsets) -> Result<ExecChild, Error> {
        exec::attach(self, id, from)
    }

    /// Its runtime directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A connection of its own to the agent.
    fn channel(&self, deadline: Deadline) -> Result<Channel, Error> {
        let stream = connect(&sockets::exec(&self.dir), deadline)?;
        let channel = Channel::new(stream, Arc::new(Unwatched))?;
        channel.limit(deadline);
        Ok(channel)
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.occupant.is_alive()
    }

    /// Ends it in good order, as [`crate::Vm::shutdown`] does, and kills its worker if it
    /// has not ended after `grace`. One that is paused is not asked. Returns when the worker
    /// is gone.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the worker outlives even that,
    /// [`Error::Unsuitable`] if it is out of this process's reach.
    pub fn stop(&self, grace: Duration) -> Result<(), Error> {
        let is_asked = !grace.is_zero() && !self.is_paused();
        if is_asked {
            self.ask_to_end(grace)?;
        }
        if !is_asked || !self.ends_within(grace) {
            self.kill_worker()?;
            if !self.ends_within(KILL_TIMEOUT) {
                return Err(Error::Timeout {
                    what: "the end of a killed worker",
                    after: KILL_TIMEOUT,
                });
            }
        }
        // Its owner removes what is left. If that is gone too, nobody else does.
        let _ = runtime_dir::remove_if_abandoned(&self.dir);
        Ok(())
    }

    /// Asks on a thread, because a worker that hangs takes no connection and
    /// gives no answer. It ends with the worker, whose sockets then close.
    fn ask_to_end(&self, grace: Duration) -> Result<(), Error> {
        let vm = self.clone();
        let deadline = Deadline::within(grace);
        std::thread::Builder::new()
            .name("shutdown".into())
            .spawn(move || {
                // A guest that does not listen is dealt with by force.
                if let Ok(asked) = ask_to_end(&vm, deadline) {
                    let _ = asked.next_event(&mut Vec::new());
                }
            })
            .map(drop)
            .map_err(Error::system("start a thread"))
    }

    fn kill_worker(&self) -> Result<(), Error> {
        match self.occupant.pid() {
            Some(pid) => host::signal_if(pid, Signal::KILL, || self.occupant.pid() == Some(pid))
                .map_err(Error::system("end the worker")),
            None if self.is_running() => Err(Error::Unsuitable {
                what: "ending this machine's worker",
                needs: "a process that can see it",
            }),
            None => Ok(()),
        }
    }

    fn ends_within(&self, patience: Duration) -> bool {
        let begun = Instant::now();
        while self.is_running() {
            if begun.elapsed() >= patience {
                return false;
            }
            std::thread::sleep(OTHERS_END_PAUSE);
        }
        true
    }
}

impl Opens for RunningVm {
    fn image_config(&self) -> &ImageConfig {
        &self.description.config
    }

    fn open_session(
        &self,
        deadline: Deadline,
        queue: &dyn Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Channel, Error> {
        if self.is_paused() {
            return Err(Error::Paused);
        }
        let attempt = || {
            let channel = self.channel(deadline)?;
            channel.request(queue)?;
            channel.greeting()?;
            Ok(channel)
        };
        patiently(deadline, attempt, || {
            (!self.is_running()).then(|| Error::Ended {
                reason: "its process is gone".into(),
            })
        })
    }
}
