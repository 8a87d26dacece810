//! Agents that do not keep to what they should, over sockets of this process.

#[cfg(feature = "tokio")]
mod begun;
mod limits;
mod streams;

use super::{Channel, Sinks, Unwatched};
use crate::Error;
use exec_proto::{ExecRequest, ExitStatus, Exited, Hello, Reply};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Far longer than the limits here, far shorter than a hang.
const SOON: Duration = Duration::from_secs(30);

/// What is done with a command's output where that is of no interest.
struct Nowhere;

impl Sinks for Nowhere {
    fn stdout(&mut self, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn stderr(&mut self, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}

/// A connection on which a command was asked for, and the thread that plays the
/// agent at its other end.
fn channel_to<T: Send + 'static>(
    agent: impl FnOnce(UnixStream) -> T + Send + 'static,
) -> (Channel, JoinHandle<T>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let channel = Channel::new(ours, Arc::new(Unwatched)).unwrap();
    channel
        .request(|session| {
            let mut request = ExecRequest::new(["command"]);
            request.flags.stdin = true;
            session.exec(&request)
        })
        .unwrap();
    let agent = std::thread::spawn(move || agent(theirs));
    (channel, agent)
}

fn send(to: &mut UnixStream, replies: &[Reply<'_>]) -> std::io::Result<()> {
    let mut wire = Vec::new();
    for reply in replies {
        reply.encode(&mut wire);
    }
    to.write_all(&wire)
}

fn begin(to: &mut UnixStream) {
    let opening = [Reply::Hello(Hello::new(0)), Reply::Started { pid: 1 }];
    // The host may have gone already.
    let _ = send(to, &opening);
}

fn exited() -> Reply<'static> {
    Reply::Exited(Exited {
        status: ExitStatus::Code(0),
        duration_ns: 1,
        peak_rss_kib: 1,
        timed_out: false,
        oom: false,
        executed: true,
        step: 0,
    })
}

fn assert_timeout<T: std::fmt::Debug>(result: Result<T, Error>, begun: Instant) {
    assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}
