//! The pool of accepting threads, and connections that the agent opens.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use exec_proto::client::{Event, Session};
use exec_proto::{ExecRequest, ExitStatus, Request};
use init_shim::agent::{Agent, Buffers, Dialer, Doorway, Greeting, Workers};
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

/// A host that the agent dials: a listener, and a dialer for it.
fn dialed_host(dir: &Path) -> (UnixListener, Dialer) {
    let path = dir.join("host");
    let listener = UnixListener::bind(&path).unwrap();
    let greeting = Greeting::Ready {
        started_ns: 5,
        ready_ns: 6,
    };
    let dial = move || UnixStream::connect(&path).map(OwnedFd::from);
    (listener, Dialer::new(dial, greeting))
}

fn accept(listener: &UnixListener) -> UnixStream {
    let (stream, _) = listener.accept().unwrap();
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).unwrap();
    stream
}

#[test]
fn dialed_connection_starts_with_facts_and_the_next_follows_its_use() {
    let dir = scratch("dialed");
    let (workers, _) = workers_at(dir.join("agent"));
    let (listener, dialer) = dialed_host(&dir);
    workers.keep_dialed(dialer).unwrap();
    let mut used = Vec::new();
    for number in 0..20 {
        let mut host = accept(&listener);
        let before = exits_with(&mut host, number);
        let Some(Event::Ready(ready)) = before.first() else {
            panic!("{before:?}");
        };
        assert_eq!((ready.started_ns, ready.ready_ns), (5, 6));
        assert!(!ready.kernel_release.is_empty());
        used.push(host);
    }
    // Those in use are kept open while the next one waits.
    for host in used {
        host.set_nonblocking(true).unwrap();
        let nothing = (&host).read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(nothing, Err(ErrorKind::WouldBlock));
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn agent_calls_again_when_its_connection_is_cut_but_not_without_end() {
    let dir = scratch("cut");
    let (workers, _) = workers_at(dir.join("agent"));
    let (listener, dialer) = dialed_host(&dir);
    workers.keep_dialed(dialer).unwrap();
    drop(accept(&listener));
    exits_with(&mut accept(&listener), 1);
    // 10, 20, … 160 ms between them: a busy loop would make thousands.
    let begin = Instant::now();
    let mut calls = 0;
    while begin.elapsed() < Duration::from_millis(500) {
        drop(accept(&listener));
        calls += 1;
    }
    assert!(calls < 10, "{calls} calls");
    exits_with(&mut accept(&listener), 2);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn next_connection_is_there_while_a_command_runs() {
    let dir = scratch("while");
    let (workers, _) = workers_at(dir.join("agent"));
    let (listener, dialer) = dialed_host(&dir);
    workers.keep_dialed(dialer).unwrap();
    let mut busy = accept(&listener);
    let mut session = Session::new();
    session.exec(&ExecRequest::new(["sleep", "1000"])).unwrap();
    busy.write_all(session.outgoing()).unwrap();
    exits_with(&mut accept(&listener), 4);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn connections_without_a_request_are_dropped_and_used_ones_stay() {
    let limit = Duration::from_millis(100);
    let agent = Agent::new(None, false).unwrap().with_patience(limit);
    let pair = || {
        let (host, guest) = UnixStream::pair().unwrap();
        let patience = Some(Duration::from_secs(60));
        host.set_read_timeout(patience).unwrap();
        (host, guest)
    };
    let ((mut silent, first), (mut used, second)) = (pair(), pair());
    thread::scope(|scope| {
        let serve = |socket: UnixStream| {
            let (agent, mut buffers) = (&agent, Buffers::default());
            scope.spawn(move || {
                init_shim::agent::serve(agent, socket.into(), &Greeting::Hello, &mut buffers);
            });
        };
        serve(first);
        serve(second);
        let mut session = Session::new();
        session.ping(1).unwrap();
        used.write_all(session.outgoing()).unwrap();
        let mut rest = Vec::new();
        silent.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        let mut bytes = [0; 256];
        assert_ne!(used.read(&mut bytes).unwrap(), 0);
        // Idle for longer than the limit, but it was used.
        thread::sleep(3 * limit);
        let mut again = Vec::new();
        Request::Ping(2).encode(&mut again);
        used.write_all(&again).unwrap();
        assert_ne!(used.read(&mut bytes).unwrap(), 0);
        drop(used);
    });
}
