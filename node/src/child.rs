//! Running commands.

use crate::results::ExecWaitResult;
use crate::{CancelToken, Result, unless};
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

    /// Writes to the standard input; waits while the command does not read. What was
    /// written before an abort stays written.
    #[napi(ts_args_type = "bytes: Uint8Array | string, options?: CallOptions")]
    pub async fn write_stdin(&self, bytes: Buffer, cancel: Option<&CancelToken>) -> Result<()> {
        unless(cancel, self.0.write_stdin(&bytes)).await
    }

    /// Ends the standard input.
    #[napi(ts_args_type = "options?: CallOptions")]
    pub async fn close_stdin(&self, cancel: Option<&CancelToken>) -> Result<()> {
        unless(cancel, self.0.close_stdin()).await
    }

    /// Reads from the standard output, at most 64 KiB; an empty buffer at its end. An
    /// aborted read takes nothing.
    #[napi(ts_args_type = "maxBytes?: number | null, options?: CallOptions")]
    pub async fn read_stdout(
        &self,
        max_bytes: Option<f64>,
        cancel: Option<&CancelToken>,
    ) -> Result<Buffer> {
        Ok(unless(cancel, self.0.read_stdout(max_bytes)).await?.into())
    }

    /// Reads from the standard error, at most 64 KiB; an empty buffer at its end.
    #[napi(ts_args_type = "maxBytes?: number | null, options?: CallOptions")]
    pub async fn read_stderr(
        &self,
        max_bytes: Option<f64>,
        cancel: Option<&CancelToken>,
    ) -> Result<Buffer> {
        Ok(unless(cancel, self.0.read_stderr(max_bytes)).await?.into())
    }

    /// Sends a signal to the command's process group: 15 for SIGTERM; 9 ends all its
    /// descendants.
    #[napi(ts_args_type = "signum: number, options?: CallOptions")]
    pub async fn signal(&self, signum: f64, cancel: Option<&CancelToken>) -> Result<()> {
        unless(cancel, self.0.signal(signum)).await
    }

    /// Tells the command's terminal its new size.
    #[napi(ts_args_type = "cols: number, rows: number, options?: CallOptions")]
    pub async fn resize(&self, cols: f64, rows: f64, cancel: Option<&CancelToken>) -> Result<()> {
        unless(cancel, self.0.resize(cols, rows)).await
    }

    /// Waits for the command to end. Output that nobody has begun to read is dropped. A wait
    /// that is aborted ends nothing, and can be begun again.
    #[napi(ts_args_type = "options?: CallOptions")]
    pub async fn wait(&self, cancel: Option<&CancelToken>) -> Result<ExecWaitResult> {
        Ok(unless(cancel, self.0.wait()).await?.into())
    }
}
