//! Replays the corpus and a fixed-seed mutator through the fuzz functions.

use std::time::{Duration, Instant};

use supermachine_exec_proto::client::Session;
use supermachine_exec_proto::fuzzing::{fuzz_client, fuzz_frames, fuzz_server, fuzz_tree};
use supermachine_exec_proto::tree::{self, Node, NodeKind};
use supermachine_exec_proto::{
    AgentReady, Attached, ErrorKind, ExecFlags, ExecInfo, ExecRequest, ExitStatus, Exited, Failure,
    Hello, Offsets, Reply, Resume, Resumed, StdinState, WorkloadReport, WorkloadState,
};

/// Upper bound on the mutator's run time; its count is what normally ends it.
const BUDGET: Duration = Duration::from_secs(4);
const ROUNDS: usize = 40_000;

fn report(state: WorkloadState) -> Reply<'static> {
    Reply::Workload(WorkloadReport {
        state,
        output_bytes: 9,
        tail: b"tail".to_vec(),
    })
}

/// What a client says: every request once.
fn requests() -> Vec<u8> {
    let mut session = Session::new();
    session.ping(1).unwrap();
    session.set_time(2).unwrap();
    session.reseed(&[3; 32]).unwrap();
    session.read_file(b"/etc/passwd").unwrap();
    session.write_file(b"/tmp/w", 0o755, b"payload").unwrap();
    session
        .resume(&Resume {
            hostname: b"copy-1",
            vcpus: 2,
            machine_id: Some([5; 16]),
            ..Resume::new(&[4; 40], 1, [6; 16])
        })
        .unwrap();
    session.quiesce(true).unwrap();
    session.alone().unwrap();
    session.release().unwrap();
    let serve = ExecRequest::new(["serve"]);
    session.start_workload(&serve).unwrap();
    session.signal_workload(9).unwrap();
    session.workload_status(100).unwrap();
    session.await_listener(8080, 1_000).unwrap();
    session
        .exec(&ExecRequest {
            env: vec![b"PATH=/bin".to_vec()],
            cwd: b"/".to_vec(),
            user: b"0:0".to_vec(),
            flags: ExecFlags {
                stdin: true,
                tty: true,
                ..ExecFlags::default()
            },
            chain: vec![vec![b"true".to_vec()]],
            ..ExecRequest::new(["sh", "-c", "cat"])
        })
        .unwrap();
    session.write_stdin(b"input");
    session.detach();
    session.signal(2).unwrap();
    session.resize(supermachine_exec_proto::WinSize::default());
    session.close_stdin();
    session.outgoing().to_vec()
}

fn exited() -> Exited {
    Exited {
        status: ExitStatus::Signal(9),
        duration_ns: 1,
        peak_rss_kib: 2,
        timed_out: false,
        oom: true,
        executed: true,
        step: 0,
    }
}

/// What an agent says of commands that are its own.
fn durable_replies() -> [Reply<'static>; 6] {
    let from = Offsets {
        stdout: 5,
        stderr: 0,
    };
    let exec = |ended| ExecInfo {
        id: 4,
        pid: 9,
        argv: vec![b"sh".to_vec(), b"-c".to_vec()],
        tty: false,
        attached: true,
        age_ns: 10,
        written: from,
        ended,
    };
    [
        Reply::Hello(Hello::new(1)),
        Reply::Execs(vec![exec(None), exec(Some(exited()))]),
        Reply::Attached(Attached {
            pid: 9,
            tty: false,
            stdin: StdinState::Open(65_536),
            from,
        }),
        Reply::Gap {
            stderr: false,
            bytes: 100,
        },
        Reply::Stdout(b"rest"),
        Reply::Detached { id: 4, sent: from },
    ]
}

