//! Images, their pools, and machines.

use crate::child::ExecChild;
use crate::durable::ExecInfo;
use crate::options::{AttachOptions, BuildOptions, ExecOptions, PoolOptions, StartOptions, wanted};
use crate::outcome::outcome;
use crate::results::{Copied, ExecOutput, FileInfo, MountChange, PoolStats, WorkloadStatus};
use crate::warmup::{WarmupFunction, warmup};
use crate::{CancelToken, Environment, Result, thrown};
use bindings_core::{self as core, Beginning};
use napi::bindgen_prelude::{Buffer, Env, PromiseRaw, spawn_blocking};
use napi_derive::napi;
use std::sync::Arc;

/// A baked image: what machines are copies of.
#[napi]
pub struct Image(core::Image);

impl From<core::Image> for Image {
    fn from(image: core::Image) -> Self {
        Self(image)
    }
}

#[napi]
impl Image {
    /// Bakes an image into a snapshot, or finds it baked. `warmup` is called with the
    /// machine before it is captured: what it leaves in memory and in files, every
    /// copy has.
    ///
    /// A bake whose `signal` is aborted goes on, for the next call that wants it.
    #[napi(
        ts_args_type = "options: BuildOptions & { warmup?: (vm: WarmupVm) => Promise<void>; signal?: AbortSignal }"
    )]
    pub async fn build(
        environment: &Environment,
        options: BuildOptions,
        function: Option<WarmupFunction>,
    ) -> Result<Image> {
        let scope = environment.0.clone();
        let warmup = function.map(|function| warmup(function, scope.clone()));
        let image = core::Image::build(options.into(), warmup, scope).await;
        Ok(image.map_err(thrown)?.into())
    }

    /// Opens a snapshot that was made before.
    #[napi(ts_args_type = "path: string")]
    pub async fn from_snapshot(environment: &Environment, path: String) -> Result<Image> {
        let image = core::Image::from_snapshot(path.into(), environment.0.clone()).await;
        Ok(image.map_err(thrown)?.into())
    }

    /// Makes a pool of its machines.
    #[napi]
    pub async fn pool(&self, options: Option<PoolOptions>) -> Result<Pool> {
        let pool = self.0.pool(options.unwrap_or_default().into()).await;
        Ok(Pool(pool.map_err(thrown)?))
    }

    /// Starts a machine that belongs to no pool. An aborted one is let go of when it is there.
    #[napi(ts_args_type = "options?: StartOptions & { signal?: AbortSignal }")]
    pub async fn start(&self, options: Option<StartOptions>) -> Result<Vm> {
        let vm = self.0.start(options.unwrap_or_default().into()).await;
        Ok(vm.map_err(thrown)?.into())
    }

    /// Where the snapshot is.
    #[napi(getter)]
    pub fn snapshot_path(&self) -> String {
        let path = self.0.snapshot_path().unwrap_or_default();
        path.to_string_lossy().into_owned()
    }

    /// Guest memory in MiB.
    #[napi(getter)]
    pub fn memory_mib(&self) -> u32 {
        let mib = self.0.memory_mib().unwrap_or_default();
        u32::try_from(mib).unwrap_or(u32::MAX)
    }

    /// Virtual CPUs.
    #[napi(getter)]
    pub fn vcpus(&self) -> u32 {
        self.0.vcpus().unwrap_or_default()
    }

    /// What identifies the image that it was baked from.
    #[napi(getter)]
    pub fn digest(&self) -> String {
        self.0.digest()
    }
}

/// Machines of one image, ready to be used.
#[napi]
pub struct Pool(core::Pool);

#[napi]
impl Pool {
    /// A machine that nobody has used since the snapshot. Callers are served in the
    /// order of their calls. An aborted call leaves the line.
    #[napi(
        ts_args_type = "options?: { signal?: AbortSignal }",
        ts_return_type = "Promise<Vm>"
    )]
    pub fn acquire<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&CancelToken>,
    ) -> Result<PromiseRaw<'env, Vm>> {
        let machine = self.0.acquire(cancel.map(|token| token.0.clone()));
        env.spawn_future(async move { Ok(machine.await.map_err(thrown)?.into()) })
    }

    /// How many machines there are, and what they do. It does not wait.
    #[napi]
    pub fn stats(&self) -> PoolStats {
        self.0.stats().into()
    }

    /// Ends the pool: refuses who waits, ends idle machines, and waits for those in
    /// use, up to 30 seconds.
    #[napi]
    pub async fn shutdown(&self) -> Result<()> {
        self.0.shutdown().await;
        Ok(())
    }
}

/// A machine, of a pool or of its own, until it is released.
#[napi]
pub struct Vm(core::Machine);

impl From<core::Machine> for Vm {
    fn from(machine: core::Machine) -> Self {
        Self(machine)
    }
}

