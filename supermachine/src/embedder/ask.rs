//! Asks a worker what any process of the user may ask.

use super::dial::connect;
use crate::Error;
use crate::deadline::{Deadline, Timed};
use crate::link::monitor::{Answer, Question, socket};
use crate::link::protocol;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A connection on which something was asked, and the answer.
pub fn ask(
    dir: &Path,
    question: Question,
    deadline: Deadline,
) -> Result<(UnixStream, Answer), Error> {
    let stream = connect(&socket(dir), deadline)?;
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::TimedOut => deadline.error("an answer of the worker process"),
        _ => Error::connection("asking the worker")(source),
    };
    let mut timed = Timed::new(&stream, deadline);
    protocol::send(&mut timed, &question).map_err(failed)?;
    match protocol::receive(&mut timed).map_err(failed)? {
        Some(Answer::Refused { message }) => Err(Error::Refused { message }),
        Some(answer) => Ok((stream, answer)),
        None => Err(failed(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// The error for an answer to something else.
pub fn unexpected() -> Error {
    Error::connection("asking the worker")(io::Error::other("it answered another question"))
}
