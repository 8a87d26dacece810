//! Fuzz logic as plain functions over bytes, for fuzzers and for replay under
//! `cargo test`. They panic when an invariant breaks.

use alloc::vec::Vec;

use crate::client::{Event, Session};
use crate::server::Parser;
use crate::tree::{self, TreeEvent, TreeReader};
use crate::{
    Deframer, Direction, ExecFlags, ExecRequest, Offsets, ProtoError, Reply, Request, Resume,
    Transport,
};

/// Splits `data` at places that depend on `seed`.
fn pieces(data: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    let mut state = u32::from(seed).wrapping_mul(2_654_435_761) | 1;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = (state >> 16) as usize % rest.len().min(97) + 1;
        let (head, tail) = rest.split_at(len);
        rest = tail;
        Some(head)
    })
}

fn with_seed(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(s, rest)| (*s, rest))
}

/// What the agent makes of a stream: each request encoded again, then the error.
fn agent_view<'a>(parts: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Option<ProtoError>) {
    let mut parser = Parser::new();
    let mut seen = Vec::new();
    for part in parts {
        parser.feed(part);
        loop {
            match parser.next_request() {
                Ok(Some(request)) => request.encode(&mut seen),
                Ok(None) => break,
                Err(error) => return (seen, Some(error)),
            }
        }
    }
    (seen, None)
}

/// The agent's end: same result for every split, and decode followed by encode
/// gives the accepted bytes back.
///
/// # Panics
/// When an invariant breaks.
pub fn fuzz_server(data: &[u8]) {
    let (seed, stream) = with_seed(data);
    let whole = agent_view(core::iter::once(stream));
    let split = agent_view(pieces(stream, seed));
    assert_eq!(whole, split, "result depends on the split");
    // Fields reserved in a hello are ignored, so only what follows it is exact.
    if let Some(tail) = whole.0.get(20..) {
        let accepted = stream.get(20..whole.0.len()).unwrap_or_default();
        assert_eq!(tail, accepted, "decode and encode disagree");
    }
}

/// Files as a stream: same result for every split, what was accepted encodes back
/// to itself, and memory follows what was fed.
///
/// # Panics
/// When an invariant breaks.
pub fn fuzz_tree(data: &[u8]) {
    let (seed, stream) = with_seed(data);
    let view = |parts: &mut dyn Iterator<Item = &[u8]>| {
        let mut reader = TreeReader::new();
        let mut seen = Vec::new();
        for part in parts {
            reader.feed(part);
            loop {
                match reader.next_event() {
                    Ok(Some(TreeEvent::Node(node))) => {
                        assert!(node.encode(&mut seen).is_ok(), "accepted and refused");
                    }
                    Ok(Some(TreeEvent::Data(data))) => tree::encode_data(&mut seen, &data),
                    Ok(Some(TreeEvent::FileEnd | TreeEvent::End)) => tree::encode_end(&mut seen),
                    Ok(None) => break,
                    Err(error) => return (seen, Some(error)),
                }
            }
        }
        (seen, None)
    };
    let whole = view(&mut core::iter::once(stream));
    assert_eq!(
        whole,
        view(&mut pieces(stream, seed)),
        "result depends on the split"
    );
    assert_eq!(
        stream.get(..whole.0.len()),
        Some(&whole.0[..]),
        "decode and encode disagree"
    );
}

/// A session with one of several kinds of outstanding work.
fn session_for(seed: u8) -> Session {
    let mut session = Session::new();
    let queued = match seed % 10 {
        0 => Ok(()),
        1 => session.exec(&ExecRequest::new([b"true".to_vec()])),
        2 => session.exec(&ExecRequest {
            flags: ExecFlags {
                stdin: true,
                ..ExecFlags::default()
            },
            ..ExecRequest::new([b"cat".to_vec()])
        }),
        9 => session
            .list_execs()
            .and_then(|()| session.attach(4, Offsets::default()))
            .map(|()| session.detach()),
        3 => session.read_file(b"/etc/hostname"),
        4 => session.write_file(b"/tmp/f", 0o644, b"data"),
        5 => session.resume(&Resume::new(&[9; 32], 1, [2; 16])),
        6 => session
            .start_workload(&ExecRequest::new([b"serve".to_vec()]))
            .and_then(|()| session.await_listener(80, 1_000))
            .and_then(|()| session.dial(Transport::Tcp, 80)),
        7 => session
            .quiesce(true)
            .and_then(|()| session.alone())
            .and_then(|()| session.release())
            .and_then(|()| session.enter_root("sm.layers=1"))
            .and_then(|()| session.workload_status(10)),
        _ => session
            .ping(7)
            .and_then(|()| session.set_time(1))
            .and_then(|()| session.exec(&ExecRequest::new([b"id".to_vec()]))),
    };
    assert!(queued.is_ok(), "valid requests are accepted");
    if seed % 10 == 2 {
        session.write_stdin(&[0x61; 70_000]);
    }
    session
}

fn host_view<'a>(
    seed: u8,
    parts: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Event>, Option<ProtoError>) {
    let mut session = session_for(seed);
    let mut events = Vec::new();
    for part in parts {
        session.feed(part);
        loop {
            match session.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
    }
    (events, None)
}

/// The host's end, fed by a hostile guest: same result for every split, and
/// events in an order that makes sense.
///
/// # Panics
/// When an invariant breaks.
pub fn fuzz_client(data: &[u8]) {
    let (seed, stream) = with_seed(data);
    let whole = host_view(seed, core::iter::once(stream));
    let split = host_view(seed, pieces(stream, seed));
    assert_eq!(whole, split, "result depends on the split");
    let mut started = false;
    for (index, event) in whole.0.iter().enumerate() {
        match event {
            Event::Hello(_) | Event::Ready(_) => assert_eq!(index, 0, "late hello"),
            Event::Started { .. } | Event::Attached(_) => started = true,
            Event::Stdout(_) | Event::Stderr(_) | Event::Gap { .. } | Event::Exited(_) => {
                assert!(started, "output before start");
            }
            Event::Failed(_) => assert_eq!(index + 1, whole.0.len(), "event after failure"),
            _ => {}
        }
    }
}

/// Every single frame of either direction decodes to something that encodes to
/// a frame decoding to the same.
///
/// # Panics
/// When an invariant breaks.
pub fn fuzz_frames(data: &[u8]) {
    for direction in [Direction::ToAgent, Direction::ToClient] {
        let mut frames = Deframer::new(direction);
        frames.feed(data);
        while let Ok(Some((kind, payload))) = frames.next_frame() {
            assert!(payload.len() <= kind.max_payload(), "limit not kept");
            let mut again = Vec::new();
            match direction {
                Direction::ToAgent => {
                    let Ok(request) = Request::decode(kind, payload) else {
                        continue;
                    };
                    request.encode(&mut again);
                    let payload = again.get(crate::HEADER_BYTES..).unwrap_or_default();
                    assert_eq!(Request::decode(kind, payload).as_ref(), Ok(&request));
                }
                Direction::ToClient => {
                    let Ok(reply) = Reply::decode(kind, payload) else {
                        continue;
                    };
                    // Lossy text may grow past its limit and be cut; the rest is exact.
                    reply.encode(&mut again);
                    let payload = again.get(crate::HEADER_BYTES..).unwrap_or_default();
                    let twice = Reply::decode(kind, payload);
                    if !matches!(reply, Reply::Error(_)) {
                        assert_eq!(twice.as_ref(), Ok(&reply));
                    }
                    assert!(twice.is_ok(), "re-encoded reply refused");
                }
            }
        }
    }
}
