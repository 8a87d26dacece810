//! Which engine machines get here, and what guests see of the processor.

use super::choose;
use super::protocol::{EngineIdentity, ToWorker};
use super::runtime_dir::RuntimeDir;
use super::spawn::Worker;
use crate::{Engine, Error, VmConfig};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use vmm_core::hypervisor::{CpuIdentity, EngineError, EngineId, Hypervisor};

/// What snapshots call the software engine.
const SOFT: snapshot::EngineId = snapshot::EngineId::new("soft");
/// What snapshots call Apple's framework.
const HVF: snapshot::EngineId = snapshot::EngineId::new("hvf");

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
    Worker::spawn(config, &ToWorker::Identify(config.engine), &dir)?.identity()
}

/// The engine that a worker of this executable would choose.
pub fn of_this_process(wanted: Engine) -> Result<EngineIdentity, EngineError> {
    of_engine(&choose::engine(wanted)?)
}

/// An engine, as snapshots compare it.
pub fn of_engine(engine: &impl Hypervisor) -> Result<EngineIdentity, EngineError> {
    let CpuIdentity {
        registers,
        counter_hz,
    } = engine.identity()?;
    let id = engine.id();
    let engine = snapshot_engine(id)
        .ok_or_else(|| EngineError::refused(NoSnapshots { engine: id }, true))?;
    Ok(EngineIdentity {
        engine,
        registers,
        counter_hz,
    })
}

/// Snapshots have no name for an engine.
#[derive(Debug, thiserror::Error)]
#[error("machines of engine {engine} cannot be saved by this version")]
struct NoSnapshots {
    engine: EngineId,
}

/// What snapshots call an engine. One that they have no name for must not be
/// taken for the software engine, whose snapshots run everywhere.
fn snapshot_engine(id: EngineId) -> Option<snapshot::EngineId> {
    match id {
        EngineId::FRAMEWORK => Some(HVF),
        EngineId::SOFTWARE => Some(SOFT),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::protocol::{FromWorker, VERSION, receive, send};
    use crate::engine::worker;
    use std::os::unix::net::UnixStream;
    use vmm_core::backend::table::TableEngine;

    #[test]
    fn every_engine_has_a_name_of_its_own_in_snapshots() {
        let software = TableEngine::new(softhv::api());
        assert_eq!(software.id(), EngineId::SOFTWARE);
        assert_eq!(snapshot_engine(software.id()), Some(SOFT));
        assert_eq!(snapshot_engine(EngineId::new("other")), None);
        // By what it is, whatever it is called.
        let renamed = TableEngine::new(hvf::sys::Api {
            name: "hvf",
            ..softhv::api()
        });
        let renamed = of_engine(&renamed).unwrap();
        assert_eq!(renamed.engine, SOFT);
        let framework = TableEngine::new(hvf::sys::Api {
            id: hvf::EngineId::Framework,
            ..softhv::api()
        });
        let framework = of_engine(&framework).unwrap();
        assert_eq!(framework.engine, HVF);
    }

    #[test]
    fn a_worker_that_is_asked_says_what_its_engine_is_and_ends() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let worker = std::thread::spawn(move || worker::serve(&theirs));
        assert_eq!(
            receive(&ours).unwrap(),
            Some(FromWorker::Hello { version: VERSION })
        );
        send(&ours, &ToWorker::Hello { version: VERSION }).unwrap();
        send(&ours, &ToWorker::Identify(Engine::Soft)).unwrap();
        let Some(FromWorker::Identity(identity)) = receive(&ours).unwrap() else {
            panic!("no identity");
        };
        assert_eq!(*identity, of_this_process(Engine::Soft).unwrap());
        assert_eq!(identity.engine, SOFT);
        worker.join().unwrap().unwrap();
    }
}
