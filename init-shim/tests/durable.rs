//! Commands that go on without their host, and hosts that come back.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use exec_proto::client::Event;
use exec_proto::{
    Attached, ErrorKind, ExecInfo, ExecRequest, Exited, Offsets, STDIN_WINDOW_BYTES, StdinState,
};
use init_shim::agent::Agent;
use support::{Client, plain_agent, scratch, sh, with_stdin};

/// Longer than anything takes on a host with too much to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the agent keeps of a stream.
const RING_BYTES: u64 = 256 * 1024;

fn durable(request: ExecRequest) -> ExecRequest {
    let mut request = request;
    request.flags.durable = true;
    request
}

fn at(stdout: u64) -> Offsets {
    Offsets { stdout, stderr: 0 }
}

/// Starts a durable command and gives its id.
fn start(client: &mut Client, request: ExecRequest) -> u64 {
    client.session.exec(&durable(request)).unwrap();
    loop {
        match client.event().unwrap() {
            Event::Durable { id } => return id,
            Event::Hello(_) | Event::Started { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn attach(agent: &Arc<Agent>, id: u64, from: Offsets) -> (Client, Attached) {
    let mut client = Client::new(agent);
    client.session.attach(id, from).unwrap();
    loop {
        match client.event().unwrap() {
            Event::Attached(attached) => return (client, attached),
            Event::Hello(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn list(agent: &Arc<Agent>) -> Vec<ExecInfo> {
    let mut client = Client::new(agent);
    client.session.list_execs().unwrap();
    loop {
        match client.event().unwrap() {
            Event::Execs(execs) => return execs,
            Event::Hello(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Waits until the agent says so of the one command there is.
fn await_info(agent: &Arc<Agent>, what: &str, is_so: impl Fn(&ExecInfo) -> bool) -> ExecInfo {
    let begun = Instant::now();
    loop {
        let execs = list(agent);
        if let Some(found) = execs.iter().find(|exec| is_so(exec)) {
            return found.clone();
        }
        assert!(begun.elapsed() < PATIENCE, "not {what}: {execs:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn has_ended(exec: &ExecInfo) -> bool {
    exec.ended.is_some()
}

/// Everything up to the end: output, bytes lost, and how it ended.
fn rest(client: &mut Client) -> (Vec<u8>, u64, Exited) {
    let (mut output, mut lost) = (Vec::new(), 0);
    loop {
        match client.event().unwrap() {
            Event::Stdout(data) => output.extend(data),
            Event::Gap { stderr, bytes } => {
                assert!(!stderr && output.is_empty(), "a gap in the middle");
                lost += bytes;
            }
            Event::Exited(exited) => return (output, lost, exited),
            Event::Stderr(_) | Event::StdinReady | Event::StdinClosed => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Lets a command go and gives its id, and what came of its output meanwhile.
fn detach(client: &mut Client) -> (u64, Offsets, Vec<u8>) {
    client.session.detach();
    let mut output = Vec::new();
    loop {
        match client.event().unwrap() {
            Event::Detached { id, sent } => return (id, sent, output),
            Event::Stdout(data) => output.extend(data),
            Event::Hello(_) | Event::Started { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn any_command_is_let_go_and_taken_up_where_it_was() {
    let agent = plain_agent();
    let mut client = Client::new(&agent);
    let script = "echo one; read word; echo two $word; read word; echo three $word; exit 5";
    client.session.exec(&with_stdin(sh(script))).unwrap();
    client.wait_for_output("one");
    let (id, sent, more) = detach(&mut client);
    assert_eq!((sent, &more[..]), (at(4), &b""[..]));
    assert_eq!(client.event(), None, "the connection is over");
    client.hang_up_without_waiting();
    let info = &list(&agent)[0];
    assert_eq!((info.id, info.attached, info.ended), (id, false, None));
    assert_eq!(info.argv[..2], [b"sh", &b"-c"[..]]);
    assert!(info.pid > 0 && info.age_ns > 0);

    let (mut client, attached) = attach(&agent, id, sent);
    assert_eq!(attached.from, sent);
    assert!(matches!(attached.stdin, StdinState::Open(window) if window > 0));
    client.session.write_stdin(b"a\n");
    client.wait_for_output("two a");
    // The connection breaks instead of being let go.
    client.hang_up();
    await_info(&agent, "alone", |exec| !exec.attached);

    // What was told before is told again on request, with what came since.
    // Of what came before it was let go nothing is kept.
    let (mut client, _) = attach(&agent, id, at(0));
    client.session.write_stdin(b"b\n");
    let (output, lost, exited) = rest(&mut client);
    assert_eq!(output, b"two a\nthree b\n");
    assert_eq!((lost, exited.status.shell_status()), (4, 5));
    client.hang_up();
}

#[test]
fn a_durable_command_tells_everything_from_its_start() {
    let agent = plain_agent();
    let mut client = Client::new(&agent);
    let id = start(&mut client, sh("echo one; echo two >&2; sleep 1000"));
    client.wait_for_output("one");
    client.hang_up_without_waiting();
    await_info(&agent, "written", |exec| {
        exec.written
            == Offsets {
                stdout: 4,
                stderr: 4,
            }
    });
    let (mut client, attached) = attach(&agent, id, Offsets::default());
    assert_eq!(attached.from, Offsets::default());
    client.wait_for_output("one");
    client.session.signal(15).unwrap();
    assert_eq!(rest(&mut client).2.status.shell_status(), 128 + 15);
    client.hang_up();

    // It is known after its end too, and says the same to whoever asks.
    for from in [0, 2, 4, 1000] {
        let (mut client, attached) = attach(&agent, id, at(from));
        assert_eq!(attached.from.stdout, from.min(4));
        assert_eq!((attached.pid, attached.stdin), (0, StdinState::Closed));
        let (output, lost, exited) = rest(&mut client);
        assert_eq!(output, &b"one\n"[usize::try_from(from.min(4)).unwrap()..]);
        assert_eq!((lost, exited.status.shell_status()), (0, 128 + 15));
        // The connection is free again.
        client.session.ping(7).unwrap();
        assert_eq!(client.event(), Some(Event::Pong(7)));
        client.hang_up();
    }
}

#[test]
fn what_is_lost_of_a_long_output_is_told() {
    let agent = plain_agent();
    let mut client = Client::new(&agent);
    let id = start(
        &mut client,
        with_stdin(sh("read go; seq -w 1 100000; exit 3")),
    );
    client.session.write_stdin(b"\n");
    detach(&mut client);
    client.hang_up_without_waiting();
    let info = await_info(&agent, "ended", has_ended);
    assert_eq!(info.written, at(700_000));
    let (mut client, _) = attach(&agent, id, at(70));
    let (output, lost, exited) = rest(&mut client);
    assert_eq!(lost, 700_000 - RING_BYTES - 70);
    assert_eq!(output.len() as u64, RING_BYTES);
    assert!(output.ends_with(b"099999\n100000\n"));
    assert_eq!(exited.status.shell_status(), 3);
    client.hang_up();
}

#[test]
fn a_host_that_is_there_loses_nothing_however_slow_it_is() {
    let agent = plain_agent();
    let mut client = Client::new(&agent);
    start(&mut client, sh("seq -w 1 200000"));
    // The command fills what there is between them, and waits.
    std::thread::sleep(Duration::from_millis(300));
    let (output, lost, _) = rest(&mut client);
    assert_eq!((output.len(), lost), (1_400_000, 0));
    client.hang_up();
}

#[test]
fn the_last_host_that_calls_has_the_streams() {
    let agent = plain_agent();
    let mut first = Client::new(&agent);
    // It reads nothing: who comes must not wait for it.
    let id = start(&mut first, sh("yes 0123456"));
    let (mut second, _) = attach(&agent, id, at(u64::MAX));
    second.wait_for_output("0123456\n0123456");
    let (mut third, attached) = attach(&agent, id, at(u64::MAX));
    assert!(attached.pid > 0);
    third.wait_for_output("0123456\n0123456");
    // One that has more on its way than it takes sees the end of its connection.
    while second.event().is_some() {}
    third.session.signal(9).unwrap();
    while !matches!(third.event(), Some(Event::Exited(_))) {}
    // The thread that attends to the command serves whoever has its streams.
    third.hang_up_without_waiting();
    first.hang_up();
    second.hang_up();
}

#[test]
fn a_host_whose_command_is_taken_over_is_told_so() {
    let agent = plain_agent();
    let mut first = Client::new(&agent);
    let id = start(&mut first, sh("sleep 1000"));
    let (mut second, _) = attach(&agent, id, at(0));
    match first.event() {
        Some(Event::Failed(failure)) => assert_eq!(failure.kind, ErrorKind::TakenOver),
        other => panic!("{other:?}"),
    }
    second.session.signal(9).unwrap();
    assert_eq!(rest(&mut second).2.status.shell_status(), 128 + 9);
    second.hang_up_without_waiting();
    first.hang_up();
}

#[test]
fn input_on_its_way_reaches_the_command_and_counts_for_the_next_host() {
    let agent = plain_agent();
    let mut client = Client::new(&agent);
    let dir = scratch("input");
    let go = dir.join("go");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; wc -c",
        go.display()
    );
    let id = start(&mut client, with_stdin(sh(&script)));
    let block = vec![b'x'; STDIN_WINDOW_BYTES];
    assert_eq!(client.session.write_stdin(&block), block.len());
    detach(&mut client);
    client.hang_up_without_waiting();
    let (mut client, attached) = attach(&agent, id, at(0));
    let StdinState::Open(window) = attached.stdin else {
        panic!("{attached:?}");
    };
    // The pipe has some of it.
    assert!((window as usize) < STDIN_WINDOW_BYTES);
    std::fs::write(&go, "").unwrap();
    let mut left = 100_000;
    while left > 0 {
        left -= client.session.write_stdin(&block[..left]);
        if left > 0 {
            assert_eq!(client.event(), Some(Event::StdinReady));
        }
    }
    client.session.close_stdin();
    let (output, _, _) = rest(&mut client);
    let expected = STDIN_WINDOW_BYTES + 100_000;
    assert_eq!(
        String::from_utf8(output).unwrap().trim(),
        expected.to_string()
    );
    client.hang_up();
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_terminal_is_taken_up_and_resized() {
    let agent = plain_agent();
    let mut client = Client::new(&agent);
    let mut request = with_stdin(sh("stty -echo; echo ready; read x; stty size; read x"));
    request.flags.tty = true;
    let id = start(&mut client, request);
    client.wait_for_output("ready");
    detach(&mut client);
    client.hang_up_without_waiting();
    let (mut client, attached) = attach(&agent, id, at(u64::MAX));
    assert!(attached.tty);
    client
        .session
        .resize(exec_proto::WinSize { cols: 91, rows: 17 });
    client.session.write_stdin(b"\n");
    client.wait_for_output("17 91");
    client.session.write_stdin(b"\n");
    assert_eq!(rest(&mut client).2.status.shell_status(), 0);
    client.hang_up();
}

#[test]
fn unknown_and_forgotten_commands_are_told_apart_from_none() {
    let agent = plain_agent();
    let refused = |id| {
        let mut client = Client::new(&agent);
        client.session.attach(id, at(0)).unwrap();
        let failed = std::iter::from_fn(|| client.event()).find_map(|event| match event {
            Event::Failed(failure) => Some(failure.kind),
            _ => None,
        });
        client.hang_up();
        failed
    };
    assert_eq!(refused(1), Some(ErrorKind::NoSuchExec));
    let mut first = 0;
    for round in 0..40 {
        let mut client = Client::new(&agent);
        let id = start(&mut client, ExecRequest::new(["true"]));
        if round == 0 {
            first = id;
        }
        rest(&mut client);
        client.hang_up();
    }
    // The latest are known, in order.
    let ids: Vec<u64> = list(&agent).iter().map(|exec| exec.id).collect();
    assert!(ids.len() < 40 && ids.is_sorted(), "{ids:?}");
    assert_eq!(ids.last(), Some(&(first + 39)));
    assert_eq!(refused(first), Some(ErrorKind::NoSuchExec));
}

#[test]
fn a_host_that_breaks_the_rules_loses_a_durable_command_and_does_not_end_it() {
    use std::io::Write;
    let agent = plain_agent();
    let mut client = Client::new(&agent);
    let id = start(&mut client, sh("sleep 1000"));
    client.stream.write_all(&[0xff; 8]).unwrap();
    client.hang_up_without_waiting();
    let info = await_info(&agent, "alone", |exec| !exec.attached);
    assert_eq!((info.id, info.ended), (id, None));
    let (mut client, _) = attach(&agent, id, at(0));
    client.session.signal(9).unwrap();
    assert_eq!(rest(&mut client).2.status.shell_status(), 128 + 9);
    client.hang_up();
}

#[test]
fn a_program_that_is_missing_is_told_to_who_asks_later() {
    let agent = plain_agent();
    let mut client = Client::new(&agent);
    let id = start(&mut client, ExecRequest::new(["/no/such/program"]));
    assert!(!rest(&mut client).2.executed);
    client.hang_up();
    let mut client = Client::new(&agent);
    client.session.attach(id, Offsets::default()).unwrap();
    let ran = client.finish();
    assert!(String::from_utf8_lossy(&ran.stderr).contains("no such program"));
    assert_eq!(ran.code(), 127);
    client.hang_up();
}

#[test]
fn time_limits_hold_without_a_host() {
    let agent = plain_agent();
    let mut client = Client::new(&agent);
    let mut request = sh("sleep 1000");
    request.timeout_ms = 200;
    client.session.exec(&request).unwrap();
    let (id, _, _) = detach(&mut client);
    client.hang_up_without_waiting();
    let info = await_info(&agent, "ended", has_ended);
    assert_eq!(info.id, id);
    assert!(info.ended.unwrap().timed_out);
}

#[test]
fn each_step_of_a_chain_has_a_status_of_its_own() {
    let mut client = Client::new(&plain_agent());
    let mut request = sh("sleep 0.05");
    let word = |text: &str| text.as_bytes().to_vec();
    request.chain = vec![
        vec![word("true")],
        vec![word("/no/such")],
        vec![word("true")],
    ];
    client.session.exec(&request).unwrap();
    let mut steps = Vec::new();
    let last = loop {
        match client.event().unwrap() {
            Event::Step(step) => steps.push(step),
            Event::Exited(exited) => break exited,
            _ => {}
        }
    };
    assert_eq!(steps.len(), 2);
    assert!(steps[0].duration_ns >= 50_000_000);
    assert!(last.duration_ns >= steps[0].duration_ns + steps[1].duration_ns);
    assert_eq!((steps[0].step, steps[1].step, last.step), (0, 1, 2));
    assert!(
        steps
            .iter()
            .all(|step| step.executed && step.peak_rss_kib > 0)
    );
    assert!(!last.executed);
    client.hang_up();
}
