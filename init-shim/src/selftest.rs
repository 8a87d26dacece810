//! Runs one command through the agent and tells what it did, for machines
//! that have a console but no host on the other side of their vsock.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use exec_proto::ExecRequest;
use exec_proto::client::{Event, Session};

/// Runs `argv` over a connection to an agent, as a host would. Returns its
/// output with a last line about its end.
///
/// # Errors
/// If the connection fails or the agent and its client disagree.
pub fn run(connection: OwnedFd, argv: &[String]) -> io::Result<Vec<u8>> {
    let mut stream = File::from(connection);
    let mut session = Session::new();
    let request = ExecRequest::new(argv.iter().map(|a| a.as_bytes().to_vec()));
    session.exec(&request).map_err(io::Error::other)?;
    stream.write_all(session.outgoing())?;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while let Some(event) = session.next_event().map_err(io::Error::other)? {
            match event {
                Event::Stdout(data) | Event::Stderr(data) => text.extend(data),
                Event::Exited(exited) => {
                    let line = format!(
                        "selftest: status {} after {} us, {} KiB\n",
                        exited.status.shell_status(),
                        exited.duration_ns / 1000,
                        exited.peak_rss_kib
                    );
                    text.extend(line.into_bytes());
                    return Ok(text);
                }
                Event::Failed(failure) => {
                    text.extend(format!("selftest: failed: {failure}\n").into_bytes());
                    return Ok(text);
                }
                _ => {}
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => session.feed(buffer.get(..count).unwrap_or_default()),
        }
    }
}
