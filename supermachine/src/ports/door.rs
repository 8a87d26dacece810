//! The way to services of a guest: by its agent.

use crate::Error;
use crate::deadline::Deadline;
use crate::embedder::dial::{connect, patiently};
use crate::embedder::instance::Instance;
use crate::exec::{Channel, Liveness};
use crate::limits::DIAL_TIMEOUT;
use exec_proto::Transport;
use exec_proto::client::Event;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where the agent of a machine is reached.
#[derive(Clone, Debug)]
pub struct Door {
    exec_socket: PathBuf,
    worker: Arc<dyn Liveness>,
}

impl Door {
    pub fn new(exec_socket: PathBuf, worker: Arc<dyn Liveness>) -> Self {
        Self {
            exec_socket,
            worker,
        }
    }

    pub fn of(instance: &Instance) -> Self {
        Self::new(instance.exec_socket().to_owned(), instance.watched())
    }

    /// A connection to a service, which does not block, and what came on it already.
    /// An agent that is busy is asked again.
    pub fn dial(&self, transport: Transport, port: u16) -> Result<(UnixStream, Vec<u8>), Error> {
        let deadline = Deadline::within(DIAL_TIMEOUT);
        let attempt = || {
            let stream = connect(&self.exec_socket, deadline)?;
            let channel = Channel::new(stream, self.worker.clone())?;
            channel.limit(deadline);
            channel.request(|session| session.dial(transport, port))?;
            channel.answer_until(deadline, |event| matches!(event, Event::Done).then_some(()))?;
            Ok(channel)
        };
        let ended = || self.worker.end_within(Duration::ZERO);
        patiently(deadline, attempt, ended).map(Channel::into_raw)
    }
}
