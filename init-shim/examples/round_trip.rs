//! Times `COMMAND` against an agent started with `init-shim --serve-unix PATH`:
//! `round_trip PATH COUNT COMMAND…`, a fresh connection each time.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use exec_proto::ExecRequest;
use exec_proto::client::{Event, Session};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: PATH COUNT COMMAND…")?;
    let count: usize = arguments.next().ok_or("no count")?.parse()?;
    let request = ExecRequest::new(arguments);
    let mut times = Vec::new();
    let mut reads = 0;
    for _ in 0..count {
        let begin = Instant::now();
        let mut stream = UnixStream::connect(&path)?;
        let mut session = Session::new();
        session.exec(&request)?;
        stream.write_all(session.outgoing())?;
        let mut buffer = [0; 4096];
        'command: loop {
            while let Some(event) = session.next_event()? {
                match event {
                    Event::Exited(_) => break 'command,
                    Event::Failed(failure) => return Err(failure.into()),
                    _ => {}
                }
            }
            let received = stream.read(&mut buffer)?;
            reads += 1;
            session.feed(&buffer[..received]);
        }
        times.push(begin.elapsed());
    }
    times.sort();
    println!(
        "p50 {:?}, p99 {:?}, {:.1} packets per answer",
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        reads as f64 / count as f64
    );
    Ok(())
}
