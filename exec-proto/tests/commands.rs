//! Workloads, chains, ports, and commands that outlive their connections, at both ends.

mod support;

use supermachine_exec_proto::client::{Event, Session};
use supermachine_exec_proto::server::Parser;
use supermachine_exec_proto::{
    ExecFlags, ExecRequest, Kind, MAX_DATA_BYTES, Reply, Request, STDIN_WINDOW_BYTES, StdinState,
    Transport, WorkloadReport, WorkloadState, encode_header,
};
use support::*;

#[test]
fn workload_with_what_needs_a_connection_is_refused_by_both_ends() {
    let plain = || ExecRequest::new(["serve"]);
    let flags = |tty, stdin| ExecFlags {
        tty,
        stdin,
        ..ExecFlags::default()
    };
    let bad = [
        ExecRequest {
            flags: flags(true, false),
            ..plain()
        },
        ExecRequest {
            flags: flags(false, true),
            ..plain()
        },
        ExecRequest {
            timeout_ms: 1,
            ..plain()
        },
        ExecRequest {
            chain: vec![vec![b"next".to_vec()]],
            ..plain()
        },
    ];
    for request in bad {
        assert!(Session::new().start_workload(&request).is_err());
        let mut bytes = Vec::new();
        Request::StartWorkload(request).encode(&mut bytes);
        let payload = &bytes[supermachine_exec_proto::HEADER_BYTES..];
        assert!(Request::decode(Kind::StartWorkload, payload).is_err());
    }
    assert!(Session::new().await_listener(0, 1).is_err());
    assert!(Session::new().signal_workload(0).is_err());
}

#[test]
fn dialed_connection_carries_what_the_port_speaks() {
    let mut session = Session::new();
    session.dial(Transport::Tcp, 22).unwrap();
    let mut wire = wire(&[hello(), Reply::Done]);
    wire.extend_from_slice(b"SSH-2.0-");
    session.feed(&wire);
    let hello = session.next_event().unwrap();
    assert!(matches!(hello, Some(Event::Hello(_))), "{hello:?}");
    assert_eq!(session.next_event().unwrap(), Some(Event::Done));
    assert_eq!(session.take_rest(), b"SSH-2.0-");
    assert!(session.take_rest().is_empty());

    let mut parser = Parser::new();
    let mut sent = session.outgoing().to_vec();
    sent.extend_from_slice(&[0xff; 20]);
    parser.feed(&sent);
    assert!(matches!(parser.next_request(), Ok(Some(Request::Hello(_)))));
    let dial = Request::Dial {
        transport: Transport::Tcp,
        port: 22,
    };
    assert_eq!(parser.next_request(), Ok(Some(dial)));
    assert_eq!(parser.take_rest(), [0xff; 20]);

    assert!(Session::new().dial(Transport::Tcp, 0).is_err());
    for bad in [[0_u32, 0], [65_536, 0], [80, 2]] {
        let payload: Vec<u8> = bad.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert!(Request::decode(Kind::Dial, &payload).is_err(), "{bad:?}");
    }
}

#[test]
fn answers_to_workload_requests_come_in_their_order() {
    let mut session = Session::new();
    session
        .start_workload(&ExecRequest::new(["serve"]))
        .unwrap();
    session.await_listener(80, 1000).unwrap();
    session.workload_status(10).unwrap();
    session.signal_workload(15).unwrap();
    session.quiesce(false).unwrap();
    let report = WorkloadReport {
        state: WorkloadState::Running { pid: 3, for_ns: 4 },
        output_bytes: 2,
        tail: b"up".to_vec(),
    };
    let status = || Reply::Workload(report.clone());
    session.feed(&wire(&[hello(), status(), Reply::Done, status()]));
    let event = Event::Workload(report.clone());
    assert_eq!(
        events(&mut session).unwrap()[1..],
        [event.clone(), Event::Done, event]
    );
    session.feed(&wire(&[Reply::Done, Reply::Done, Reply::Done]));
    assert!(events(&mut session).is_err(), "one answer too many");
}

