//! The same types for programs that use tokio: what blocks runs on tokio's
//! threads for that.
//!
//! Dropping the future of a command kills the command, with all its descendants, and
//! the machine is free at once. So does dropping that of a call for files, of a copy, of
//! changes of a mount, or of a snapshot that is not published yet, within a tenth of a
//! second: what is whole by then stays, and nothing is half there. A machine, child or
//! port that is there too late for who asked is let go of. Dropping the future of
//! [`AsyncPool::acquire`] leaves the line. What else was begun goes on to its end.

mod abandoned;
mod files;

use crate::exec::tasks::{self, blocking};
use crate::{
    Command, CopyReport, Error, ExecId, ExecInfo, ExecOutcome, Image, NetworkFlow, OciImageBuilder,
    Pool, PoolBuilder, PoolMetrics, PoolStats, PooledVm, StreamOffsets, TcpForwarder, UdpForwarder,
    UnixForwarder, Vm, VmConfig, VmEvents, VmStats, VmStatus, WorkloadStatus,
};
use abandoned::{Unclaimed, while_wanted};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;

pub use crate::exec::tasks::{AsyncExecChild, AsyncExecOutput, AsyncExecStdin};
pub use crate::exec::{ExecBegun, ExecStop};

/// An [`Image`].
#[derive(Clone, Debug)]
pub struct AsyncImage(Image);

impl AsyncImage {
    /// Loads an image as [`Image::load`] does, on a thread that may block.
    ///
    /// # Errors
    /// As [`Image::load`].
    pub async fn load(reference: impl Into<String>) -> Result<Self, Error> {
        let reference = reference.into();
        blocking(move || Image::load(&reference).map(Self)).await
    }

    /// Opens a snapshot as [`Image::from_snapshot`] does.
    ///
    /// # Errors
    /// As [`Image::from_snapshot`].
    pub async fn from_snapshot(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        blocking(move || Image::from_snapshot(path).map(Self)).await
    }

    /// Bakes an image, or finds it baked, as [`OciImageBuilder::build`] does.
    ///
    /// # Errors
    /// As [`OciImageBuilder::build`].
    pub async fn build(builder: OciImageBuilder) -> Result<Self, Error> {
        blocking(move || builder.build().map(Self)).await
    }

    /// Starts a machine as [`Image::start`] does.
    ///
    /// # Errors
    /// As [`Image::start`].
    pub async fn start(&self, config: &VmConfig) -> Result<AsyncVm, Error> {
        let (image, config) = (self.0.clone(), config.clone());
        blocking(move || image.start(&config).map(AsyncVm::new)).await
    }

    /// Leases a machine of the image's pool as [`Image::acquire`] does.
    ///
    /// # Errors
    /// As [`Image::acquire`].
    pub async fn acquire(&self) -> Result<AsyncPooledVm, Error> {
        self.acquire_with(&VmConfig::new()).await
    }

    /// Leases a machine of the pool for a configuration as [`Image::acquire_with`]
    /// does.
    ///
    /// # Errors
    /// As [`Image::acquire_with`].
    pub async fn acquire_with(&self, config: &VmConfig) -> Result<AsyncPooledVm, Error> {
        let (image, config) = (self.0.clone(), config.clone());
        let pool = blocking(move || image.pool_for(&config)).await?;
        AsyncPool(pool).acquire().await
    }

    /// Builds a pool of the image as [`PoolBuilder::build`] does, set up by
    /// `configure`.
    ///
    /// # Errors
    /// As [`PoolBuilder::build`].
    pub async fn pool(
        &self,
        configure: impl FnOnce(PoolBuilder) -> PoolBuilder,
    ) -> Result<AsyncPool, Error> {
        let builder = configure(self.0.pool());
        blocking(move || builder.build().map(AsyncPool)).await
    }

    /// The image itself.
    pub fn image(&self) -> &Image {
        &self.0
    }
}

impl From<Image> for AsyncImage {
    fn from(image: Image) -> Self {
        Self(image)
    }
}

/// A [`Pool`].
#[derive(Clone, Debug)]
pub struct AsyncPool(Pool);

