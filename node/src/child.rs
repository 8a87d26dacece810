//! Running commands.

use crate::results::ExecWaitResult;
use crate::{Result, thrown};
use bindings_core as core;
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;

/// A running command with its streams. One that nothing refers to any more is killed.
#[napi]
pub struct ExecChild(core::Child);

impl From<core::Child> for ExecChild {
    fn from(child: core::Child) -> Self {
        Self(child)
    }
}

#[napi]
impl ExecChild {
    /// By what `vm.attach` finds it again, if it is durable.
    #[napi(getter)]
    pub fn id(&self) -> Option<String> {
        self.0.id()
    }

    /// Writes to the standard input; waits while the command does not read.
    #[napi(ts_args_type = "bytes: Uint8Array | string")]
    pub async fn write_stdin(&self, bytes: Buffer) -> Result<()> {
        self.0.write_stdin(&bytes).await.map_err(thrown)
    }

    /// Ends the standard input.
    #[napi]
    pub async fn close_stdin(&self) -> Result<()> {
        self.0.close_stdin().await.map_err(thrown)
    }

    /// Reads from the standard output, at most 64 KiB; an empty buffer at its end.
    #[napi]
    pub async fn read_stdout(&self, max_bytes: Option<f64>) -> Result<Buffer> {
        let bytes = self.0.read_stdout(max_bytes).await;
        Ok(bytes.map_err(thrown)?.into())
    }

    /// Reads from the standard error, at most 64 KiB; an empty buffer at its end.
    #[napi]
    pub async fn read_stderr(&self, max_bytes: Option<f64>) -> Result<Buffer> {
        let bytes = self.0.read_stderr(max_bytes).await;
        Ok(bytes.map_err(thrown)?.into())
    }

    /// Sends a signal to the command's process group: 15 for SIGTERM; 9 ends all its
    /// descendants.
    #[napi]
    pub async fn signal(&self, signum: f64) -> Result<()> {
        self.0.signal(signum).await.map_err(thrown)
    }

    /// Tells the command's terminal its new size.
    #[napi]
    pub async fn resize(&self, cols: f64, rows: f64) -> Result<()> {
        self.0.resize(cols, rows).await.map_err(thrown)
    }

    /// Waits for the command to end. Output that nobody has begun to read is dropped. A wait
    /// that is aborted ends nothing, and can be begun again.
    #[napi(ts_args_type = "options?: { signal?: AbortSignal }")]
    pub async fn wait(&self) -> Result<ExecWaitResult> {
        Ok(self.0.wait().await.map_err(thrown)?.into())
    }
}
