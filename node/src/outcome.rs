//! Outcomes of commands that were begun, for JavaScript that awaits them.

use crate::results::ExecOutput;
use crate::{Result, thrown};
use bindings_core::{Begun, BindingError};
use napi::bindgen_prelude::{Env, PromiseRaw, within_runtime_if_available};
use napi::{JsDeferred, JsValue};

type Resolver = Box<dyn FnOnce(Env) -> Result<ExecOutput> + Send>;

/// A promise that is settled by the thread that reads the guest's answer, so that nothing
/// else has to wake up for it.
pub fn outcome(env: &Env, begun: Begun) -> Result<PromiseRaw<'_, ExecOutput>> {
    let (deferred, promise) = env.create_deferred()?;
    let settles = Settles(Some(deferred));
    within_runtime_if_available(|| begun.then(|outcome| settles.settle(outcome)));
    Ok(PromiseRaw::new(env.raw(), promise.raw()))
}

/// A promise, which is settled also if the thread that was to do so never comes to it.
struct Settles(Option<JsDeferred<ExecOutput, Resolver>>);

impl Settles {
    fn settle(mut self, outcome: core::result::Result<bindings_core::ExecOutcome, BindingError>) {
        if let Some(deferred) = self.0.take() {
            match outcome {
                Ok(outcome) => deferred.resolve(Box::new(|_| Ok(outcome.into()))),
                Err(error) => deferred.reject(thrown(error)),
            }
        }
    }
}

impl Drop for Settles {
    fn drop(&mut self) {
        if let Some(deferred) = self.0.take() {
            deferred.reject(thrown(BindingError::aborted()));
        }
    }
}
