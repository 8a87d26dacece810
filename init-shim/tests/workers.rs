//! The pool of accepting threads, and connections that the agent opens.

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use exec_proto::client::{Event, Session};
use exec_proto::{ExecRequest, ExitStatus};
use init_shim::agent::{Agent, Doorway, Greeting, Workers};
use support::scratch;

type Listening = Arc<Mutex<Option<UnixStream>>>;

/// Workers on a socket at the given path, and a second handle to the listener.
fn workers_at(path: PathBuf) -> (Arc<Workers>, Listening) {
    let listening = Listening::default();
    let handle = Arc::clone(&listening);
    let doorway = Doorway::new(move || {
        let _ = std::fs::remove_file(&path);
        let listener = OwnedFd::from(UnixListener::bind(&path)?);
        *handle.lock().unwrap() = Some(UnixStream::from(listener.try_clone()?));
        Ok(listener)
    });
    let agent = Agent::new(None, false).unwrap();
    (Workers::start(agent, doorway.unwrap()).unwrap(), listening)
}

/// Runs `exit NUMBER` over a connection and gives what came before its start.
fn exits_with(stream: &mut UnixStream, number: u8) -> Vec<Event> {
    let mut session = Session::new();
    let script = format!("exit {number}");
    session
        .exec(&ExecRequest::new(["sh", "-c", &script]))
        .unwrap();
    stream.write_all(session.outgoing()).unwrap();
    let mut before = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while let Some(event) = session.next_event().unwrap() {
            match event {
                Event::Exited(exited) => {
                    assert_eq!(exited.status, ExitStatus::Code(number));
                    return before;
                }
                event => before.push(event),
            }
        }
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "agent closed");
        session.feed(&buffer[..count]);
    }
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).unwrap();
    stream
}

#[test]
fn idle_connections_do_not_keep_others_out() {
    let dir = scratch("workers");
    let path = dir.join("agent");
    let (_workers, _) = workers_at(path.clone());
    let idle: Vec<_> = (0..40).map(|_| connect(&path)).collect();
    for (number, mut stream) in (0..).zip(idle) {
        exits_with(&mut connect(&path), 7);
        exits_with(&mut stream, number);
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn broken_listener_is_opened_again() {
    let dir = scratch("listener");
    let path = dir.join("agent");
    let (_workers, listening) = workers_at(path.clone());
    exits_with(&mut connect(&path), 1);
    let listener = listening.lock().unwrap().take().unwrap();
    listener.shutdown(Shutdown::Both).unwrap();
    for _ in 0..100 {
        if listening.lock().unwrap().is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    exits_with(&mut connect(&path), 2);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn connection_of_the_agent_starts_with_facts_and_serves_like_others() {
    let dir = scratch("outgoing");
    let (workers, _) = workers_at(dir.join("agent"));
    let (mut host, guest) = UnixStream::pair().unwrap();
    let greeting = Greeting::Ready {
        started_ns: 5,
        ready_ns: 6,
    };
    workers
        .serve_outgoing(move || Some((OwnedFd::from(guest), greeting)))
        .unwrap();
    let before = exits_with(&mut host, 3);
    let Some(Event::Ready(ready)) = before.first() else {
        panic!("{before:?}");
    };
    assert_eq!((ready.started_ns, ready.ready_ns), (5, 6));
    assert!(!ready.kernel_release.is_empty());
    std::fs::remove_dir_all(&dir).unwrap();
}
