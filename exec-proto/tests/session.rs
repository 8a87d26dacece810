//! Both ends against each other and against bytes that break the rules.

mod support;

use supermachine_exec_proto::client::{Event, Session};
use supermachine_exec_proto::server::Parser;
use supermachine_exec_proto::{
    AgentReady, Deframer, Direction, ErrorKind, ExecFlags, ExecInfo, ExecLimits, ExecRequest,
    Failure, FileChunk, HEADER_BYTES, Hello, Kind, MAX_DATA_BYTES, MAX_FILE_BYTES,
    MAX_HOSTNAME_BYTES, Offsets, ProtoError, Reply, Request, Resume, STDIN_WINDOW_BYTES,
    StdinState, Transport, VERSION, WORKLOAD_TAIL_BYTES, WinSize, WorkloadReport, WorkloadState,
    encode_header,
};
use support::*;

#[test]
fn every_request_survives_the_wire() {
    let exec = ExecRequest {
        argv: vec![b"sh".to_vec(), b"-c".to_vec(), b"\xff".to_vec()],
        env: vec![b"A=1".to_vec(), b"B=".to_vec()],
        cwd: b"/srv".to_vec(),
        user: b"www:33".to_vec(),
        flags: ExecFlags {
            tty: true,
            stdin: true,
            create_cwd: true,
            durable: true,
            exact_env: true,
            agent_tool: true,
        },
        winsize: WinSize {
            cols: 132,
            rows: 50,
        },
        timeout_ms: 1 << 40,
        limits: ExecLimits {
            memory_bytes: 1 << 50,
            processes: 7,
            cpu_thousandths: 1500,
        },
        chain: vec![vec![b"true".to_vec()], vec![b"echo".to_vec(), Vec::new()]],
    };
    exec.check().unwrap();
    let longest = [b'a'; MAX_HOSTNAME_BYTES];
    let resume = Resume {
        hostname: &longest,
        vcpus: 16,
        machine_id: Some([8; 16]),
        ..Resume::new(&[1; 64], u64::MAX, [7; 16])
    };
    resume.check().unwrap();
    let all = [
        Request::Hello(Hello::new(5)),
        Request::Exec(exec),
        Request::FileChunk(FileChunk {
            path: b"/tmp/x",
            mode: 0o4755,
            first: true,
            last: false,
            ack: true,
            data: &[0; MAX_DATA_BYTES],
        }),
        Request::Stdin(b"abc"),
        Request::StdinEof,
        Request::Signal(15),
        Request::Resize(WinSize { cols: 1, rows: 2 }),
        Request::Detach,
        Request::Attach {
            id: 1 << 60,
            from: OFFSETS,
        },
        Request::ListExecs,
        Request::Ping(u64::MAX),
        Request::SetTime(1),
        Request::Reseed(&[7; 64]),
        Request::ReadFile(b"/etc/passwd"),
        Request::Sync,
        Request::Shutdown,
        Request::Resume(resume),
        Request::Resume(Resume::new(&[2; 32], 1, [3; 16])),
        Request::Resume(Resume {
            stay_held: true,
            ..resume
        }),
        Request::Quiesce { drop_caches: true },
        Request::Alone,
        Request::Release,
        Request::EnterRoot(b"sm.layers=2"),
        Request::StartWorkload(ExecRequest::new(["serve"])),
        Request::WorkloadSignal(9),
        Request::WorkloadStatus { tail_bytes: 5 },
        Request::AwaitListener {
            port: 65_535,
            timeout_ms: u64::MAX,
        },
        Request::Dial {
            transport: Transport::Udp,
            port: 1,
        },
    ];
    let mut bytes = Vec::new();
    for request in &all {
        request.encode(&mut bytes);
    }
    let mut parser = Parser::new();
    parser.feed(&bytes);
    for request in &all {
        assert_eq!(parser.next_request().unwrap().as_ref(), Some(request));
    }
    assert_eq!(parser.next_request().unwrap(), None);
}