/// What an agent says: every reply once, in four conversations.
fn replies() -> [Vec<u8>; 4] {
    let replies = [
        Reply::Hello(Hello::new(1)),
        Reply::Started { pid: 2 },
        Reply::Durable { id: 1 },
        Reply::Step(exited()),
        Reply::Stdout(b"out"),
        Reply::StdinWindow(100),
        Reply::Stderr(b"err"),
        Reply::StdinClosed,
        Reply::Exited(exited()),
    ];
    let controls = [
        Reply::Ready(AgentReady {
            hello: Hello::new(1),
            started_ns: 1,
            ready_ns: 2,
            kernel_release: b"6.12".to_vec(),
        }),
        Reply::Pong(7),
        Reply::Done,
        Reply::FileData {
            last: true,
            data: b"file",
        },
        Reply::FileWritten(4),
        Reply::Error(Failure {
            kind: ErrorKind::Io,
            errno: 5,
            message: "input/output error".into(),
        }),
    ];
    let copies = [
        Reply::Hello(Hello::new(1)),
        Reply::Resumed(Resumed {
            reseeded: true,
            clock_step_ns: -5,
            hostname_set: true,
            boot_id: [1; 16],
            vcpus_online: 2,
            work_ns: 100_000,
        }),
        Reply::Done,
        report(WorkloadState::NotStarted),
        report(WorkloadState::Running { pid: 3, for_ns: 4 }),
        report(WorkloadState::Exited(exited())),
        Reply::Done,
    ];
    let encode = |list: &[Reply<'_>]| {
        let mut out = Vec::new();
        list.iter().for_each(|reply| reply.encode(&mut out));
        out
    };
    let durable = durable_replies();
    [
        encode(&replies),
        encode(&controls),
        encode(&copies),
        encode(&durable),
    ]
}

/// A tree with every kind of node.
fn tree() -> Vec<u8> {
    let kinds = [
        NodeKind::Directory,
        NodeKind::Symlink(b"../x".to_vec()),
        NodeKind::HardLink(b"a/b".to_vec()),
        NodeKind::CharDevice { major: 1, minor: 3 },
        NodeKind::Fifo,
        NodeKind::File,
    ];
    let mut stream = Vec::new();
    for kind in kinds {
        let node = Node {
            path: b"a/name".to_vec(),
            kind,
            mode: 0o644,
            uid: 1,
            gid: 2,
            size: 3,
            links: 1,
            mtime_s: 4,
            mtime_ns: 5,
            xattrs: vec![(b"user.x".to_vec(), b"y".to_vec())],
        };
        node.encode(&mut stream).unwrap();
    }
    tree::encode_data(&mut stream, b"content");
    tree::encode_end(&mut stream);
    tree::encode_end(&mut stream);
    stream
}

fn corpus() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for stream in replies().into_iter().chain([requests(), tree()]) {
        for seed in 0..10 {
            all.push([&[seed], &stream[..]].concat());
        }
    }
    all.push(Vec::new());
    all
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }
}

fn mutate(rng: &mut Rng, data: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=rng.below(4) {
        let at = rng.below(data.len());
        match rng.below(6) {
            0 if !data.is_empty() => data[at] ^= 1 << rng.below(8),
            1 if !data.is_empty() => data[at] = [0, 1, 0x7f, 0xff][rng.below(4)],
            2 => data.truncate(at),
            3 => data.insert(at, u8::try_from(rng.below(256)).unwrap()),
            4 => {
                let from = rng.below(other.len());
                let to = from + rng.below(other.len() - from);
                data.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let to = at + rng.below(data.len() - at);
                data.drain(at..to);
            }
        }
    }
}

fn run_all(data: &[u8]) {
    fuzz_server(data);
    fuzz_client(data);
    fuzz_tree(data);
    fuzz_frames(data.get(1..).unwrap_or_default());
}

#[test]
fn corpus_holds_every_invariant() {
    for entry in corpus() {
        run_all(&entry);
        for cut in 0..entry.len() {
            run_all(&entry[..cut]);
        }
    }
}

#[test]
fn mutated_corpus_holds_every_invariant() {
    let corpus = corpus();
    let mut rng = Rng(0x5eed_5eed_5eed_5eed);
    let begin = Instant::now();
    let mut rounds = 0;
    while rounds < ROUNDS && begin.elapsed() < BUDGET {
        let mut data = corpus[rng.below(corpus.len())].clone();
        let other = corpus[rng.below(corpus.len())].clone();
        mutate(&mut rng, &mut data, &other);
        run_all(&data);
        rounds += 1;
    }
    assert!(rounds > 1_000, "only {rounds} rounds in {BUDGET:?}");
}
