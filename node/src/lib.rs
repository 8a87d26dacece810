//! The native part of `@supermachine/core`: classes and options of JavaScript, made
//! of those in `supermachine-bindings-core`. `index.js` beside it makes errors of
//! what fails here, and adds what only JavaScript has.

mod child;
mod disks;
mod durable;
mod events;
mod files;
mod machines;
mod mounts;
mod options;
mod outcome;
mod ports;
mod results;
mod warmup;

use bindings_core::{BindingError, Cancel, Installation};
use napi::Env;
use napi_derive::napi;

/// The result of what JavaScript calls.
type Result<T> = napi::Result<T>;

/// An error as `index.js` reads it: its message is JSON.
fn thrown(error: BindingError) -> napi::Error {
    let told = serde_json::json!({
        "code": error.code,
        "kind": error.kind,
        "message": error.message,
        "retryable": error.is_retryable,
    });
    napi::Error::from_reason(told.to_string())
}

/// What `call` gives, unless who asked for it does not want it any more.
async fn unless<T>(
    cancel: Option<&CancelToken>,
    call: impl Future<Output = bindings_core::Result<T>> + Send,
) -> Result<T> {
    let cancel = cancel.map(|token| token.0.clone());
    Cancel::or(cancel, call).await.map_err(thrown)
}

/// The same of a call that goes on to its end also if nobody waits for it any more.
async fn unless_waiting<T: Send + 'static>(
    cancel: Option<&CancelToken>,
    call: impl Future<Output = bindings_core::Result<T>> + Send + 'static,
) -> Result<T> {
    let cancel = cancel.map(|token| token.0.clone());
    Cancel::or_go_on(cancel, call).await.map_err(thrown)
}

/// Says where the package has its files.
#[napi(skip_typescript)]
pub fn install(worker: Option<String>, assets: Option<String>) {
    bindings_core::install(Installation {
        worker: worker.map(Into::into),
        assets: assets.map(Into::into),
    });
}

/// One of this process's runtimes of JavaScript, the main one or that of a thread.
/// What was asked for in it ends with it: machines are let go of and commands killed.
#[napi]
pub struct Environment(pub(crate) Cancel);

#[napi]
impl Environment {
    /// The one that this is called in.
    #[napi(constructor)]
    pub fn new(env: Env) -> Result<Self> {
        let scope = Cancel::new();
        env.add_env_cleanup_hook(scope.clone(), |scope| scope.cancel())?;
        Ok(Self(scope))
    }
}

/// Ends calls: what an `AbortSignal` is turned into.
#[napi]
#[derive(Default)]
pub struct CancelToken(pub(crate) Cancel);

#[napi]
impl CancelToken {
    /// One that nothing was called with.
    #[napi(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the calls.
    #[napi]
    pub fn cancel(&self) {
        self.0.cancel();
    }
}
