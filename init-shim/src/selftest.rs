//! Runs one command through the agent and prints what it did, for machines
//! that have a console but no vsock.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use exec_proto::ExecRequest;
use exec_proto::client::{Event, Session};

use crate::agent::{Agent, Buffers, Greeting, serve};

/// Runs `argv` over a socket pair, the same way a host would over vsock.
/// Returns its output with a last line about its end.
///
/// # Errors
/// If there is no socket pair, or the agent and its client disagree.
pub fn run(agent: &Agent, argv: &[String]) -> io::Result<Vec<u8>> {
    let (client, server) = UnixStream::pair()?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let socket = OwnedFd::from(server);
            serve(agent, socket, &Greeting::Hello, &mut Buffers::default());
        });
        let output = talk(&client, argv);
        drop(client);
        output
    })
}

fn talk(mut stream: &UnixStream, argv: &[String]) -> io::Result<Vec<u8>> {
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