#[test]
fn steps_are_told_of_a_chain_and_no_more_than_it_has() {
    let mut session = Session::new();
    session
        .exec(&ExecRequest {
            chain: vec![vec![b"b".to_vec()]],
            ..ExecRequest::new(["a"])
        })
        .unwrap();
    session.feed(&wire(&[
        hello(),
        Reply::Started { pid: 1 },
        Reply::Step(EXITED),
    ]));
    assert_eq!(
        events(&mut session).unwrap().last(),
        Some(&Event::Step(EXITED))
    );
    session.feed(&wire(&[Reply::Step(EXITED)]));
    assert!(events(&mut session).is_err());
}

#[test]
fn a_command_is_let_go_only_if_that_was_asked_for() {
    let detached = Reply::Detached {
        id: 5,
        sent: OFFSETS,
    };
    let begin = || {
        let mut session = Session::new();
        session.exec(&ExecRequest::new(["a"])).unwrap();
        session.feed(&wire(&[hello(), Reply::Started { pid: 1 }]));
        events(&mut session).unwrap();
        session
    };
    let mut session = begin();
    session.feed(&wire(std::slice::from_ref(&detached)));
    assert!(events(&mut session).is_err());
    let mut session = begin();
    session.detach();
    session.feed(&wire(&[Reply::Stdout(b"last"), detached]));
    assert_eq!(
        events(&mut session).unwrap().last(),
        Some(&Event::Detached {
            id: 5,
            sent: OFFSETS
        })
    );
    assert!(session.is_over() && session.ping(1).is_err());
}

#[test]
fn streams_that_are_taken_up_go_on_as_those_of_a_command_that_was_started() {
    let mut session = Session::new();
    session.attach(3, OFFSETS).unwrap();
    // Nothing may come before the agent has said where it begins.
    let mut early = Session::new();
    early.attach(3, OFFSETS).unwrap();
    early.feed(&wire(&[hello(), Reply::Stdout(b"x")]));
    assert!(events(&mut early).is_err());
    assert_eq!(session.stdin_capacity(), 0);
    session.feed(&wire(&[
        hello(),
        Reply::Attached(attached(StdinState::Open(6))),
        Reply::Gap {
            stderr: false,
            bytes: 10,
        },
        Reply::Stdout(b"x"),
    ]));
    assert_eq!(events(&mut session).unwrap().len(), 4);
    assert_eq!(session.write_stdin(b"12345678"), 6);
    session.feed(&wire(&[Reply::StdinWindow(6), Reply::Exited(EXITED)]));
    assert_eq!(
        events(&mut session).unwrap(),
        [Event::StdinReady, Event::Exited(EXITED)]
    );
    let mut greedy = Session::new();
    greedy.attach(3, OFFSETS).unwrap();
    let window = u32::try_from(STDIN_WINDOW_BYTES + 1).unwrap();
    greedy.feed(&wire(&[
        hello(),
        Reply::Attached(attached(StdinState::Open(window))),
    ]));
    assert!(events(&mut greedy).is_err());
}

#[test]
fn a_list_of_commands_promises_no_more_than_it_has() {
    let mut session = Session::new();
    session.list_execs().unwrap();
    let mut bytes = wire(&[hello()]);
    bytes.extend_from_slice(&encode_header(Kind::Execs, 4));
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    session.feed(&bytes);
    assert!(events(&mut session).is_err());
}

#[test]
fn a_file_is_staged_in_pieces_and_nothing_comes_between() {
    let mut session = Session::new();
    assert!(session.stage_piece(b"x").is_err() && session.end_staging().is_err());
    assert!(session.begin_staging(b"relative", 0o644).is_err());
    session.begin_staging(b"/f", 0o100_640).unwrap();
    assert!(session.ping(1).is_err() && session.begin_staging(b"/g", 0).is_err());
    session.stage_piece(&vec![7; MAX_DATA_BYTES + 1]).unwrap();
    session.end_staging().unwrap();
    session.ping(1).unwrap();
    let seen = requests(session.outgoing());
    assert_eq!(seen.len(), 6, "{seen:?}");
    assert!(seen[1].contains("mode: 416, first: true"), "{}", seen[1]);
    assert!(seen[4].contains("last: true") && seen[5].contains("Ping"));
}