#[test]
fn every_reply_survives_the_wire() {
    let all = [
        hello(),
        Reply::Ready(AgentReady {
            hello: Hello::new(1),
            started_ns: 5,
            ready_ns: 6,
            kernel_release: b"6.12.0".to_vec(),
        }),
        Reply::Started { pid: 7 },
        Reply::Stdout(b"out"),
        Reply::Stderr(&[1; MAX_DATA_BYTES]),
        Reply::StdinWindow(9),
        Reply::StdinClosed,
        Reply::Exited(EXITED),
        Reply::Step(EXITED),
        Reply::Durable { id: 3 },
        Reply::Detached {
            id: 4,
            sent: OFFSETS,
        },
        Reply::Attached(attached(StdinState::Open(5))),
        Reply::Attached(attached(StdinState::Closed)),
        Reply::Gap {
            stderr: true,
            bytes: 1 << 40,
        },
        Reply::Execs(vec![
            ExecInfo {
                id: 1,
                pid: 2,
                argv: vec![b"sh".to_vec(), b"\xff".to_vec()],
                tty: true,
                attached: false,
                age_ns: 9,
                written: OFFSETS,
                ended: None,
            },
            ExecInfo {
                id: 2,
                pid: 0,
                argv: Vec::new(),
                tty: false,
                attached: true,
                age_ns: u64::MAX,
                written: Offsets::default(),
                ended: Some(EXITED),
            },
        ]),
        Reply::Error(Failure {
            kind: ErrorKind::NotFound,
            errno: 2,
            message: "no such program: nope".into(),
        }),
        Reply::Pong(3),
        Reply::FileData {
            last: true,
            data: b"x",
        },
        Reply::FileWritten(10),
        Reply::Done,
        Reply::Resumed(RESUMED),
        Reply::Workload(WorkloadReport {
            state: WorkloadState::Exited(EXITED),
            output_bytes: u64::MAX,
            tail: vec![1; WORKLOAD_TAIL_BYTES],
        }),
        Reply::Workload(WorkloadReport {
            state: WorkloadState::Running { pid: 3, for_ns: 4 },
            output_bytes: 0,
            tail: Vec::new(),
        }),
    ];
    let bytes = wire(&all);
    let mut frames = Deframer::new(Direction::ToClient);
    for byte in bytes.chunks(3) {
        frames.feed(byte);
    }
    for reply in &all {
        let (kind, payload) = frames.next_frame().unwrap().unwrap();
        assert_eq!(&Reply::decode(kind, payload).unwrap(), reply);
    }
    assert!(!frames.has_partial());
}

#[test]
fn version_mismatch_is_refused_naming_both() {
    let mut bytes = Vec::new();
    Hello {
        version: 7,
        capabilities: 0,
    }
    .encode(&mut bytes);
    let expected = ProtoError::VersionMismatch {
        ours: VERSION,
        theirs: 7,
    };
    let mut parser = Parser::new();
    parser.feed(&bytes);
    assert_eq!(parser.next_request(), Err(expected.clone()));
    assert_eq!(parser.next_request(), Err(expected.clone()));
    let mut session = Session::new();
    session.feed(&bytes);
    assert_eq!(session.next_event(), Err(expected.clone()));
    assert!(session.is_over());
    let text = expected.to_string();
    assert!(
        text.contains("version 7") && text.contains(&format!("version {VERSION}")),
        "{text}"
    );
}

#[test]
fn stray_peer_is_told_apart_from_a_version_mismatch() {
    let mut bytes = encode_header(Kind::Hello, 12).to_vec();
    bytes.extend_from_slice(b"GET / HTTP/1");
    let mut parser = Parser::new();
    parser.feed(&bytes);
    assert_eq!(parser.next_request(), Err(ProtoError::NotThisProtocol));
}

#[test]
fn first_frame_must_be_a_hello() {
    let mut bytes = Vec::new();
    Request::Ping(1).encode(&mut bytes);
    let mut parser = Parser::new();
    parser.feed(&bytes);
    assert_eq!(
        parser.next_request(),
        Err(ProtoError::HelloExpected { kind: 0x20 })
    );
}

#[test]
fn over_long_frame_is_refused_by_its_header_alone() {
    let mut parser = Parser::new();
    let mut bytes = Vec::new();
    Hello::new(0).encode(&mut bytes);
    bytes.extend_from_slice(&encode_header(Kind::Stdin, MAX_DATA_BYTES + 1));
    parser.feed(&bytes);
    assert!(parser.next_request().unwrap().is_some());
    assert_eq!(
        parser.next_request(),
        Err(ProtoError::TooLong {
            kind: 0x12,
            len: MAX_DATA_BYTES + 1,
            max: MAX_DATA_BYTES
        })
    );
}

#[test]
fn kinds_of_the_other_direction_are_unknown() {
    let mut parser = Parser::new();
    parser.feed(&wire(&[hello(), Reply::Done]));
    assert!(parser.next_request().unwrap().is_some());
    assert_eq!(
        parser.next_request(),
        Err(ProtoError::UnknownKind { kind: 0xa3 })
    );
}

#[test]
fn string_count_beyond_the_payload_allocates_nothing() {
    let mut payload = vec![0; 4 + 8 + 4 + 24 + 4 + 4];
    payload.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(
        Request::decode(Kind::Exec, &payload),
        Err(ProtoError::BadPayload {
            kind: 0x10,
            what: "too many strings"
        })
    );
}

