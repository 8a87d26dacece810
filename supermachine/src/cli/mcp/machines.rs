//! The machines of one client, and the bounds on them.

use super::tools::{
    Captured, Content, Encoding, Exec, Fork, Ids, Outcome, ReadFile, Run, Snapshot, Started, Stop,
    WriteFile, Written,
};
use crate::async_::{AsyncImage, AsyncVm};
use crate::cli::image::ImageArguments;
use crate::cli::source::Source;
use crate::error::with_causes;
use crate::exec::tasks::blocking;
use crate::{Command, Error, FileOptions, Image, PullPolicy, VmConfig, snapshots_dir};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oci_bake::{Cancel, Reference, Transport};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Calls that are served at once; others wait for their turn. Each has a thread.
pub const MAX_CALLS: usize = 32;
/// Put before the names that clients give their snapshots, so that they replace none of
/// the user's.
const SNAPSHOT_PREFIX: &str = "mcp-";
/// Longest name of a snapshot.
const MAX_NAME_BYTES: usize = 64;

/// What a client may have.
#[derive(Clone, Debug)]
pub struct Limits {
    pub machines: usize,
    pub memory_mib: usize,
    pub max_memory_mib: usize,
    pub max_vcpus: u32,
    pub timeout: Duration,
    pub output_bytes: usize,
    pub snapshots: usize,
}

/// Why a call has no reply, in words for the client.
#[derive(Debug)]
pub struct Refusal(String);

impl Refusal {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(with_causes(&error))
    }
}

/// The machines that run, and those that are about to.
#[derive(Debug, Default)]
struct State {
    running: BTreeMap<u64, AsyncVm>,
    starting: usize,
    /// Number of the machine that was started last.
    last: u64,
    /// No machine starts any more.
    is_closed: bool,
}

pub struct Machines {
    config: VmConfig,
    limits: Limits,
    image: ImageArguments,
    /// All that may be run, if it is not empty.
    images: Vec<String>,
    state: Mutex<State>,
    calls: Semaphore,
    /// Snapshots are counted and made one after the other.
    capturing: tokio::sync::Mutex<()>,
}

/// Room for machines that are about to start.
struct Room<'a> {
    machines: &'a Machines,
    count: usize,
}

impl Room<'_> {
    /// Has the machines run under new ids.
    fn fill(self, vms: Vec<AsyncVm>) -> Result<Vec<String>, Refusal> {
        let mut state = self.machines.state();
        if state.is_closed {
            return Err(Refusal::new("the server ends"));
        }
        let mut ids = Vec::with_capacity(vms.len());
        for vm in vms {
            state.last += 1;
            let number = state.last;
            state.running.insert(number, vm);
            ids.push(id(number));
        }
        Ok(ids)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut state = self.machines.state();
        state.starting = state.starting.saturating_sub(self.count);
    }
}

fn id(number: u64) -> String {
    format!("m{number}")
}

impl Machines {
    pub fn new(
        config: VmConfig,
        limits: Limits,
        image: ImageArguments,
        images: Vec<String>,
    ) -> Self {
        Self {
            config,
            limits,
            image,
            images,
            state: Mutex::default(),
            calls: Semaphore::new(MAX_CALLS),
            capturing: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, machine: &str) -> Result<AsyncVm, Refusal> {
        let number = machine.strip_prefix('m').and_then(|text| text.parse().ok());
        let state = self.state();
        let found: Option<AsyncVm> =
            number.and_then(|number: u64| state.running.get(&number).cloned());
        found.ok_or_else(|| {
            Refusal::new(format!(
                "no machine `{}` runs: `list` names those that do",
                exec_proto::Printable::line(machine)
            ))
        })
    }

    fn room_for(&self, count: usize) -> Result<Room<'_>, Refusal> {
        let mut state = self.state();
        let taken = state.running.len() + state.starting;
        if count == 0 || count > self.limits.machines.saturating_sub(taken) {
            return Err(Refusal::new(format!(
                "{count} more machines are too many: {taken} run, and {} may; `stop` one",
                self.limits.machines
            )));
        }
        state.starting += count;
        Ok(Room {
            machines: self,
            count,
        })
    }

    /// Waits for a turn. Who ends machines does not.
    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Refusal> {
        let turn = self.calls.acquire().await;
        turn.map_err(|_| Refusal::new("the server ends"))
    }

