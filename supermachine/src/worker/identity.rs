//! What this process's engine is, and what guests see of the processor.

use super::choose;
use crate::link::protocol::EngineIdentity;
use crate::{Engine, Tier};
use vmm_core::hypervisor::{CpuIdentity, EngineError, EngineId, Hypervisor};

/// What snapshots call the software engine.
const SOFT: snapshot::EngineId = snapshot::EngineId::new("soft");
/// What snapshots call Apple's framework.
const HVF: snapshot::EngineId = snapshot::EngineId::new("hvf");

/// The engine that a worker of this executable would choose.
pub fn of_this_process(wanted: Engine) -> Result<EngineIdentity, EngineError> {
    of_engine(&choose::engine(wanted, Tier::Auto)?)
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
    use crate::link::protocol::{FromWorker, ToWorker, VERSION, receive, send};
    use crate::worker;
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