impl From<Pool> for AsyncPool {
    fn from(pool: Pool) -> Self {
        Self(pool)
    }
}

impl AsyncPool {
    /// Leases a machine as [`Pool::acquire`] does. Waits without a thread, and in line
    /// from this call on, whenever the future is polled first.
    ///
    /// # Errors
    /// As [`Pool::acquire`].
    pub fn acquire(&self) -> impl Future<Output = Result<AsyncPooledVm, Error>> + Send + use<> {
        self.lease(None)
    }

    /// Leases a machine for a tenant as [`Pool::acquire_for`] does. Waits as
    /// [`AsyncPool::acquire`].
    ///
    /// # Errors
    /// As [`Pool::acquire_for`].
    pub fn acquire_for(
        &self,
        tenant: &str,
    ) -> impl Future<Output = Result<AsyncPooledVm, Error>> + Send + use<> {
        self.lease(Some(tenant))
    }

    fn lease(
        &self,
        tenant: Option<&str>,
    ) -> impl Future<Output = Result<AsyncPooledVm, Error>> + Send + use<> {
        let (ticket, hooks) = (self.0.ticket(tenant), self.0.hooks());
        async move {
            let leased = ticket.await?;
            let leased = if leased.clock_is_off() || hooks.handed_out.is_some() {
                blocking(move || leased.ready(&hooks)).await?
            } else {
                leased
            };
            Ok(AsyncPooledVm {
                vm: Arc::new(leased),
            })
        }
    }

    /// Counts the pool's machines as [`Pool::stats`] does.
    pub fn stats(&self) -> PoolStats {
        self.0.stats()
    }

    /// What the pool has done so far, as [`Pool::metrics`] tells.
    pub fn metrics(&self) -> PoolMetrics {
        self.0.metrics()
    }

    /// Ends all machines of the pool as [`Pool::shutdown`] does.
    pub async fn shutdown(&self) {
        let pool = self.0.clone();
        // It has no result but the runtime's own end.
        let _ = spawn_blocking(move || pool.shutdown()).await;
    }

    /// Waits for machines in use, up to `patience`, and ends all, as
    /// [`Pool::shutdown_within`] does.
    pub async fn shutdown_within(&self, patience: Duration) {
        let pool = self.0.clone();
        let _ = spawn_blocking(move || pool.shutdown_within(patience)).await;
    }
}