#[test]
fn pipelined_requests_leave_in_order() {
    let mut session = Session::new();
    session.set_time(5).unwrap();
    session.reseed(&[1; 32]).unwrap();
    session.stage_file(b"/tmp/a", 0o644, b"x").unwrap();
    session.exec(&ExecRequest::new(["id"])).unwrap();
    let seen = requests(session.outgoing());
    let order = ["Hello", "SetTime", "Reseed", "FileChunk", "Exec"];
    assert_eq!(seen.len(), order.len());
    for (request, name) in seen.iter().zip(order) {
        assert!(request.starts_with(name), "{request} is not {name}");
    }
    session.feed(&wire(&[hello(), Reply::Done, Reply::Done]));
    assert_eq!(
        events(&mut session).unwrap()[1..],
        [Event::Done, Event::Done]
    );
    assert!(session.is_busy());
}

#[test]
fn big_file_is_cut_into_chunks_and_limited() {
    let mut session = Session::new();
    let data = vec![3; MAX_DATA_BYTES * 2 + 1];
    session.write_file(b"/f", 0o600, &data).unwrap();
    assert_eq!(requests(session.outgoing()).len(), 4);
    let too_big = vec![0; MAX_FILE_BYTES + 1];
    assert!(session.write_file(b"/f", 0o600, &too_big).is_err());
    assert!(session.write_file(b"relative", 0o600, b"").is_err());
    assert!(session.read_file(b"/nul\0").is_err());
}

#[test]
fn stdin_stops_at_the_window_and_goes_on_when_granted() {
    let mut session = Session::new();
    session
        .exec(&ExecRequest {
            flags: ExecFlags {
                stdin: true,
                ..ExecFlags::default()
            },
            ..ExecRequest::new(["cat"])
        })
        .unwrap();
    let data = vec![0; STDIN_WINDOW_BYTES + 10];
    assert_eq!(session.write_stdin(&data), STDIN_WINDOW_BYTES);
    assert_eq!(session.write_stdin(b"x"), 0);
    session.feed(&wire(&[
        hello(),
        Reply::Started { pid: 1 },
        Reply::StdinWindow(4),
    ]));
    assert_eq!(
        events(&mut session).unwrap().last(),
        Some(&Event::StdinReady)
    );
    assert_eq!(session.write_stdin(b"123456"), 4);
    session.feed(&wire(&[Reply::StdinClosed]));
    assert_eq!(events(&mut session).unwrap(), [Event::StdinClosed]);
    assert_eq!(session.write_stdin(&data), data.len());
}

#[test]
fn agent_cannot_grant_more_stdin_than_was_sent() {
    let mut session = Session::new();
    session
        .exec(&ExecRequest {
            flags: ExecFlags {
                stdin: true,
                ..ExecFlags::default()
            },
            ..ExecRequest::new(["cat"])
        })
        .unwrap();
    session.feed(&wire(&[
        hello(),
        Reply::Started { pid: 1 },
        Reply::StdinWindow(1),
    ]));
    assert!(events(&mut session).is_err());
}

#[test]
fn session_is_reusable_after_exit_and_over_after_failure() {
    let mut session = Session::new();
    session.exec(&ExecRequest::new(["a"])).unwrap();
    assert!(session.exec(&ExecRequest::new(["b"])).is_err());
    assert!(session.ping(1).is_err());
    session.feed(&wire(&[
        hello(),
        Reply::Started { pid: 1 },
        Reply::Stdout(b"o"),
        Reply::Stderr(b"e"),
        Reply::Exited(EXITED),
    ]));
    assert_eq!(
        events(&mut session).unwrap()[2..],
        [
            Event::Stdout(b"o".to_vec()),
            Event::Stderr(b"e".to_vec()),
            Event::Exited(EXITED)
        ]
    );
    session.exec(&ExecRequest::new(["b"])).unwrap();
    let failure = Failure {
        kind: ErrorKind::NotFound,
        errno: 2,
        message: "b: not found".into(),
    };
    session.feed(&wire(&[Reply::Error(failure.clone())]));
    assert_eq!(events(&mut session).unwrap(), [Event::Failed(failure)]);
    assert!(session.is_over() && session.exec(&ExecRequest::new(["c"])).is_err());
}

#[test]
fn output_without_a_command_is_a_breach() {
    for reply in [
        Reply::Stdout(b"x"),
        Reply::Exited(EXITED),
        Reply::Done,
        Reply::Pong(1),
        Reply::Started { pid: 1 },
        hello(),
    ] {
        let mut session = Session::new();
        session.feed(&wire(&[hello(), reply]));
        assert!(events(&mut session).is_err());
    }
}

