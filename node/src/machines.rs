//! Images, their pools, and machines.

use crate::child::ExecChild;
use crate::durable::ExecInfo;
use crate::options::{AttachOptions, BuildOptions, ExecOptions, PoolOptions, StartOptions};
use crate::outcome::outcome;
use crate::results::{ExecOutput, PoolStats, WorkloadStatus};
use crate::warmup::{WarmupFunction, warmup};
use crate::{CancelToken, Environment, Result, thrown, unless, unless_waiting};
use bindings_core::{self as core, Beginning};
use napi::bindgen_prelude::{Env, PromiseRaw};
use napi_derive::napi;

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
        ts_args_type = "options: BuildOptions & CallOptions & { warmup?: (vm: WarmupVm) => Promise<void> }"
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
    #[napi(ts_args_type = "path: string, options?: CallOptions")]
    pub async fn from_snapshot(
        environment: &Environment,
        path: String,
        cancel: Option<&CancelToken>,
    ) -> Result<Image> {
        let image = core::Image::from_snapshot(path.into(), environment.0.clone());
        Ok(unless(cancel, image).await?.into())
    }

    /// Makes a pool of its machines. An aborted one ends when it is there.
    #[napi(ts_args_type = "options?: (PoolOptions & CallOptions) | null")]
    pub async fn pool(
        &self,
        options: Option<PoolOptions>,
        cancel: Option<&CancelToken>,
    ) -> Result<Pool> {
        let pool = self.0.pool(options.unwrap_or_default().into());
        Ok(Pool(unless(cancel, pool).await?))
    }

    /// Starts a machine that belongs to no pool. An aborted one is let go of when it is there.
    #[napi(ts_args_type = "options?: StartOptions & CallOptions")]
    pub async fn start(
        &self,
        options: Option<StartOptions>,
        cancel: Option<&CancelToken>,
    ) -> Result<Vm> {
        let vm = self.0.start(options.unwrap_or_default().into());
        Ok(unless(cancel, vm).await?.into())
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
    #[napi(ts_args_type = "options?: CallOptions", ts_return_type = "Promise<Vm>")]
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
    /// use, up to 30 seconds. That goes on if the call is aborted.
    #[napi(ts_args_type = "options?: CallOptions")]
    pub async fn shutdown(&self, cancel: Option<&CancelToken>) -> Result<()> {
        let pool = self.0.clone();
        let ended = async move {
            pool.shutdown().await;
            Ok(())
        };
        unless_waiting(cancel, ended).await
    }
}

