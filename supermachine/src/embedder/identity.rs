//! Which engine machines get here.

use super::handle::Worker;
use crate::link::protocol::{EngineIdentity, ToWorker};
use crate::link::runtime_dir::RuntimeDir;
use crate::worker::identity::of_this_process;
use crate::{Engine, Error, VmConfig};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// What workers have said, by the engine that was wanted and the executable.
static KNOWN: Mutex<Vec<(Engine, Option<PathBuf>, EngineIdentity)>> = Mutex::new(Vec::new());

/// The engine that workers of `config` choose.
///
/// Apple's framework makes machines for executables with an entitlement, and
/// the embedding program may well have none: there a worker is asked, once.
pub fn of_workers(config: &VmConfig) -> Result<EngineIdentity, Error> {
    if config.engine == Engine::Soft || !cfg!(target_os = "macos") {
        return of_this_process(config.engine).map_err(|error| Error::Start {
            message: error.to_string(),
        });
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let is_same = |engine: Engine, worker: &Option<PathBuf>| {
        engine == config.engine && *worker == config.worker
    };
    if let Some((.., identity)) = known.iter().find(|known| is_same(known.0, &known.1)) {
        return Ok(identity.clone());
    }
    let identity = ask(config)?;
    known.push((config.engine, config.worker.clone(), identity.clone()));
    Ok(identity)
}

/// Asks a worker.
fn ask(config: &VmConfig) -> Result<EngineIdentity, Error> {
    let dir = RuntimeDir::create()?;
    Worker::spawn(config, &ToWorker::Identify(config.engine), &[], &dir)?.identity()
}