#[test]
fn file_larger_than_its_limit_is_refused_while_it_arrives() {
    let mut session = Session::new();
    session.read_file(b"/dev/zero").unwrap();
    session.feed(&wire(&[hello()]));
    let piece = wire(&[Reply::FileData {
        last: false,
        data: &[0; MAX_DATA_BYTES],
    }]);
    let mut fed = 0;
    loop {
        session.feed(&piece);
        fed += MAX_DATA_BYTES;
        if events(&mut session).is_err() {
            break;
        }
        assert!(fed <= MAX_FILE_BYTES);
    }
    assert_eq!(fed, MAX_FILE_BYTES + MAX_DATA_BYTES);
}

#[test]
fn requests_the_agent_would_refuse_never_leave() {
    let mut session = Session::new();
    let before = session.outgoing().len();
    assert!(session.exec(&ExecRequest::default()).is_err());
    assert!(session.exec(&ExecRequest::new(["a\0b"])).is_err());
    assert!(
        session
            .exec(&ExecRequest::new([vec![b'x'; 3 << 20]]))
            .is_err()
    );
    assert!(session.exec(&ExecRequest::new(vec!["x"; 70_000])).is_err());
    assert!(session.signal(0).is_err());
    assert!(session.reseed(&[]).is_err());
    assert_eq!(session.outgoing().len(), before);
}

#[test]
fn resume_and_a_command_share_one_connection_in_one_write() {
    let mut session = Session::new();
    let resume = Resume::new(&[1; 32], 5, [2; 16]);
    session.resume(&resume).unwrap();
    session.exec(&ExecRequest::new(["id"])).unwrap();
    assert!(requests(session.outgoing())[1].starts_with("Resume"));
    session.feed(&wire(&[
        hello(),
        Reply::Resumed(RESUMED),
        Reply::Started { pid: 1 },
        Reply::Exited(EXITED),
    ]));
    let seen = events(&mut session).unwrap();
    assert_eq!(seen[1], Event::Resumed(RESUMED));
    assert_eq!(seen.last(), Some(&Event::Exited(EXITED)));
}

#[test]
fn resume_without_enough_seed_or_with_an_odd_name_is_refused_by_both_ends() {
    let seed = [1; 65];
    let good = Resume::new(&seed[..32], 5, [2; 16]);
    let with_name = |hostname: &'static [u8]| Resume { hostname, ..good };
    let bad = [
        Resume::new(&[], 5, [2; 16]),
        Resume::new(&seed[..31], 5, [2; 16]),
        Resume::new(&seed, 5, [2; 16]),
        with_name(b"a b"),
        with_name(b"a\nb"),
        with_name(&[b'a'; MAX_HOSTNAME_BYTES + 1]),
    ];
    for resume in bad {
        assert!(Session::new().resume(&resume).is_err(), "{resume:?}");
        let mut bytes = Vec::new();
        Hello::new(0).encode(&mut bytes);
        Request::Resume(resume).encode(&mut bytes);
        let mut parser = Parser::new();
        parser.feed(&bytes);
        parser.next_request().unwrap();
        assert!(parser.next_request().is_err(), "{resume:?}");
    }
}

#[test]
fn bytes_added_in_place_are_parsed_as_those_that_are_fed() {
    let mut bytes = Vec::new();
    Hello::new(0).encode(&mut bytes);
    let mut sent = Vec::new();
    for len in [0, 1, 5000, MAX_DATA_BYTES, 7, MAX_DATA_BYTES] {
        let data: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[at % 2]).collect();
        Request::Stdin(&data).encode(&mut bytes);
        sent.extend(data);
    }
    for piece in [1, 9, 1000, MAX_DATA_BYTES] {
        let mut parser = Parser::new();
        let (mut rest, mut seen) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            // To the end of the next header, as a reader does that wants frames in place.
            let most = match parser.missing() {
                0 => piece,
                missing => missing + HEADER_BYTES,
            };
            let (now, later) = rest.split_at(most.min(rest.len()));
            parser.room().extend_from_slice(now);
            rest = later;
            while let Some(request) = parser.next_request().unwrap() {
                if let Request::Stdin(data) = request {
                    seen.extend_from_slice(data);
                }
            }
        }
        assert_eq!(parser.missing(), 0);
        assert!(seen == sent, "{piece}");
    }
}

#[test]
fn bytes_added_in_place_behind_an_error_do_not_pile_up() {
    let mut parser = Parser::new();
    parser.room().extend_from_slice(&[0xff; 64]);
    let error = parser.next_request().unwrap_err();
    for _ in 0..3 {
        assert!(parser.room().is_empty());
        parser.room().extend_from_slice(&[0; 64]);
        assert_eq!(parser.next_request().unwrap_err(), error);
        assert_eq!(parser.missing(), 0);
    }
}
