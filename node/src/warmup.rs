//! Warming machines up by a function of JavaScript.

use crate::options::ExecOptions;
use crate::results::ExecOutput;
use crate::{CancelToken, Result, unless};
use bindings_core as core;
use napi::bindgen_prelude::{Buffer, Promise, spawn};
use napi::threadsafe_function::ThreadsafeFunction;
use napi_derive::napi;
use std::sync::Arc;

/// The function that warms a machine up.
pub type WarmupFunction = ThreadsafeFunction<WarmupVm, Promise<()>, WarmupVm, napi::Status, false>;

/// What calls that function, waits for its promise, and tells its end.
pub fn warmup(function: WarmupFunction, scope: core::Cancel) -> core::Warmup {
    let function = Arc::new(function);
    Box::new(move |vm, end| {
        let (function, scope) = (function.clone(), scope.clone());
        spawn(async move {
            // Nobody settles a promise of an environment that has ended.
            let called = core::Cancel::or(Some(scope), async {
                let said = |error: napi::Error| core::BindingError::warmup(&*error.reason);
                let promise = function.call_async(WarmupVm(vm)).await.map_err(said)?;
                promise.await.map_err(said)
            });
            end.end(called.await.map_err(|error| error.message));
        });
    })
}

/// The machine that a warm-up is given, until its promise is settled.
#[napi]
pub struct WarmupVm(core::WarmupVm);

#[napi]
impl WarmupVm {
    /// Runs a command and collects its output. An aborted one is killed.
    #[napi(ts_args_type = "options: ExecOptions & CallOptions")]
    pub async fn exec(
        &self,
        options: ExecOptions,
        cancel: Option<&CancelToken>,
    ) -> Result<ExecOutput> {
        Ok(unless(cancel, self.0.exec(options.into())).await?.into())
    }

    /// Writes a file in the guest.
    #[napi(ts_args_type = "path: string, bytes: Uint8Array | string, options?: CallOptions")]
    pub async fn write_file(
        &self,
        path: String,
        bytes: Buffer,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        unless(cancel, self.0.write_file(path, bytes.to_vec())).await
    }

    /// Reads a file of the guest.
    #[napi(ts_args_type = "path: string, options?: CallOptions")]
    pub async fn read_file(&self, path: String, cancel: Option<&CancelToken>) -> Result<Buffer> {
        Ok(unless(cancel, self.0.read_file(path)).await?.into())
    }
}
