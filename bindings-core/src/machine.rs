//! Machines, until they are released.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use supermachine::async_::{AsyncPooledVm, AsyncVm};
use supermachine::{
    Command, Copied, CopyOptions, ExecId, ExecInfo, ExecOutcome, FileInfo, MountChange,
    TcpForwarder, UdpForwarder, UnixForwarder, WorkloadStatus,
};

use crate::begun::{Beginning, Begun};
use crate::changes::filter;
use crate::numbers::{fitting, milliseconds, whole};
use crate::{
    AttachOptions, BindingError, Cancel, Child, Events, ExecOptions, Flow, Image, Result,
    WantedChange,
};

/// A machine of its own, or one of a pool. What it is asked after it was released is
/// an error; what was asked before comes to its end, or to that of its scope.
#[derive(Debug)]
pub struct Machine {
    kind: Mutex<Option<Kind>>,
    scope: Cancel,
}

#[derive(Clone, Debug)]
enum Kind {
    Owned(AsyncVm),
    Leased(AsyncPooledVm),
}

/// What a machine has to end in good order, if nobody says otherwise: as the command line.
const GRACE: Duration = Duration::from_secs(10);

/// Calls the same method of either kind.
macro_rules! with {
    ($kind:expr, $vm:ident => $what:expr) => {
        match $kind {
            Kind::Owned($vm) => $what,
            Kind::Leased($vm) => $what,
        }
    };
}

/// Awaits the same of either kind, until the machine's scope ends.
macro_rules! of {
    ($self:expr, $vm:ident => $what:expr) => {{
        let kind = $self.get()?;
        Cancel::or(Some($self.scope.clone()), async move {
            with!(kind, $vm => $what.await.map_err(BindingError::from))
        })
        .await
    }};
}

impl Machine {
    pub(crate) fn owned(vm: AsyncVm, scope: Cancel) -> Self {
        Self::new(Kind::Owned(vm), scope)
    }

    pub(crate) fn leased(vm: AsyncPooledVm, scope: Cancel) -> Self {
        Self::new(Kind::Leased(vm), scope)
    }

    fn new(kind: Kind, scope: Cancel) -> Self {
        let kind = Mutex::new(Some(kind));
        Self { kind, scope }
    }

    fn get(&self) -> Result<Kind> {
        let kind = self.kind.lock().unwrap_or_else(PoisonError::into_inner);
        kind.clone()
            .ok_or_else(|| BindingError::released("machine"))
    }

    fn take(&self) -> Option<Kind> {
        let mut kind = self.kind.lock().unwrap_or_else(PoisonError::into_inner);
        kind.take()
    }

    /// Runs a command and collects its output. It has a minute, unless the options
    /// say otherwise. If it is cancelled, the command is killed.
    ///
    /// # Errors
    /// As [`supermachine::Vm::run`].
    pub async fn exec(&self, options: ExecOptions, cancel: Option<Cancel>) -> Result<ExecOutcome> {
        self.run(options.command()?, cancel).await
    }

    /// Asks the guest for a command as [`Machine::exec`] does, at once and without waiting
    /// if that can be: whoever waits for its end then need not be told to ask.
    ///
    /// # Errors
    /// Those of what was asked; that it was released or cancelled.
    pub fn begin(&self, options: ExecOptions, cancel: Option<&Cancel>) -> Result<Beginning> {
        let command = options.command()?;
        let kind = self.get()?;
        let cancels = [Some(&self.scope), cancel];
        if cancels.iter().flatten().any(|cancel| cancel.is_cancelled()) {
            return Err(BindingError::aborted());
        }
        let Some(begun) = with!(&kind, vm => vm.begin(&command)) else {
            return Ok(Beginning::Later(command));
        };
        let hook = |cancel: &Cancel| cancel.stops(begun.stop());
        let hooks = cancels.into_iter().flatten().map(hook).collect();
        Ok(Beginning::Begun(Begun::new(begun, hooks)))
    }

    /// Runs a command as [`Machine::exec`] does, one that was not [begun](Self::begin).
    ///
    /// # Errors
    /// As [`supermachine::Vm::run`].
    pub fn run(
        &self,
        command: Command,
        cancel: Option<Cancel>,
    ) -> impl Future<Output = Result<ExecOutcome>> + Send + use<> {
        let (kind, scope) = (self.get(), self.scope.clone());
        let run = async move {
            let kind = kind?;
            with!(kind, vm => vm.run(command).await.map_err(BindingError::from))
        };
        Cancel::or(cancel, Cancel::or(Some(scope), run))
    }

