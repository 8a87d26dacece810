//! What this process's engine is, and what guests see of the processor.

use super::choose;
use crate::Engine;
use crate::link::protocol::EngineIdentity;
use vmm_core::backend::hvf::HvfEngine;
use vmm_core::hypervisor::{EngineError, EngineId};

/// The engine that a worker of this executable would choose.
pub fn of_this_process(wanted: Engine) -> Result<EngineIdentity, EngineError> {
    of_engine(&choose::engine(wanted)?)
}

/// An engine, as snapshots compare it.
pub fn of_engine(engine: &HvfEngine) -> Result<EngineIdentity, EngineError> {
    let (registers, counter_hz) = engine.identity()?;
    Ok(EngineIdentity {
        engine: snapshot_engine(engine.id()),
        registers,
        counter_hz,
    })
}

/// What snapshots call an engine. Without a catch-all: a new engine must not be
/// taken for the software engine, whose snapshots run everywhere.
fn snapshot_engine(id: EngineId) -> snapshot::Engine {
    match id {
        EngineId::Framework => snapshot::Engine::Hvf,
        EngineId::Software => snapshot::Engine::Soft,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::protocol::{FromWorker, ToWorker, VERSION, receive, send};
    use crate::worker;
    use std::os::unix::net::UnixStream;

    #[test]
    fn every_engine_has_a_name_of_its_own_in_snapshots() {
        let software = HvfEngine::new(softhv::api());
        assert_eq!(software.id(), EngineId::Software);
        assert_eq!(snapshot_engine(software.id()), snapshot::Engine::Soft);
        // By what it is, whatever it is called.
        let renamed = HvfEngine::new(hvf::sys::Api {
            name: "hvf",
            ..softhv::api()
        });
        let renamed = of_engine(&renamed).unwrap();
        assert_eq!(renamed.engine, snapshot::Engine::Soft);
        let framework = HvfEngine::new(hvf::sys::Api {
            id: EngineId::Framework,
            ..softhv::api()
        });
        let framework = of_engine(&framework).unwrap();
        assert_eq!(framework.engine, snapshot::Engine::Hvf);
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
        assert_eq!(identity.engine, snapshot::Engine::Soft);
        worker.join().unwrap().unwrap();
    }
}
