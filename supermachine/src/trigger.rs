//! Moments at which a machine is captured.

use crate::limits::{HEARTBEAT_PAUSE, LISTENER_TIMEOUT};
use crate::{Error, Vm};
use exec_proto::ErrorKind;
use exec_proto::client::Event;
use std::time::Duration;

/// When a machine that is being baked is captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// As soon as it serves commands. A workload starts in each copy.
    #[default]
    Ready,
    /// When its workload listens on the guest port.
    Listener,
    /// This long after its workload was started.
    After(Duration),
    /// When its agent has answered this often since the workload was started.
    Heartbeat(u64),
}

impl Trigger {
    /// Waits until it has come in a machine whose workload was started.
    pub(crate) fn await_in(self, vm: &Vm, port: u16) -> Result<(), Error> {
        match self {
            Self::Ready => Ok(()),
            Self::After(time) => {
                std::thread::sleep(time);
                Ok(())
            }
            Self::Listener => {
                let limit = u64::try_from(LISTENER_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
                let channel = vm.open_session(|session| session.await_listener(port, limit))?;
                channel
                    .answer(|event| matches!(event, Event::Done).then_some(()))
                    .map_err(|error| with_output(vm, error))
            }
            Self::Heartbeat(count) => {
                for beat in 0..count {
                    let channel = vm.open_session(|session| session.ping(beat))?;
                    channel.answer(|event| matches!(event, Event::Pong(_)).then_some(()))?;
                    std::thread::sleep(HEARTBEAT_PAUSE);
                }
                Ok(())
            }
        }
    }
}

/// Adds what the workload wrote to the news that it ended or was too slow.
fn with_output(vm: &Vm, error: Error) -> Error {
    match error {
        Error::Exec {
            kind: ErrorKind::WorkloadEnded | ErrorKind::TimedOut,
            message,
        } => Error::Workload {
            reason: message,
            // Without it the reason is still worth telling.
            output: vm.workload_status().map_or_else(
                |_| String::new(),
                |status| String::from_utf8_lossy(&status.tail).into_owned(),
            ),
        },
        error => error,
    }
}