    /// Starts a command with its streams open.
    ///
    /// # Errors
    /// As [`supermachine::Vm::spawn`].
    pub async fn spawn(&self, options: ExecOptions) -> Result<Child> {
        let command = options.command()?;
        let child = of!(self, vm => vm.spawn(command))?;
        Ok(Child::new(child, self.scope.clone()))
    }

    /// Takes up the streams of a durable command, by its id.
    ///
    /// # Errors
    /// As [`supermachine::Vm::attach`]; that the id is none.
    pub async fn attach(&self, id: String, from: AttachOptions) -> Result<Child> {
        let no_id = |_| BindingError::invalid(format!("{id:?} is no command's id"));
        let (id, from) = (id.parse::<ExecId>().map_err(no_id)?, from.offsets()?);
        let child = of!(self, vm => vm.attach(id, from))?;
        Ok(Child::new(child, self.scope.clone()))
    }

    /// The durable commands of the machine, oldest first.
    ///
    /// # Errors
    /// As [`supermachine::Vm::execs`].
    pub async fn execs(&self) -> Result<Vec<ExecInfo>> {
        of!(self, vm => vm.execs())
    }

    /// Writes a file in the guest.
    ///
    /// # Errors
    /// As [`supermachine::Vm::write_file`].
    pub async fn write_file(&self, path: String, bytes: Vec<u8>) -> Result<()> {
        of!(self, vm => vm.write_file(path, bytes))
    }

    /// Reads a file of the guest.
    ///
    /// # Errors
    /// As [`supermachine::Vm::read_file`].
    pub async fn read_file(&self, path: String) -> Result<Vec<u8>> {
        of!(self, vm => vm.read_file(path))
    }

    /// Lists a directory.
    ///
    /// # Errors
    /// As [`supermachine::Vm::read_dir`].
    pub async fn read_dir(&self, path: String) -> Result<Vec<FileInfo>> {
        of!(self, vm => vm.read_dir(path))
    }

    /// Says what is at a path.
    ///
    /// # Errors
    /// As [`supermachine::Vm::stat`].
    pub async fn stat(&self, path: String) -> Result<FileInfo> {
        of!(self, vm => vm.stat(path))
    }

    /// Makes a directory, and those above it if `recursive`.
    ///
    /// # Errors
    /// As [`supermachine::Vm::mkdir`].
    pub async fn mkdir(&self, path: String, recursive: bool) -> Result<()> {
        match recursive {
            true => of!(self, vm => vm.mkdir_all(path)),
            false => of!(self, vm => vm.mkdir(path)),
        }
    }