fn text(path: std::path::PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

#[napi]
impl Vm {
    /// Runs a command and collects its output. A command that fails is no error: see
    /// `exitCode`. An aborted one is killed, with its descendants.
    #[napi(
        ts_args_type = "options: ExecOptions & { signal?: AbortSignal }",
        ts_return_type = "Promise<ExecOutput>"
    )]
    pub fn exec<'env>(
        &self,
        env: &'env Env,
        options: ExecOptions,
        cancel: Option<&CancelToken>,
    ) -> Result<PromiseRaw<'env, ExecOutput>> {
        let cancel = cancel.map(|token| &token.0);
        let begun = self.0.begin(options.into(), cancel).map_err(thrown)?;
        match begun {
            Beginning::Begun(begun) => outcome(env, begun),
            Beginning::Later(command) => {
                let run = self.0.run(command, cancel.cloned());
                env.spawn_future(async move { Ok(run.await.map_err(thrown)?.into()) })
            }
        }
    }

    /// Starts a command with its streams open. If that is aborted, it is killed.
    #[napi(ts_args_type = "options: ExecOptions & { signal?: AbortSignal }")]
    pub async fn spawn(&self, options: ExecOptions) -> Result<ExecChild> {
        Ok(self.0.spawn(options.into()).await.map_err(thrown)?.into())
    }

    /// Takes up the streams of a durable command, also one that has ended. What the guest
    /// does not keep any more is missing, which a read says as an error.
    #[napi]
    pub async fn attach(&self, id: String, from: Option<AttachOptions>) -> Result<ExecChild> {
        let child = self.0.attach(id, from.unwrap_or_default().into()).await;
        Ok(child.map_err(thrown)?.into())
    }

    /// The durable commands of the machine, oldest first.
    #[napi]
    pub async fn execs(&self) -> Result<Vec<ExecInfo>> {
        let execs = self.0.execs().await.map_err(thrown)?;
        Ok(execs.into_iter().map(ExecInfo::from).collect())
    }

    /// Writes a file in the guest, whole or not at all.
    #[napi(ts_args_type = "path: string, bytes: Uint8Array | string")]
    pub async fn write_file(&self, path: String, bytes: Buffer) -> Result<()> {
        let written = self.0.write_file(path, bytes.to_vec()).await;
        written.map_err(thrown)
    }

    /// Reads a file of the guest.
    #[napi]
    pub async fn read_file(&self, path: String) -> Result<Buffer> {
        Ok(self.0.read_file(path).await.map_err(thrown)?.into())
    }

    /// Lists a directory of the guest.
    #[napi]
    pub async fn read_dir(&self, path: String) -> Result<Vec<FileInfo>> {
        let listed = self.0.read_dir(path).await.map_err(thrown)?;
        Ok(listed.into_iter().map(Into::into).collect())
    }

    /// Says what is at a path of the guest.
    #[napi]
    pub async fn stat(&self, path: String) -> Result<FileInfo> {
        Ok(self.0.stat(path).await.map_err(thrown)?.into())
    }

    /// Makes a directory in the guest, and those above it if `recursive`.
    #[napi]
    pub async fn mkdir(&self, path: String, recursive: Option<bool>) -> Result<()> {
        let made = self.0.mkdir(path, recursive.unwrap_or_default()).await;
        made.map_err(thrown)
    }

    /// Removes a file of the guest, or a directory with all in it if `recursive`.
    #[napi]
    pub async fn remove(&self, path: String, recursive: Option<bool>) -> Result<()> {
        let removed = self.0.remove(path, recursive.unwrap_or_default()).await;
        removed.map_err(thrown)
    }

    /// Gives a file of the guest another name.
    #[napi]
    pub async fn rename(&self, from: String, to: String) -> Result<()> {
        self.0.rename(from, to).await.map_err(thrown)
    }

    /// Copies a tree of the host into the guest.
    #[napi]
    pub async fn copy_in(&self, host_path: String, guest_path: String) -> Result<Copied> {
        let copied = self.0.copy_in(host_path.into(), guest_path).await;
        Ok(copied.map_err(thrown)?.into())
    }

    /// Copies a tree out of the guest.
    #[napi]
    pub async fn copy_out(&self, guest_path: String, host_path: String) -> Result<Copied> {
        let copied = self.0.copy_out(guest_path, host_path.into()).await;
        Ok(copied.map_err(thrown)?.into())
    }

    /// What the guest has changed of the copy-on-write mount with this tag, sorted by
    /// path. It is compared with what the host's directory has now.
    #[napi]
    pub async fn mount_changes(&self, tag: String) -> Result<Vec<MountChange>> {
        let changes = self.0.mount_changes(tag).await.map_err(thrown)?;
        Ok(changes.into_iter().map(Into::into).collect())
    }

    /// Makes changes of the copy-on-write mount with this tag to the directory of the
    /// host, and tells which: those in `changes`, of what `mountChanges` has told, or
    /// all. One that is not what it was then (`added`, now `deleted`; a file, now a link)
    /// is left out; what is in a file is what the guest has there now. For the guest
    /// nothing changes.
    #[napi(ts_args_type = "tag: string, changes?: MountChange[]")]
    pub async fn apply_changes(
        &self,
        tag: String,
        changes: Option<Vec<MountChange>>,
    ) -> Result<Vec<MountChange>> {
        let applied = self.0.apply_changes(tag, wanted(changes)).await;
        Ok(applied
            .map_err(thrown)?
            .into_iter()
            .map(Into::into)
            .collect())
    }

    /// Writes the same changes into a file of the host, in the place of what has its
    /// name: a tar archive in the form of an image's layer, in which `.wh.NAME` says that
    /// NAME was deleted. It is there with all of it or not at all.
    #[napi(ts_args_type = "tag: string, hostPath: string, changes?: MountChange[]")]
    pub async fn export_changes(
        &self,
        tag: String,
        host_path: String,
        changes: Option<Vec<MountChange>>,
    ) -> Result<Copied> {
        let exported = self
            .0
            .export_changes(tag, host_path.into(), wanted(changes));
        Ok(exported.await.map_err(thrown)?.into())
    }

    /// Grows a volume that the machine has to this size, while it is mounted. One that is
    /// as large already stays as it is.
    #[napi]
    pub async fn grow_volume(&self, name: String, size_mib: f64) -> Result<()> {
        self.0.grow_volume(name, size_mib).await.map_err(thrown)
    }

    /// Connects a TCP port of the host's loopback interface to one of the guest; 0 for
    /// one that is free. It is open until it is stopped, or the machine is released.
    #[napi]
    pub async fn expose_tcp(&self, host_port: f64, guest_port: f64) -> Result<TcpForwarder> {
        let exposed = self.0.expose_tcp(host_port, guest_port).await;
        Ok(TcpForwarder(Arc::new(exposed.map_err(thrown)?)))
    }

    /// Sends the workload a signal.
    #[napi]
    pub async fn workload_signal(&self, signum: f64) -> Result<()> {
        self.0.workload_signal(signum).await.map_err(thrown)
    }

    /// Tells how the workload is doing.
    #[napi]
    pub async fn workload_status(&self) -> Result<WorkloadStatus> {
        Ok(self.0.workload_status().await.map_err(thrown)?.into())
    }

    /// Makes a snapshot of the running machine, which goes on.
    #[napi]
    pub async fn snapshot(&self, dest_dir: String) -> Result<Image> {
        Ok(self
            .0
            .snapshot(dest_dir.into())
            .await
            .map_err(thrown)?
            .into())
    }

    /// Makes machines that go on where this one is.
    #[napi]
    pub async fn fork(&self, count: f64) -> Result<Vec<Vm>> {
        let children = self.0.fork(count).await.map_err(thrown)?;
        Ok(children.into_iter().map(Into::into).collect())
    }

    /// Stops the guest where it is until `resume`.
    #[napi]
    pub async fn pause(&self) -> Result<()> {
        self.0.pause().await.map_err(thrown)
    }

    /// Lets a paused guest go on.
    #[napi]
    pub async fn resume(&self) -> Result<()> {
        self.0.resume().await.map_err(thrown)
    }

    /// What the machine has used so far.
    #[napi(ts_return_type = "Promise<Record<string, unknown>>")]
    pub async fn stats(&self) -> Result<serde_json::Value> {
        self.0.stats().await.map_err(thrown)
    }

    /// The end of the guest's console.
    #[napi]
    pub async fn console_log(&self) -> Result<String> {
        self.0.console_log().await.map_err(thrown)
    }

    /// Where a client of one's own reaches ports of the guest.
    #[napi(getter)]
    pub fn vsock_path(&self) -> Result<String> {
        self.0.vsock_path().map(text).map_err(thrown)
    }

    /// Where a client of one's own reaches the agent.
    #[napi(getter)]
    pub fn exec_path(&self) -> Result<String> {
        self.0.exec_path().map(text).map_err(thrown)
    }

    /// Gives the machine back to its pool, or stops it if it has none. Once more does
    /// nothing.
    #[napi]
    pub async fn release(&self) -> Result<()> {
        self.0.release().await.map_err(thrown)
    }

    /// The same as `release`.
    #[napi]
    pub async fn dispose(&self) -> Result<()> {
        self.0.release().await.map_err(thrown)
    }

    /// What `using` calls: `release` without waiting.
    #[napi(skip_typescript)]
    pub fn let_go(&self) {
        self.0.let_go();
    }
}

/// A port of the host that leads to one of a guest.
#[napi]
pub struct TcpForwarder(Arc<core::TcpForwarder>);

#[napi]
impl TcpForwarder {
    /// Where it listens, as `127.0.0.1:54321`.
    #[napi(getter)]
    pub fn local_addr(&self) -> String {
        self.0.local_addr().to_string()
    }

    /// Takes no more connections. Those that are open go on. Once more does nothing.
    #[napi]
    pub async fn stop(&self) -> Result<()> {
        let forwarder = self.0.clone();
        let stopped = spawn_blocking(move || forwarder.stop()).await;
        stopped.map_err(|_| thrown(core::BindingError::aborted()))
    }
}
