//! Workers that do not keep to what they should: whoever waits for them is told
//! in time, and rid of them soon.

use super::handle::Worker;
use super::instance::Instance;
use super::process::Process;
use crate::deadline::Deadline;
use crate::link::passing::MOST;
use crate::link::protocol::{Boot, FromWorker, ToWorker, VERSION, send};
use crate::{Error, VmConfig};
use exec_proto::{ErrorKind, Failure, Hello, Reply};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_millis(400);
/// Far longer than the limits here, and shorter than those of before.
const SOON: Duration = Duration::from_secs(10);

/// A worker whose process does nothing and whose words are those of a thread.
fn worker(talk: impl FnOnce(UnixStream) + Send + 'static) -> (Worker, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let process = Command::new("sleep")
        .arg("600")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let log = std::fs::File::open("/dev/null").unwrap();
    let worker = Worker::over(Process::of_child(process), ours, log).unwrap();
    let talk = std::thread::spawn(move || talk(theirs));
    (worker, talk)
}

fn greet(to: &UnixStream) {
    send(to, &FromWorker::Hello { version: VERSION }).unwrap();
    let engine = "fake".to_owned();
    send(to, &FromWorker::Prepared { engine }).unwrap();
}

/// Announces a long message and sends it byte by byte.
fn drip(mut to: UnixStream) {
    let mut wire = (1_u32 << 20).to_le_bytes().to_vec();
    wire.resize(1 << 20, b' ');
    for byte in wire {
        if to.write_all(&[byte]).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn assert_rid_of(worker: Worker) {
    let (process, begun) = (worker.process(), Instant::now());
    drop(worker);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    // It has been killed; a busy system takes a moment to end it.
    assert!(process.ends_within(SOON));
}

#[test]
fn a_worker_that_drips_its_answer_is_late() {
    let (mut worker, talk) = worker(|to| {
        greet(&to);
        drip(to);
    });
    let begun = Instant::now();
    let answer = worker.order(&ToWorker::Reset, Deadline::within(LIMIT));
    assert!(matches!(answer, Err(Error::Timeout { .. })), "{answer:?}");
    assert!(begun.elapsed() < SOON);
    // It is not asked again, nor asked to end.
    let begun = Instant::now();
    assert!(matches!(
        worker.inspect(Deadline::within(Duration::from_secs(600))),
        Err(Error::Timeout { .. })
    ));
    assert!(worker.last_console().is_empty());
    assert_rid_of(worker);
    assert!(begun.elapsed() < SOON);
    talk.join().unwrap();
}

#[test]
fn a_worker_that_never_stops_talking_is_no_answer() {
    let (mut worker, talk) = worker(|to| {
        greet(&to);
        while send(&to, &FromWorker::Hello { version: VERSION }).is_ok() {}
    });
    let begun = Instant::now();
    let answer = worker.inspect(Deadline::within(LIMIT));
    assert!(matches!(answer, Err(Error::Worker { .. })), "{answer:?}");
    assert_rid_of(worker);
    assert!(begun.elapsed() < SOON);
    talk.join().unwrap();
}

#[test]
fn a_worker_that_talks_nonsense_is_ended_at_once() {
    for nonsense in [
        &b"\xff\xff\xff\xff"[..],
        b"\x02\0\0\0{]",
        b"\x04\0\0\0\"No\"",
    ] {
        let (mut worker, talk) = worker(move |mut to| to.write_all(nonsense).unwrap());
        let answer = worker.engine(Deadline::within(SOON));
        assert!(matches!(answer, Err(Error::Worker { .. })), "{answer:?}");
        assert_rid_of(worker);
        talk.join().unwrap();
    }
}

#[test]
fn a_worker_that_takes_no_orders_and_does_not_end_is_ended() {
    let (mut worker, talk) = worker(|to| {
        greet(&to);
        std::thread::sleep(LIMIT);
        drop(to);
    });
    let begun = Instant::now();
    // Longer than what the connection holds.
    let files = vec!["x".repeat(1024); MOST];
    let open = File::open("/dev/null").unwrap();
    let open = vec![open.as_fd(); MOST];
    let order = ToWorker::Capture {
        files,
        volumes: 0,
        unheld: false,
    };
    let answer = worker.order_with(&order, &open, Deadline::within(LIMIT));
    assert!(answer.is_err());
    assert_rid_of(worker);
    assert!(begun.elapsed() < SOON);
    talk.join().unwrap();

    let (worker, talk) = worker_that_stays();
    assert_rid_of(worker);
    talk.join().unwrap();
}

/// Healthy to the end, which it does not come to.
fn worker_that_stays() -> (Worker, JoinHandle<()>) {
    let (mut worker, talk) = worker(|to| greet(&to));
    assert_eq!(worker.engine(Deadline::within(SOON)).unwrap(), "fake");
    (worker, talk)
}

/// A program that talks to whoever starts it as a worker.
struct Program(PathBuf);

impl Program {
    fn new(name: &str, script: &str) -> Self {
        let name = format!("smworker-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        Self(path)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn no_worker_holds_a_start_beyond_its_limit() {
    // One byte less than the longest message, and then byte by byte.
    let drips = r"printf '\377\377\017\000' >&0; while :; do printf ' ' >&0; sleep 0.02; done";
    let silent = "exec sleep 600";
    let deaf = "trap '' TERM HUP; exec 0<&-; exec sleep 600";
    for (name, script) in [("drips", drips), ("silent", silent), ("deaf", deaf)] {
        let program = Program::new(name, script);
        let config = VmConfig::new().with_worker(&program.0);
        let begun = Instant::now();
        let instance = Instance::spawn(&config, 1).unwrap();
        let boot = Boot {
            kernel: "kernel".into(),
            init: "init".into(),
            memory_mib: 64,
            vcpus: 1,
            possible_vcpus: 1,
            layers: Vec::new(),
            mounts: Vec::new(),
            volumes: Vec::new(),
            cmdline: String::new(),
            network: None,
            secrets: None,
        };
        let files = [(); 2].map(|()| File::open("/dev/null").unwrap());
        let limit = Deadline::within(LIMIT);
        let error = instance.boot(boot, &files, limit).unwrap_err();
        assert!(
            matches!(error, Error::Timeout { .. } | Error::Worker { .. }),
            "{name}: {error:?}"
        );
        let (process, dir) = (instance.process().clone(), instance.dir().to_owned());
        drop(instance);
        assert!(begun.elapsed() < SOON, "{name}: {:?}", begun.elapsed());
        assert!(!process.is_alive() && !dir.exists(), "{name}");
    }
}

/// A line of shell that says this to the embedder.
fn words(messages: &[FromWorker]) -> String {
    let mut wire = Vec::new();
    for message in messages {
        send(&mut wire, message).unwrap();
    }
    let escaped: String = wire.iter().map(|byte| format!("\\{byte:03o}")).collect();
    format!("printf '{escaped}' >&0")
}

/// A machine whose kernel holds no programs, and whose agent answers nothing, or
/// to all it is asked this. To a second order to fork its worker says that it has
/// come.
fn machine_with_agent(answer: Option<Reply<'static>>) -> (Instance, Program, JoinHandle<()>) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("agent-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let engine = "fake".to_owned();
    let mut says = vec![
        FromWorker::Hello { version: VERSION },
        FromWorker::Prepared { engine },
        FromWorker::Unheld,
    ];
    if answer.is_some() {
        let message = "the second order".to_owned();
        says.push(FromWorker::Refused { message });
    }
    let program = Program::new(&name, &format!("{}\nexec sleep 600", words(&says)));
    let config = VmConfig::new().with_worker(&program.0);
    let instance = Instance::spawn(&config, 1).unwrap();
    // In the place of the one that its worker has.
    std::fs::remove_file(instance.exec_socket()).unwrap();
    let listener = UnixListener::bind(instance.exec_socket()).unwrap();
    let agent = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut wire = Vec::new();
            Reply::Hello(Hello::new(0)).encode(&mut wire);
            let mut request = [0; 1024];
            // A host that is through says nothing first.
            match stream.read(&mut request) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if let Some(answer) = &answer {
                answer.encode(&mut wire);
            }
            stream.write_all(&wire).unwrap();
            // Until the host hangs up.
            while stream.read(&mut request).is_ok_and(|count| count > 0) {}
        }
    });
    (instance, program, agent)
}

/// Lets go of a machine and of its agent, which waits for the next call.
fn hang_up(instance: Instance, agent: JoinHandle<()>) {
    let socket = instance.exec_socket().to_owned();
    let call = UnixStream::connect(&socket);
    drop(instance);
    drop(call);
    agent.join().unwrap();
}

/// Why no child is made of such a machine.
fn refusal(answer: Option<Reply<'static>>, limit: Duration) -> Error {
    let (instance, _program, agent) = machine_with_agent(answer);
    let begun = Instant::now();
    let config = VmConfig::new().with_restore_timeout(limit);
    let error = instance.fork(&config, 0, 0, 1).map(drop).unwrap_err();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    hang_up(instance, agent);
    error
}

#[test]
fn copies_of_a_guest_whose_kernel_cannot_hold_are_refused_with_its_reason() {
    let failure = Failure {
        kind: ErrorKind::NotPermitted,
        errno: 0,
        message: "use the kernel of cargo xtask assets".to_owned(),
    };
    let error = refusal(Some(Reply::Error(failure)), SOON);
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("use the kernel of"), "{error}");
}

#[test]
fn copies_of_a_guest_that_never_says_whether_it_has_programs_are_refused_in_time() {
    let error = refusal(None, LIMIT);
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
}

#[test]
fn copies_of_a_guest_without_programs_are_made_whatever_its_kernel() {
    let error = refusal(Some(Reply::Done), SOON);
    assert!(error.to_string().contains("the second order"), "{error}");
}