    /// Removes a file, or a directory with all that is in it if `recursive`.
    ///
    /// # Errors
    /// As [`supermachine::Vm::remove`].
    pub async fn remove(&self, path: String, recursive: bool) -> Result<()> {
        match recursive {
            true => of!(self, vm => vm.remove_all(path)),
            false => of!(self, vm => vm.remove(path)),
        }
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// As [`supermachine::Vm::rename`].
    pub async fn rename(&self, from: String, to: String) -> Result<()> {
        of!(self, vm => vm.rename(from, to))
    }

    /// Copies a tree of the host into the guest.
    ///
    /// # Errors
    /// As [`supermachine::Vm::copy_in`].
    pub async fn copy_in(&self, host: PathBuf, guest: String) -> Result<Copied> {
        let options = CopyOptions::default();
        of!(self, vm => vm.copy_in(host, guest, options))
    }

    /// Copies a tree out of the guest.
    ///
    /// # Errors
    /// As [`supermachine::Vm::copy_out`].
    pub async fn copy_out(&self, guest: String, host: PathBuf) -> Result<Copied> {
        let options = CopyOptions::default();
        of!(self, vm => vm.copy_out(guest, host, options))
    }

    /// What the guest has changed of the copy-on-write mount with this tag.
    ///
    /// # Errors
    /// As [`supermachine::Vm::mount_changes`].
    pub async fn mount_changes(&self, tag: String) -> Result<Vec<MountChange>> {
        of!(self, vm => vm.mount_changes(tag))
    }

    /// Makes changes of a copy-on-write mount the host's: those that were listed and are
    /// `wanted`, or all. Which were made.
    ///
    /// # Errors
    /// As [`supermachine::Vm::apply_changes`].
    pub async fn apply_changes(
        &self,
        tag: String,
        wanted: Option<Vec<WantedChange>>,
    ) -> Result<Vec<MountChange>> {
        of!(self, vm => vm.apply_changes(tag, filter(wanted)))
    }

    /// Writes the same into an archive, a file of the host, in the place of what has its
    /// name. It is there with all of it or not at all.
    ///
    /// # Errors
    /// As [`supermachine::Vm::export_changes_to`].
    pub async fn export_changes(
        &self,
        tag: String,
        file: PathBuf,
        wanted: Option<Vec<WantedChange>>,
    ) -> Result<Copied> {
        of!(self, vm => vm.export_changes_to(tag, file, filter(wanted)))
    }

    /// Grows a volume that the machine has.
    ///
    /// # Errors
    /// As [`supermachine::Vm::grow_volume`].
    pub async fn grow_volume(&self, name: String, size_mib: f64) -> Result<()> {
        let size_mib = whole("sizeMib", size_mib, 1)?;
        of!(self, vm => vm.grow_volume(name, size_mib))
    }

    /// Connects a TCP port of the host's loopback interface to one of the guest; 0 for
    /// one that is free.
    ///
    /// # Errors
    /// As [`supermachine::Vm::expose_tcp`].
    pub async fn expose_tcp(&self, host_port: f64, guest_port: f64) -> Result<TcpForwarder> {
        let host_port = fitting("hostPort", host_port, 0)?;
        let guest_port = fitting("guestPort", guest_port, 1)?;
        of!(self, vm => vm.expose_tcp(host_port, guest_port))
    }

    /// The same of a UDP port.
    ///
    /// # Errors
    /// As [`supermachine::Vm::expose_udp`].
    pub async fn expose_udp(&self, host_port: f64, guest_port: f64) -> Result<UdpForwarder> {
        let host_port = fitting("hostPort", host_port, 0)?;
        let guest_port = fitting("guestPort", guest_port, 1)?;
        of!(self, vm => vm.expose_udp(host_port, guest_port))
    }

    /// Connects a Unix socket of the host to a TCP port of the guest.
    ///
    /// # Errors
    /// As [`supermachine::Vm::expose_unix`].
    pub async fn expose_unix(&self, host: PathBuf, guest_port: f64) -> Result<UnixForwarder> {
        let guest_port = fitting("guestPort", guest_port, 1)?;
        of!(self, vm => vm.expose_unix(host, guest_port))
    }

    /// What happens to the machine from now on.
    ///
    /// # Errors
    /// As [`supermachine::Vm::events`].
    pub async fn events(&self) -> Result<Events> {
        let events = of!(self, vm => vm.events())?;
        Ok(Events::new(events, self.scope.clone()))
    }

    /// What became of the guest's flows.
    ///
    /// # Errors
    /// As [`supermachine::Vm::network_log`].
    pub async fn network_log(&self) -> Result<Vec<Flow>> {
        let flows = of!(self, vm => vm.network_log())?;
        Ok(flows.into_iter().map(Flow::from).collect())
    }

    /// Sends the workload a signal.
    ///
    /// # Errors
    /// As [`supermachine::Vm::workload_signal`].
    pub async fn workload_signal(&self, number: f64) -> Result<()> {
        let number = fitting("signum", number, 1)?;
        of!(self, vm => vm.workload_signal(number))
    }

    /// Tells how the workload is doing.
    ///
    /// # Errors
    /// As [`supermachine::Vm::workload_status`].
    pub async fn workload_status(&self) -> Result<WorkloadStatus> {
        of!(self, vm => vm.workload_status())
    }

    /// Makes a snapshot of the running machine.
    ///
    /// # Errors
    /// As [`supermachine::Vm::snapshot`].
    pub async fn snapshot(&self, directory: PathBuf) -> Result<Image> {
        let image = of!(self, vm => vm.snapshot(directory))?;
        Ok(Image::new(image, self.scope.clone()))
    }

    /// Makes children that go on where this machine is.
    ///
    /// # Errors
    /// As [`supermachine::Vm::fork`].
    pub async fn fork(&self, count: f64) -> Result<Vec<Self>> {
        let count = fitting("count", count, 1)?;
        let children = of!(self, vm => vm.fork(count))?;
        let owned = |vm| Self::owned(vm, self.scope.clone());
        Ok(children.into_iter().map(owned).collect())
    }

    /// Pauses the machine.
    ///
    /// # Errors
    /// As [`supermachine::Vm::pause`].
    pub async fn pause(&self) -> Result<()> {
        of!(self, vm => vm.pause())
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// As [`supermachine::Vm::resume`].
    pub async fn resume(&self) -> Result<()> {
        of!(self, vm => vm.resume())
    }

    /// What it has used so far, as JSON.
    ///
    /// # Errors
    /// As [`supermachine::Vm::stats`].
    pub async fn stats(&self) -> Result<serde_json::Value> {
        let stats = of!(self, vm => vm.stats())?;
        serde_json::to_value(&stats).map_err(|error| BindingError::invalid(error.to_string()))
    }

    /// The end of its console.
    ///
    /// # Errors
    /// As [`supermachine::Vm::console_log`].
    pub async fn console_log(&self) -> Result<String> {
        of!(self, vm => vm.console_log())
    }

    /// What it is called where nothing else is.
    ///
    /// # Errors
    /// That it was released.
    pub fn id(&self) -> Result<String> {
        Ok(with!(self.get()?, vm => vm.id().to_owned()))
    }

    /// Name of the engine that runs the guest.
    ///
    /// # Errors
    /// That it was released.
    pub fn engine(&self) -> Result<String> {
        Ok(with!(self.get()?, vm => vm.engine().to_owned()))
    }

    /// Whether somebody has paused it.
    ///
    /// # Errors
    /// That it was released.
    pub fn is_paused(&self) -> Result<bool> {
        Ok(with!(self.get()?, vm => vm.is_paused()))
    }

    /// Where a client of one's own reaches ports of the guest.
    ///
    /// # Errors
    /// That it was released.
    pub fn vsock_path(&self) -> Result<PathBuf> {
        Ok(with!(self.get()?, vm => vm.vsock_path()))
    }

    /// Where a client of one's own reaches the agent.
    ///
    /// # Errors
    /// That it was released.
    pub fn exec_path(&self) -> Result<PathBuf> {
        Ok(with!(self.get()?, vm => vm.exec_path()))
    }

    /// Gives the machine back to its pool, or stops it if it has none, whether the future
    /// is polled or not. Again is no mistake.
    ///
    /// # Errors
    /// As [`supermachine::Vm::stop`].
    pub fn release(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let taken = self.take();
        async move {
            match taken {
                Some(Kind::Owned(vm)) => Ok(vm.stop().await?),
                // Its drop gives it back, and does not wait for that.
                Some(Kind::Leased(_)) | None => Ok(()),
            }
        }
    }

    /// Stops a machine of its own in good order: its workload gets its stop signal, and the
    /// guest writes its caches out. Whether it did in that time.
    ///
    /// # Errors
    /// As [`supermachine::Vm::shutdown`]; that it is one of a pool.
    pub fn shutdown(
        &self,
        grace_ms: Option<f64>,
    ) -> impl Future<Output = Result<bool>> + Send + use<> {
        let grace = milliseconds("graceMs", grace_ms);
        let ends = grace.and_then(|grace| Ok((self.take_owned()?, grace.unwrap_or(GRACE))));
        async move {
            let (vm, grace) = ends?;
            Ok(vm.shutdown(grace).await?)
        }
    }

    fn take_owned(&self) -> Result<AsyncVm> {
        let mut kind = self.kind.lock().unwrap_or_else(PoisonError::into_inner);
        match kind.take() {
            Some(Kind::Owned(vm)) => Ok(vm),
            Some(leased) => {
                *kind = Some(leased);
                Err(BindingError::invalid(
                    "a machine of a pool is not shut down: release it",
                ))
            }
            None => Err(BindingError::released("machine")),
        }
    }

    /// Lets go of it without waiting; whoever collects garbage calls this.
    pub fn let_go(&self) {
        drop(self.take());
    }
}