/// A machine, of a pool or of its own, until it is released.
#[napi]
pub struct Vm(pub(crate) core::Machine);

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
        ts_args_type = "options: ExecOptions & CallOptions",
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
    #[napi(ts_args_type = "options: ExecOptions & CallOptions")]
    pub async fn spawn(
        &self,
        options: ExecOptions,
        cancel: Option<&CancelToken>,
    ) -> Result<ExecChild> {
        Ok(unless(cancel, self.0.spawn(options.into())).await?.into())
    }

    /// Takes up the streams of a durable command, also one that has ended. What the guest
    /// does not keep any more is missing, which a read says as an error.
    #[napi(ts_args_type = "id: string, from?: (AttachOptions & CallOptions) | null")]
    pub async fn attach(
        &self,
        id: String,
        from: Option<AttachOptions>,
        cancel: Option<&CancelToken>,
    ) -> Result<ExecChild> {
        let child = self.0.attach(id, from.unwrap_or_default().into());
        Ok(unless(cancel, child).await?.into())
    }

    /// The durable commands of the machine, oldest first.
    #[napi(ts_args_type = "options?: CallOptions")]
    pub async fn execs(&self, cancel: Option<&CancelToken>) -> Result<Vec<ExecInfo>> {
        let execs = unless(cancel, self.0.execs()).await?;
        Ok(execs.into_iter().map(ExecInfo::from).collect())
    }

    /// Sends the workload a signal.
    #[napi(ts_args_type = "signum: number, options?: CallOptions")]
    pub async fn workload_signal(&self, signum: f64, cancel: Option<&CancelToken>) -> Result<()> {
        unless(cancel, self.0.workload_signal(signum)).await
    }

    /// Tells how the workload is doing.
    #[napi(ts_args_type = "options?: CallOptions")]
    pub async fn workload_status(&self, cancel: Option<&CancelToken>) -> Result<WorkloadStatus> {
        Ok(unless(cancel, self.0.workload_status()).await?.into())
    }

    /// Makes a snapshot of the running machine, which goes on. One that is aborted before
    /// it is published leaves nothing, and what was there before stays.
    #[napi(ts_args_type = "destDir: string, options?: CallOptions")]
    pub async fn snapshot(&self, dest_dir: String, cancel: Option<&CancelToken>) -> Result<Image> {
        Ok(unless(cancel, self.0.snapshot(dest_dir.into()))
            .await?
            .into())
    }

    /// Makes machines that go on where this one is. Those of an aborted call end.
    #[napi(ts_args_type = "count: number, options?: CallOptions")]
    pub async fn fork(&self, count: f64, cancel: Option<&CancelToken>) -> Result<Vec<Vm>> {
        let children = unless(cancel, self.0.fork(count)).await?;
        Ok(children.into_iter().map(Into::into).collect())
    }

    /// Stops the guest where it is until `resume`.
    #[napi(ts_args_type = "options?: CallOptions")]
    pub async fn pause(&self, cancel: Option<&CancelToken>) -> Result<()> {
        unless(cancel, self.0.pause()).await
    }

    /// Lets a paused guest go on.
    #[napi(ts_args_type = "options?: CallOptions")]
    pub async fn resume(&self, cancel: Option<&CancelToken>) -> Result<()> {
        unless(cancel, self.0.resume()).await
    }

    /// What the machine has used so far.
    #[napi(
        ts_args_type = "options?: CallOptions",
        ts_return_type = "Promise<VmStats>"
    )]
    pub async fn stats(&self, cancel: Option<&CancelToken>) -> Result<serde_json::Value> {
        unless(cancel, self.0.stats()).await
    }

    /// The end of the guest's console.
    #[napi(ts_args_type = "options?: CallOptions")]
    pub async fn console_log(&self, cancel: Option<&CancelToken>) -> Result<String> {
        unless(cancel, self.0.console_log()).await
    }

    /// What `supermachine ps` calls it where nothing else is.
    #[napi(getter)]
    pub fn id(&self) -> Result<String> {
        self.0.id().map_err(thrown)
    }

    /// Name of the engine that runs the guest.
    #[napi(getter)]
    pub fn engine(&self) -> Result<String> {
        self.0.engine().map_err(thrown)
    }

    /// Whether somebody has paused it.
    #[napi(getter)]
    pub fn is_paused(&self) -> Result<bool> {
        self.0.is_paused().map_err(thrown)
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
    /// nothing. That goes on if the call is aborted.
    #[napi(ts_args_type = "options?: CallOptions")]
    pub async fn release(&self, cancel: Option<&CancelToken>) -> Result<()> {
        unless_waiting(cancel, self.0.release()).await
    }

    /// The same as `release`.
    #[napi(ts_args_type = "options?: CallOptions")]
    pub async fn dispose(&self, cancel: Option<&CancelToken>) -> Result<()> {
        unless_waiting(cancel, self.0.release()).await
    }

    /// Stops a machine that is of no pool in good order: its workload gets its stop signal,
    /// and the guest writes its caches out and turns itself off. True if it has within
    /// `graceMs`, which is 10,000 by default; after that the plug is pulled. That goes on if
    /// the call is aborted.
    #[napi(ts_args_type = "graceMs?: number | null, options?: CallOptions")]
    pub async fn shutdown(
        &self,
        grace_ms: Option<f64>,
        cancel: Option<&CancelToken>,
    ) -> Result<bool> {
        unless_waiting(cancel, self.0.shutdown(grace_ms)).await
    }

    /// What `using` calls: `release` without waiting.
    #[napi(skip_typescript)]
    pub fn let_go(&self) {
        self.0.let_go();
    }
}