    pub async fn run(
        &self,
        asked: Run,
        cancelled: impl Future<Output = ()>,
    ) -> Result<Started, Refusal> {
        let command = match &asked.command {
            Some(argv) => Some(self.command(argv, asked.timeout_seconds)?),
            None => None,
        };
        let config = self.config_of(&asked)?;
        let source = self.source(&asked.image)?;
        let room = self.room_for(1)?;
        let _turn = self.turn().await?;
        let mut cancelled = pin!(cancelled);
        let vm = {
            let cancel = Cancel::default();
            let mut starting = pin!(self.start(source, &config, cancel.clone()));
            tokio::select! {
                started = &mut starting => started?,
                () = &mut cancelled => {
                    cancel.cancel();
                    return Err(Error::Cancelled.into());
                }
            }
        };
        let ids = room.fill(vec![vm.clone()])?;
        let machine = ids.into_iter().next().unwrap_or_default();
        let outcome = match command {
            Some(command) => Some(outcome_of(&vm, command, cancelled).await?),
            None => None,
        };
        Ok(Started { machine, outcome })
    }

    fn config_of(&self, asked: &Run) -> Result<VmConfig, Refusal> {
        let memory_mib = asked.memory_mib.unwrap_or(self.limits.memory_mib);
        let vcpus = asked.vcpus.unwrap_or(1);
        if memory_mib > self.limits.max_memory_mib || vcpus > self.limits.max_vcpus {
            return Err(Refusal::new(format!(
                "a machine may have {} MiB and {} virtual CPUs at the most",
                self.limits.max_memory_mib, self.limits.max_vcpus
            )));
        }
        let mut config = self.config.clone().with_memory_mib(memory_mib);
        if asked.vcpus.is_some() {
            config = config.with_vcpus(vcpus);
        }
        Ok(config)
    }

    /// What a client's word for an image stands for, if it may run that.
    fn source(&self, reference: &str) -> Result<Source, Refusal> {
        if self.images.iter().any(|image| image == reference) {
            return Ok(Source::of(reference)?);
        }
        let shown = exec_proto::Printable::line(reference);
        let snapshot = snapshots_dir().ok().filter(|root| {
            let store = snapshot::Store::existing(root);
            store.is_ok_and(|store| store.current(reference).is_ok())
        });
        let is_own = reference.starts_with(SNAPSHOT_PREFIX) && snapshot.is_some();
        if !self.images.is_empty() && !is_own {
            return Err(Refusal::new(format!(
                "`{shown}` may not be run here; this may: {}",
                self.images.join(", ")
            )));
        }
        if let Some(root) = snapshot {
            return Ok(Source::Snapshot(root.join(reference)));
        }
        // Every other form names something on the host.
        let parsed = Reference::parse(reference).map_err(Error::from)?;
        if parsed.transport() != Transport::Registry {
            return Err(Refusal::new(format!(
                "`{shown}` names a file or service of the host: only images of registries and \
                 snapshots may be run, or what the server was started with as --image"
            )));
        }
        Ok(Source::Image(reference.to_owned()))
    }

    async fn start(
        &self,
        source: Source,
        config: &VmConfig,
        cancel: Cancel,
    ) -> Result<AsyncVm, Error> {
        let image = match source {
            Source::Snapshot(path) => {
                let config = config.clone();
                blocking(move || Image::from_snapshot_with(path, &config)).await?
            }
            Source::Image(reference) => {
                let (fetch, mut options) = self.image.fetch(PullPolicy::Missing)?;
                options.cancel = cancel;
                let config = config.clone();
                blocking(move || {
                    let cache = crate::image::default_cache()?;
                    let image = Image::load_with(&reference, &cache, &fetch, &options)?;
                    let builder = Image::builder(reference).vm_config(config);
                    builder.build_on(&image)
                })
                .await?
            }
        };
        AsyncImage::from(image).start(config).await
    }

    fn command(&self, argv: &[String], seconds: Option<f64>) -> Result<Command, Refusal> {
        if argv.is_empty() {
            return Err(Refusal::new("the command is empty: name a program"));
        }
        let timeout = match seconds.map(Duration::try_from_secs_f64) {
            None => self.limits.timeout,
            Some(Ok(time)) if !time.is_zero() && time <= self.limits.timeout => time,
            Some(_) => {
                return Err(Refusal::new(format!(
                    "a command may take {} seconds at the most",
                    self.limits.timeout.as_secs_f64()
                )));
            }
        };
        Ok(Command::new(argv.iter().map(String::as_bytes))
            .timeout(timeout)
            .max_output_bytes(self.limits.output_bytes)
            .truncate_output(true))
    }

    pub async fn exec(
        &self,
        asked: Exec,
        cancelled: impl Future<Output = ()>,
    ) -> Result<Outcome, Refusal> {
        let vm = self.find(&asked.machine)?;
        let mut command = self.command(&asked.command, asked.timeout_seconds)?;
        if let Some(stdin) = asked.stdin {
            command = command.stdin(stdin);
        }
        if let Some(cwd) = asked.cwd {
            command = command.cwd(cwd);
        }
        if let Some(user) = asked.user {
            command = command.user(user);
        }
        for (name, value) in asked.env {
            command = command.env(name, value);
        }
        let _turn = self.turn().await?;
        outcome_of(&vm, command, pin!(cancelled)).await
    }

