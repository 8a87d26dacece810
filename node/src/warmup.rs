//! Warming machines up by a function of JavaScript.

use crate::options::ExecOptions;
use crate::results::ExecOutput;
use crate::{Result, thrown};
use bindings_core as core;
use napi::bindgen_prelude::{Buffer, Promise, spawn};
use napi::threadsafe_function::ThreadsafeFunction;
use napi_derive::napi;
use std::sync::Arc;

/// The function that warms a machine up.
pub type WarmupFunction = ThreadsafeFunction<WarmupVm, Promise<()>, WarmupVm, napi::Status, false>;

/// What calls that function, waits for its promise, and tells its end.
pub fn warmup(function: WarmupFunction) -> core::Warmup {
    let function = Arc::new(function);
    Box::new(move |vm, end| {
        let function = function.clone();
        spawn(async move {
            let result = match function.call_async(WarmupVm(vm)).await {
                Ok(promise) => promise.await,
                Err(error) => Err(error),
            };
            end.end(result.map_err(|error| error.reason.clone()));
        });
    })
}

/// The machine that a warm-up is given, until its promise is settled.
#[napi]
pub struct WarmupVm(core::WarmupVm);

#[napi]
impl WarmupVm {
    /// Runs a command and collects its output.
    #[napi]
    pub async fn exec(&self, options: ExecOptions) -> Result<ExecOutput> {
        Ok(self.0.exec(options.into()).await.map_err(thrown)?.into())
    }

    /// Writes a file in the guest.
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
}
