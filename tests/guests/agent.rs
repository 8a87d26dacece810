//! The agent's protocol spoken directly, for requests the library has no
//! method for.

use exec_proto::ProtoError;
use exec_proto::client::{Event, Session};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A connection; every failure panics.
pub struct Agent {
    stream: UnixStream,
    session: Session,
}

impl Agent {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("the agent listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("set");
        Self {
            stream,
            session: Session::new(),
        }
    }

    pub fn request(&mut self, queue: impl FnOnce(&mut Session) -> Result<(), ProtoError>) {
        queue(&mut self.session).expect("a fair request");
        let bytes = self.session.outgoing().to_vec();
        self.stream.write_all(&bytes).expect("the agent reads");
        self.session.sent(bytes.len());
    }

    /// The next event that is no greeting.
    pub fn answer(&mut self) -> Event {
        let mut buffer = [0; 4096];
        loop {
            match self.session.next_event().expect("a fair answer") {
                Some(Event::Hello(_) | Event::Ready(_)) => {}
                Some(event) => return event,
                None => {
                    let count = self.stream.read(&mut buffer).expect("the agent answers");
                    assert_ne!(count, 0, "the agent closed the connection");
                    self.session.feed(&buffer[..count]);
                }
            }
        }
    }

    /// Waits until the connection is gone, in whatever way.
    pub fn await_end(&mut self) {
        let mut rest = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
}