/// What both kinds of machines can do.
macro_rules! machine {
    ($name:ident) => {
        impl $name {
            /// Runs a command and collects its output, as [`Vm::exec`] does.
            ///
            /// # Errors
            /// As [`Vm::exec`].
            pub async fn exec<S: Into<Vec<u8>>>(
                &self,
                argv: impl IntoIterator<Item = S>,
            ) -> Result<ExecOutcome, Error> {
                self.run(Command::new(argv)).await
            }

            /// Runs a command that was built before, as [`Vm::run`] does. Dropping the
            /// future kills the command.
            ///
            /// # Errors
            /// As [`Vm::run`].
            pub async fn run(&self, command: Command) -> Result<ExecOutcome, Error> {
                tasks::run(self.vm.clone(), command).await
            }

            /// Begins a command whose output is to be collected, if that can be done without
            /// waiting, for a thread that waits for its end itself. `None` if not: it is for
            /// [`Self::run`] then.
            pub fn begin(&self, command: &Command) -> Option<ExecBegun> {
                ExecBegun::ask(&self.vm, command)
            }

            /// Starts a command with its streams open, as [`Vm::spawn`] does. Dropping the
            /// future kills it, also if it is durable.
            ///
            /// # Errors
            /// As [`Vm::spawn`].
            pub async fn spawn(&self, command: Command) -> Result<AsyncExecChild, Error> {
                let vm = self.vm.clone();
                let spawned = blocking(move || vm.spawn(&command).map(Unclaimed::new)).await?;
                spawned.claim()
            }

            /// Takes up the streams of a durable command, as [`Vm::attach`] does.
            ///
            /// # Errors
            /// As [`Vm::attach`].
            pub async fn attach(
                &self,
                id: ExecId,
                from: StreamOffsets,
            ) -> Result<AsyncExecChild, Error> {
                tasks::attach(self.vm.clone(), id, from).await
            }

            /// Lists the durable commands, as [`Vm::execs`] does.
            ///
            /// # Errors
            /// As [`Vm::execs`].
            pub async fn execs(&self) -> Result<Vec<ExecInfo>, Error> {
                while_wanted(&self.vm, |vm| vm.execs()).await
            }

            /// Makes a snapshot of the running machine, as [`Vm::snapshot`] does.
            ///
            /// # Errors
            /// As [`Vm::snapshot`].
            pub async fn snapshot(&self, dest: impl Into<PathBuf>) -> Result<AsyncImage, Error> {
                let dest = dest.into();
                while_wanted(&self.vm, move |vm| vm.snapshot(dest).map(AsyncImage)).await
            }

            /// Makes children of the running machine, as [`Vm::fork`] does.
            ///
            /// # Errors
            /// As [`Vm::fork`].
            pub async fn fork(&self, count: usize) -> Result<Vec<AsyncVm>, Error> {
                let vm = self.vm.clone();
                let children = blocking(move || vm.fork(count)).await?;
                Ok(children.into_iter().map(AsyncVm::new).collect())
            }

            /// Tells how the machine is doing, as [`Vm::status`] does.
            ///
            /// # Errors
            /// As [`Vm::status`].
            pub async fn status(&self) -> Result<VmStatus, Error> {
                let vm = self.vm.clone();
                blocking(move || vm.status()).await
            }

            /// Pauses the machine, as [`Vm::pause`] does.
            ///
            /// # Errors
            /// As [`Vm::pause`].
            pub async fn pause(&self) -> Result<(), Error> {
                while_wanted(&self.vm, |vm| vm.pause()).await
            }

            /// Lets the machine go on, as [`Vm::resume`] does.
            ///
            /// # Errors
            /// As [`Vm::resume`].
            pub async fn resume(&self) -> Result<(), Error> {
                let vm = self.vm.clone();
                blocking(move || vm.resume()).await
            }

            /// Whether somebody has paused it, as [`Vm::is_paused`] tells.
            pub fn is_paused(&self) -> bool {
                self.vm.is_paused()
            }

            /// What the machine has used so far, as [`Vm::stats`] tells.
            ///
            /// # Errors
            /// As [`Vm::stats`].
            pub async fn stats(&self) -> Result<VmStats, Error> {
                let vm = self.vm.clone();
                blocking(move || vm.stats()).await
            }

            /// What became of the guest's flows, as [`Vm::network_log`] tells.
            ///
            /// # Errors
            /// As [`Vm::network_log`].
            pub async fn network_log(&self) -> Result<Vec<NetworkFlow>, Error> {
                let vm = self.vm.clone();
                blocking(move || vm.network_log()).await
            }

            /// Grows a volume that the machine has, as [`Vm::grow_volume`] does.
            ///
            /// # Errors
            /// As [`Vm::grow_volume`].
            pub async fn grow_volume(
                &self,
                name: impl Into<String>,
                size_mib: u64,
            ) -> Result<(), Error> {
                let (vm, name) = (self.vm.clone(), name.into());
                blocking(move || vm.grow_volume(&name, size_mib)).await
            }

            /// The end of its console, as [`Vm::console_log`] tells.
            ///
            /// # Errors
            /// As [`Vm::console_log`].
            pub async fn console_log(&self) -> Result<String, Error> {
                let vm = self.vm.clone();
                blocking(move || vm.console_log()).await
            }

            /// What happens to it from now on, as [`Vm::events`] tells: for
            /// [`VmEvents::next_event`].
            ///
            /// # Errors
            /// As [`Vm::events`].
            pub async fn events(&self) -> Result<VmEvents, Error> {
                let vm = self.vm.clone();
                blocking(move || vm.events()).await
            }

            /// Tells how the workload is doing, as [`Vm::workload_status`] does.
            ///
            /// # Errors
            /// As [`Vm::workload_status`].
            pub async fn workload_status(&self) -> Result<WorkloadStatus, Error> {
                let vm = self.vm.clone();
                blocking(move || vm.workload_status()).await
            }

            /// Sends the workload a signal, as [`Vm::workload_signal`] does.
            ///
            /// # Errors
            /// As [`Vm::workload_signal`].
            pub async fn workload_signal(&self, number: u32) -> Result<(), Error> {
                let vm = self.vm.clone();
                blocking(move || vm.workload_signal(number)).await
            }

            /// Connects to a port of the guest, as [`Vm::connect`] does. The stream
            /// blocks: for use with tokio, set it non-blocking and give it to tokio's
            /// `UnixStream::from_std`.
            ///
            /// # Errors
            /// As [`Vm::connect`].
            pub async fn connect(&self, port: u32) -> Result<UnixStream, Error> {
                let vm = self.vm.clone();
                blocking(move || vm.connect(port)).await
            }

            /// Connects a TCP port of the host to one of the guest, as [`Vm::expose_tcp`]
            /// does.
            ///
            /// # Errors
            /// As [`Vm::expose_tcp`].
            pub async fn expose_tcp(
                &self,
                host_port: u16,
                guest_port: u16,
            ) -> Result<TcpForwarder, Error> {
                let vm = self.vm.clone();
                blocking(move || vm.expose_tcp(host_port, guest_port)).await
            }

            /// Connects a UDP port of the host to one of the guest, as [`Vm::expose_udp`]
            /// does.
            ///
            /// # Errors
            /// As [`Vm::expose_udp`].
            pub async fn expose_udp(
                &self,
                host_port: u16,
                guest_port: u16,
            ) -> Result<UdpForwarder, Error> {
                let vm = self.vm.clone();
                blocking(move || vm.expose_udp(host_port, guest_port)).await
            }

            /// Connects a Unix socket of the host to a port of the guest, as
            /// [`Vm::expose_unix`] does.
            ///
            /// # Errors
            /// As [`Vm::expose_unix`].
            pub async fn expose_unix(
                &self,
                host_path: impl Into<PathBuf>,
                guest_port: u16,
            ) -> Result<UnixForwarder, Error> {
                let (vm, path) = (self.vm.clone(), host_path.into());
                blocking(move || vm.expose_unix(path, guest_port)).await
            }

            /// Where clients of one's own reach ports of the guest: [`Vm::vsock_path`].
            pub fn vsock_path(&self) -> PathBuf {
                self.vm.vsock_path()
            }

            /// Where clients of one's own reach the agent: [`Vm::exec_path`].
            pub fn exec_path(&self) -> PathBuf {
                self.vm.exec_path().to_path_buf()
            }

            /// What it is called where nothing else is, as [`Vm::id`] tells.
            pub fn id(&self) -> &str {
                self.vm.id()
            }

            /// Name of the engine that runs the guest: [`Vm::engine`].
            pub fn engine(&self) -> &str {
                self.vm.engine()
            }

            /// What was done to make the machine a copy, as [`Vm::copy_report`] tells.
            pub fn copy_report(&self) -> Option<CopyReport> {
                self.vm.copy_report()
            }
        }
    };
}

/// A [`Vm`].
#[derive(Clone, Debug)]
pub struct AsyncVm {
    vm: Arc<Vm>,
}

impl AsyncVm {
    fn new(vm: Vm) -> Self {
        Self { vm: Arc::new(vm) }
    }

    /// Stops the machine in good order as [`Vm::shutdown`] does, also if it has clones.
    ///
    /// # Errors
    /// As [`Vm::shutdown`].
    pub async fn shutdown(self, grace: Duration) -> Result<bool, Error> {
        blocking(move || Ok(self.vm.end_gracefully(grace))).await
    }

    /// Stops the machine as [`Vm::stop`] does, also if it has clones.
    ///
    /// # Errors
    /// As [`Vm::stop`].
    pub async fn stop(self) -> Result<(), Error> {
        blocking(move || {
            self.vm.end();
            Ok(())
        })
        .await
    }
}

/// A [`PooledVm`]. It goes back to its pool when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct AsyncPooledVm {
    vm: Arc<PooledVm>,
}

machine!(AsyncVm);
machine!(AsyncPooledVm);