    pub async fn read_file(&self, asked: ReadFile) -> Result<Content, Refusal> {
        let vm = self.find(&asked.machine)?;
        let options = FileOptions {
            max_bytes: self.limits.output_bytes as u64,
            ..FileOptions::default()
        };
        let _turn = self.turn().await?;
        let bytes = vm.read_file_with(asked.path, options).await?;
        Ok(match String::from_utf8(bytes) {
            Ok(content) => Content {
                content,
                encoding: Encoding::Utf8,
            },
            Err(bytes) => Content {
                content: BASE64.encode(bytes.as_bytes()),
                encoding: Encoding::Base64,
            },
        })
    }

    pub async fn write_file(&self, asked: WriteFile) -> Result<Written, Refusal> {
        let vm = self.find(&asked.machine)?;
        let content = match asked.encoding {
            Encoding::Utf8 => asked.content.into_bytes(),
            Encoding::Base64 => BASE64
                .decode(asked.content)
                .map_err(|error| Refusal::new(format!("the content is no base 64: {error}")))?,
        };
        let options = FileOptions {
            // The longest message that is taken is shorter.
            max_bytes: u64::MAX,
            mode: if asked.executable { 0o755 } else { 0o644 },
        };
        let bytes = content.len();
        let _turn = self.turn().await?;
        vm.write_file_with(asked.path, content, options).await?;
        Ok(Written { bytes })
    }

    pub async fn snapshot(&self, asked: Snapshot) -> Result<Captured, Refusal> {
        let vm = self.find(&asked.machine)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let name = asked.name;
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain) {
            return Err(Refusal::new(format!(
                "the name of a snapshot is 1 to {MAX_NAME_BYTES} letters, digits, `-` or `_`"
            )));
        }
        let image = format!("{SNAPSHOT_PREFIX}{name}");
        let root = snapshots_dir()?;
        let _turn = self.turn().await?;
        let _one = self.capturing.lock().await;
        let is_new = !root.join(&image).exists();
        if is_new && count(&root)? >= self.limits.snapshots {
            return Err(Refusal::new(format!(
                "there are {} snapshots of clients, and no more may be made: replace one, or \
                 have the user remove some with `supermachine snapshot rm`",
                self.limits.snapshots
            )));
        }
        vm.snapshot(root.join(&image)).await?;
        Ok(Captured { image })
    }

    pub async fn fork(&self, asked: Fork) -> Result<Ids, Refusal> {
        let vm = self.find(&asked.machine)?;
        let count = asked.count.unwrap_or(1);
        let room = self.room_for(count)?;
        let _turn = self.turn().await?;
        let machines = room.fill(vm.fork(count).await?)?;
        Ok(Ids { machines })
    }

    pub async fn stop(&self, asked: Stop) -> Result<Ids, Refusal> {
        let vm = self.find(&asked.machine)?;
        self.state()
            .running
            .retain(|number, _| id(*number) != asked.machine);
        vm.stop().await?;
        Ok(self.list())
    }

    pub fn list(&self) -> Ids {
        let machines = self.state().running.keys().copied().map(id).collect();
        Ids { machines }
    }

    /// Ends all machines, and lets no other start.
    pub async fn stop_all(&self) {
        self.calls.close();
        let running = {
            let mut state = self.state();
            state.is_closed = true;
            std::mem::take(&mut state.running)
        };
        let ending: Vec<_> = running
            .into_values()
            .map(|vm| tokio::spawn(vm.stop()))
            .collect();
        for end in ending {
            // What cannot be stopped in good order was killed.
            let _ = end.await;
        }
    }
}

/// Runs a command, until it ends or the client takes the call back: that kills it.
async fn outcome_of(
    vm: &AsyncVm,
    command: Command,
    cancelled: impl Future<Output = ()>,
) -> Result<Outcome, Refusal> {
    let outcome = tokio::select! {
        outcome = vm.run(command) => outcome?,
        () = cancelled => return Err(Error::Cancelled.into()),
    };
    Ok(Outcome {
        status: outcome.status.shell_status(),
        stdout: String::from_utf8_lossy(&outcome.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&outcome.stderr).into_owned(),
        timed_out: outcome.timed_out,
        truncated: outcome.truncated,
        seconds: outcome.duration.as_secs_f64(),
    })
}

/// How many snapshots there are that clients made.
fn count(root: &PathBuf) -> Result<usize, Error> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(Error::host("cannot list snapshots in", root)(error)),
    };
    let is_clients = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(SNAPSHOT_PREFIX);
    Ok(entries
        .filter_map(Result::ok)
        .filter(|entry| is_clients(&entry.file_name()))
        .count())
}

#[cfg(test)]
mod tests;
