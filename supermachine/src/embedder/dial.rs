//! Connections to the agent, which may refuse some for a while.

use crate::Error;
use crate::deadline::Deadline;
use crate::exec::{Channel, is_refusal};
use crate::host;
use crate::limits::{FIRST_RETRY_PAUSE, LAST_RETRY_PAUSE, REFUSAL_TIMEOUT};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Tries to open a session until that works. The agent refuses connections
/// while many others wait to be accepted, by closing them without a hello, or
/// says that it is busy. Nothing was begun then, so trying again is safe.
pub fn patiently(
    deadline: Deadline,
    attempt: impl Fn() -> Result<Channel, Error>,
    ended: impl Fn() -> Option<Error>,
) -> Result<Channel, Error> {
    let refused = deadline.at_most(REFUSAL_TIMEOUT);
    let mut pause = FIRST_RETRY_PAUSE;
    loop {
        match attempt() {
            Err(error) if is_refusal(&error) => {
                if let Some(ended) = ended() {
                    return Err(ended);
                }
                if refused.has_passed() {
                    return Err(error);
                }
                std::thread::sleep(refused.left_of(pause));
                pause = (pause * 2).min(LAST_RETRY_PAUSE);
            }
            result => return result,
        }
    }
}

/// Connects to a socket of a worker, which takes no connection while it stands
/// still: the system makes others wait for that, once enough are in its queue.
pub fn connect(path: &Path, deadline: Deadline) -> Result<UnixStream, Error> {
    let broken = |error: Errno| Error::connection("connecting to it")(error.into());
    let address = SocketAddrUnix::new(path).map_err(broken)?;
    let stream = host::stream_socket().map_err(Error::system("make a socket"))?;
    loop {
        match rustix::net::connect(&stream, &address) {
            Ok(()) => return Ok(stream),
            Err(Errno::AGAIN | Errno::INTR) if deadline.has_passed() => {
                return Err(deadline.error("a connection to the machine"));
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                std::thread::sleep(deadline.left_of(FIRST_RETRY_PAUSE))
            }
            Err(error) => return Err(broken(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;
    use std::time::Instant;

    #[test]
    fn a_worker_that_takes_no_connections_holds_nobody_longer_than_the_limit() {
        let dir = std::env::temp_dir().join(format!("smdial-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let begun = Instant::now();
        let mut taken = Vec::new();
        // More than the longest queue of any system's default.
        let refused = (0..20_000).find_map(|_| {
            let deadline = Deadline::within(Duration::from_millis(100));
            match connect(&path, deadline) {
                Ok(stream) => {
                    taken.push(stream);
                    None
                }
                Err(error) => Some(error),
            }
        });
        assert!(
            matches!(
                refused,
                Some(Error::Timeout { .. } | Error::Connection { .. })
            ),
            "{refused:?}"
        );
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
