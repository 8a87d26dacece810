//! What both ends say in these tests.

#![allow(dead_code, reason = "each test program uses some")]

use supermachine_exec_proto::client::{Event, Session};
use supermachine_exec_proto::server::Parser;
use supermachine_exec_proto::{
    Attached, ExitStatus, Exited, Hello, Offsets, ProtoError, Reply, Resumed, StdinState,
};

pub const EXITED: Exited = Exited {
    status: ExitStatus::Signal(9),
    duration_ns: 12,
    peak_rss_kib: 34,
    timed_out: true,
    oom: true,
    executed: true,
    step: 1,
};

pub const OFFSETS: Offsets = Offsets {
    stdout: 1 << 41,
    stderr: 7,
};

pub fn attached(stdin: StdinState) -> Attached {
    Attached {
        pid: 9,
        tty: true,
        stdin,
        from: OFFSETS,
    }
}

pub const RESUMED: Resumed = Resumed {
    reseeded: true,
    clock_step_ns: i64::MIN,
    hostname_set: false,
    boot_id: [4; 16],
    vcpus_online: 4,
    work_ns: 5,
};

pub fn wire(replies: &[Reply<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for reply in replies {
        reply.encode(&mut out);
    }
    out
}

pub fn events(session: &mut Session) -> Result<Vec<Event>, ProtoError> {
    let mut events = Vec::new();
    while let Some(event) = session.next_event()? {
        events.push(event);
    }
    Ok(events)
}

pub fn hello() -> Reply<'static> {
    Reply::Hello(Hello::new(0))
}

pub fn requests(bytes: &[u8]) -> Vec<String> {
    let mut parser = Parser::new();
    parser.feed(bytes);
    let mut seen = Vec::new();
    while let Some(request) = parser.next_request().unwrap() {
        seen.push(format!("{request:?}"));
    }
    seen
}
