//! The machine's workload, and waiting for what it listens on.

mod support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use exec_proto::client::Event;
use exec_proto::{
    ErrorKind, ExecFlags, ExecRequest, ExitStatus, Failure, WORKLOAD_TAIL_BYTES, WorkloadReport,
    WorkloadState,
};
use support::{Client, TestAgent, agent_with_groups, plain_agent, scratch, sh};

/// Asks one thing on a connection of its own.
fn ask(agent: &TestAgent, queue: impl FnOnce(&mut Client)) -> Event {
    let mut client = Client::new(agent);
    queue(&mut client);
    loop {
        match client.event() {
            Some(Event::Hello(_)) => {}
            Some(event) => {
                client.hang_up();
                return event;
            }
            None => panic!("closed without an answer"),
        }
    }
}

fn report(event: Event) -> WorkloadReport {
    match event {
        Event::Workload(report) => report,
        other => panic!("{other:?}"),
    }
}

fn failure(event: Event) -> Failure {
    match event {
        Event::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn start(agent: &TestAgent, request: &ExecRequest) -> Event {
    ask(agent, |client| {
        client.session.start_workload(request).unwrap();
    })
}

fn status(agent: &TestAgent) -> WorkloadReport {
    report(ask(agent, |client| {
        let most = u32::try_from(WORKLOAD_TAIL_BYTES).unwrap();
        client.session.workload_status(most).unwrap();
    }))
}

fn signal(agent: &TestAgent, number: u32) -> Event {
    ask(agent, |client| {
        client.session.signal_workload(number).unwrap();
    })
}

fn await_port(agent: &TestAgent, port: u16, timeout_ms: u64) -> Event {
    ask(agent, |client| {
        client.session.await_listener(port, timeout_ms).unwrap();
    })
}

/// Waits until a report is as wanted.
fn until(agent: &TestAgent, wanted: impl Fn(&WorkloadReport) -> bool) -> WorkloadReport {
    let begin = Instant::now();
    loop {
        let report = status(agent);
        if wanted(&report) {
            return report;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{report:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ended(report: &WorkloadReport) -> bool {
    matches!(report.state, WorkloadState::Exited(_))
}

#[test]
fn workload_outlives_its_connection_and_keeps_its_output_and_status() {
    let agent = plain_agent();
    let nothing = status(&agent);
    assert_eq!(nothing.state, WorkloadState::NotStarted);
    assert_eq!((nothing.output_bytes, nothing.tail), (0, Vec::new()));

    let script = sh("echo out; read x < \"$0\"; echo \"$x\" >&2; exit 5");
    let dir = scratch("workload");
    let fifo = dir.join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let mut request = script;
    request.argv.push(fifo.to_str().unwrap().into());
    let started = report(start(&agent, &request));
    assert!(matches!(started.state, WorkloadState::Running { pid, .. } if pid > 1));
    let running = until(&agent, |report| report.tail == b"out\n");
    assert!(matches!(running.state, WorkloadState::Running { .. }));

    std::fs::write(&fifo, "go on\n").unwrap();
    let last = until(&agent, ended);
    let WorkloadState::Exited(exited) = last.state else {
        panic!("{last:?}");
    };
    assert_eq!(exited.status, ExitStatus::Code(5));
    assert!(exited.duration_ns > 0 && exited.peak_rss_kib > 0);
    assert_eq!(last.tail, b"out\ngo on\n");
    assert_eq!(last.output_bytes, 10);
    assert_eq!(signal(&agent, 15), Event::Done, "too late, and no matter");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn workload_is_started_once_and_a_failed_start_may_be_repeated() {
    let agent = plain_agent();
    assert_eq!(failure(signal(&agent, 15)).kind, ErrorKind::BadRequest);
    let missing = start(&agent, &ExecRequest::new(["no-such-program"]));
    assert_eq!(failure(missing).kind, ErrorKind::NotFound);
    assert_eq!(status(&agent).state, WorkloadState::NotStarted);
    report(start(&agent, &sh("exit 0")));
    let again = failure(start(&agent, &sh("exit 0")));
    assert_eq!(again.kind, ErrorKind::BadRequest);
    until(&agent, ended);
    let after = failure(start(&agent, &sh("exit 0")));
    assert_eq!(after.kind, ErrorKind::BadRequest);
}

#[test]
fn much_output_is_kept_to_its_end_only() {
    let agent = plain_agent();
    report(start(&agent, &sh("seq 1 200000")));
    let last = until(&agent, ended);
    assert_eq!(last.tail.len(), WORKLOAD_TAIL_BYTES);
    assert!(last.tail.ends_with(b"199999\n200000\n"));
    assert_eq!(last.output_bytes, 1_288_895);
    let few = report(ask(&agent, |client| {
        client.session.workload_status(7).unwrap();
    }));
    assert_eq!(few.tail, b"200000\n");
}

#[test]
fn signals_reach_the_workload() {
    let agent = plain_agent();
    let script = "trap 'echo usr1; exit 3' USR1; echo up; while :; do sleep 0.05; done";
    report(start(&agent, &sh(script)));
    until(&agent, |report| report.tail == b"up\n");
    assert_eq!(signal(&agent, 10), Event::Done);
    let last = until(&agent, ended);
    // A shell may add a word about the sleep that the signal ended, too.
    let text = String::from_utf8_lossy(&last.tail);
    assert!(text.lines().any(|line| line == "usr1"), "{text}");
    assert!(matches!(last.state, WorkloadState::Exited(e) if e.status == ExitStatus::Code(3)));
}

#[test]
fn kill_ends_all_descendants() {
    for agent in [Some(plain_agent()), agent_with_groups()] {
        let Some(agent) = agent else {
            eprintln!("no control groups to be made here: only the weaker kill was tried");
            continue;
        };
        let script = "sleep 1001 & a=$!; setsid sleep 1001 & echo $a $!; wait";
        report(start(&agent, &sh(script)));
        let up = until(&agent, |report| report.tail.ends_with(b"\n"));
        assert_eq!(signal(&agent, 9), Event::Done);
        let last = until(&agent, ended);
        assert!(
            matches!(last.state, WorkloadState::Exited(e) if e.status == ExitStatus::Signal(9)),
            "{last:?}"
        );
        let begin = Instant::now();
        for pid in String::from_utf8(up.tail).unwrap().split_ascii_whitespace() {
            while is_alive(pid) {
                assert!(begin.elapsed() < Duration::from_secs(10), "{pid} lives");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// True while a process exists and is not a zombie.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// A free port, as long as nobody else takes it.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn listener_is_seen_when_it_is_bound_on_v4_or_v6() {
    let agent = plain_agent();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else {
            eprintln!("no {address} here");
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        assert_eq!(await_port(&agent, port, 0), Event::Done, "{address}");
    }
    let port = free_port();
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        std::thread::sleep(Duration::from_secs(2));
        drop(listener);
    });
    let begin = Instant::now();
    assert_eq!(await_port(&agent, port, 20_000), Event::Done);
    assert!(begin.elapsed() >= Duration::from_millis(90));
    late.join().unwrap();
}

#[test]
fn wait_for_a_listener_ends_with_its_time_the_workload_or_the_host() {
    let agent = plain_agent();
    let port = free_port();
    let late = failure(await_port(&agent, port, 30));
    assert_eq!(late.kind, ErrorKind::TimedOut, "{late}");

    let mut client = Client::new(&agent);
    client.session.await_listener(port, 1 << 40).unwrap();
    client.send();
    std::thread::sleep(Duration::from_millis(50));
    let begin = Instant::now();
    client.hang_up();
    assert!(begin.elapsed() < Duration::from_secs(10), "agent waits on");

    report(start(&agent, &sh("sleep 0.1; exit 7")));
    let gone = failure(await_port(&agent, port, 20_000));
    assert_eq!(gone.kind, ErrorKind::WorkloadEnded);
    assert!(gone.message.contains("status 7"), "{gone}");
}

#[test]
fn workload_that_goes_to_the_background_is_still_waited_for() {
    let Some(agent) = agent_with_groups() else {
        eprintln!("no control groups to be made here: nothing to try");
        return;
    };
    let port = free_port();
    report(start(&agent, &sh("setsid sleep 1002 & exit 0")));
    until(&agent, ended);
    let late = failure(await_port(&agent, port, 100));
    assert_eq!(late.kind, ErrorKind::TimedOut, "{late}");
    assert_eq!(signal(&agent, 9), Event::Done);
    let gone = failure(await_port(&agent, port, 20_000));
    assert_eq!(gone.kind, ErrorKind::WorkloadEnded, "{gone}");
}

#[test]
fn user_directory_and_environment_apply_to_a_workload() {
    let agent = plain_agent();
    let dir = scratch("workload-cwd").join("made");
    let mut request = sh("pwd; echo $A");
    request.cwd = dir.to_str().unwrap().into();
    request.env.push(b"A=b".to_vec());
    request.flags = ExecFlags {
        create_cwd: true,
        ..ExecFlags::default()
    };
    report(start(&agent, &request));
    let last = until(&agent, ended);
    assert_eq!(last.tail, format!("{}\nb\n", dir.display()).into_bytes());
    std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
}

#[test]
fn machine_requests_are_refused_by_an_agent_without_a_machine() {
    let agent = plain_agent();
    let resume = exec_proto::Resume::new(&[1; 32], 1, [2; 16]);
    let refused = ask(&agent, |client| client.session.resume(&resume).unwrap());
    assert_eq!(failure(refused).kind, ErrorKind::NotPermitted);
    let refused = ask(&agent, |client| client.session.quiesce(true).unwrap());
    assert_eq!(failure(refused).kind, ErrorKind::NotPermitted);
    let refused = ask(&agent, |client| client.session.alone().unwrap());
    assert_eq!(failure(refused).kind, ErrorKind::NotPermitted);
    let refused = ask(&agent, |client| client.session.release().unwrap());
    assert_eq!(failure(refused).kind, ErrorKind::NotPermitted);
}
