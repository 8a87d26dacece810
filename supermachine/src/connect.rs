//! Connections to programs in the guest.

use crate::deadline::{Deadline, Timed};
use crate::embedder::dial;
use crate::limits::ACCEPT_TIMEOUT;
use crate::{Error, Vm};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// Longest line by which the device says that the guest has accepted:
/// `OK`, a space, a port of 32 bits and the line's end.
const MAX_LINE_BYTES: usize = 14;

impl Vm {
    /// Connects to a program of the guest that listens on vsock port `port`
    /// (`AF_VSOCK`, not TCP). A reset, a snapshot's copy or a fork breaks the
    /// connection on the guest's side.
    ///
    /// # Errors
    /// [`Error::Connection`] if nobody listens there or the machine has ended,
    /// [`Error::Timeout`] if the guest does not answer within ten seconds.
    pub fn connect(&self, port: u32) -> Result<UnixStream, Error> {
        let deadline = Deadline::within(ACCEPT_TIMEOUT);
        let stream = dial::connect(&self.vsock_path(), deadline)?;
        ask(&stream, port, deadline)?;
        stream
            .set_nonblocking(false)
            .map_err(Error::system("set a connection up"))?;
        Ok(stream)
    }
}

/// Asks the device to connect to a port of the guest.
fn ask(stream: &UnixStream, port: u32, deadline: Deadline) -> Result<(), Error> {
    let mut timed = Timed::new(stream, deadline);
    let failed = |what| {
        move |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => deadline.error("the guest's answer to a connection"),
            _ => Error::connection(what)(error),
        }
    };
    timed
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .map_err(failed("asking for a port"))?;
    accepted(&mut timed).map_err(failed("waiting for the guest to accept"))
}

/// Reads the device's answer and not a byte of what the guest says after it.
fn accepted(stream: &mut impl Read) -> io::Result<()> {
    let mut line = Vec::with_capacity(MAX_LINE_BYTES);
    let mut byte = [0];
    while line.len() < MAX_LINE_BYTES && !line.ends_with(b"\n") {
        match stream.read(&mut byte) {
            // The device closes what the guest refuses.
            Ok(0) => return Err(io::ErrorKind::ConnectionRefused.into()),
            Ok(_) => line.extend_from_slice(&byte),
            // A socket that was closed with our request unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Err(error) => return Err(error),
        }
    }
    if line.starts_with(b"OK ") && line.ends_with(b"\n") {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the device answered something else",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answers_own_line_is_read() {
        let mut stream = &b"OK 1073741824\nhello"[..];
        accepted(&mut stream).unwrap();
        assert_eq!(stream, b"hello");
    }

    #[test]
    fn answers_that_are_none_are_refused_and_bounded() {
        for bad in [
            &b"NO 1\n"[..],
            b"OK 99999999999999\n",
            b"\n",
            b"OKOKOKOKOKOKOKOKOKOK",
        ] {
            assert_eq!(
                accepted(&mut &bad[..]).unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{bad:?}"
            );
        }
        for closed in [&b""[..], b"OK 12"] {
            assert_eq!(
                accepted(&mut &closed[..]).unwrap_err().kind(),
                io::ErrorKind::ConnectionRefused
            );
        }
    }
}
