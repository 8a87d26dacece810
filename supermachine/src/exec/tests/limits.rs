//! Time limits are the host's, whatever the guest sends.

use super::*;
use crate::Command;
use crate::deadline::Deadline;
use crate::exec::Opens;
use crate::pool::turns::{Turn, Turns};
use exec_proto::client::{Event, Session};
use exec_proto::server::Parser;
use exec_proto::{ProtoError, Request};
use oci_bake::ImageConfig;
use std::io::Read;
use std::sync::Mutex;

const LIMIT: Duration = Duration::from_millis(300);

/// Sends one of these again and again until nobody listens.
fn repeat(mut to: UnixStream, reply: &Reply<'_>, pause: Duration) {
    begin(&mut to);
    while send(&mut to, std::slice::from_ref(reply)).is_ok() {
        std::thread::sleep(pause);
    }
}

#[test]
fn empty_output_does_not_prolong_a_time_limit() {
    for reply in [
        Reply::Stdout(b""),
        Reply::Stderr(b""),
        Reply::StdinClosed,
        Reply::StdinWindow(0),
    ] {
        let (channel, agent) = channel_to(move |to| {
            let (shown, pause) = (format!("{reply:?}"), Duration::from_millis(20));
            repeat(to, &reply, pause);
            shown
        });
        let begun = Instant::now();
        channel.limit(Deadline::within(LIMIT));
        assert_timeout(channel.read_to_end(&mut Nowhere), begun);
        agent.join().unwrap();
    }
}

#[test]
fn a_flood_of_output_does_not_prolong_a_time_limit() {
    for bytes in [&[][..], &[0; 1], &[0; 4096]] {
        let (channel, agent) =
            channel_to(move |to| repeat(to, &Reply::Stdout(bytes), Duration::ZERO));
        let begun = Instant::now();
        channel.limit(Deadline::within(LIMIT));
        assert_timeout(channel.read_to_end(&mut Nowhere), begun);
        agent.join().unwrap();
    }
}

#[test]
fn a_frame_that_never_ends_does_not_prolong_a_time_limit() {
    let (channel, agent) = channel_to(|mut to| {
        begin(&mut to);
        let mut wire = Vec::new();
        Reply::Stdout(&[0; 60_000]).encode(&mut wire);
        for byte in wire {
            if to.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let begun = Instant::now();
    channel.limit(Deadline::within(LIMIT));
    assert_timeout(channel.read_to_end(&mut Nowhere), begun);
    agent.join().unwrap();
}

#[test]
fn greetings_and_answers_that_drip_are_late_as_well() {
    let drip = |mut to: UnixStream| {
        let mut wire = Vec::new();
        Reply::Hello(Hello::new(0)).encode(&mut wire);
        Reply::Pong(1).encode(&mut wire);
        // The last byte never comes.
        for byte in &wire[..wire.len() - 1] {
            if to.write_all(std::slice::from_ref(byte)).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = to.read_to_end(&mut Vec::new());
    };
    let (channel, agent) = channel_to(drip);
    let begun = Instant::now();
    channel.limit(Deadline::within(Duration::from_millis(100)));
    assert_timeout(channel.greeting(), begun);
    drop(channel);
    agent.join().unwrap();

    let (ours, theirs) = UnixStream::pair().unwrap();
    let channel = Channel::new(ours, Arc::new(Unwatched)).unwrap();
    channel.request(|session| session.ping(1)).unwrap();
    let agent = std::thread::spawn(move || drip(theirs));
    let begun = Instant::now();
    let pong = |event| matches!(event, Event::Pong(_)).then_some(());
    assert_timeout(channel.answer_until(Deadline::within(LIMIT), pong), begun);
    drop(channel);
    agent.join().unwrap();
}

#[test]
fn an_agent_that_takes_no_input_holds_up_neither_reader_nor_writer() {
    for ends in [true, false] {
        let (channel, agent) = channel_to(move |mut to| {
            begin(&mut to);
            // Reads nothing, so that the connection fills up.
            std::thread::sleep(LIMIT);
            if ends {
                send(&mut to, &[exited()]).unwrap();
            }
            to
        });
        let begun = Instant::now();
        channel.limit(Deadline::within(2 * LIMIT));
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = channel.write_stdin(&vec![0; 8 << 20]);
                let _ = channel.signal(15);
                let _ = channel.close_stdin();
            });
            channel.read_to_end(&mut Nowhere)
        });
        if ends {
            assert!(result.unwrap().success());
            assert!(begun.elapsed() < SOON);
        } else {
            assert_timeout(result, begun);
        }
        drop(agent.join().unwrap());
    }
}

#[test]
fn a_request_that_the_agent_takes_by_the_byte_is_late_as_well() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let channel = Channel::new(ours, Arc::new(Unwatched)).unwrap();
    let agent = std::thread::spawn(move || {
        let (mut theirs, mut some) = (theirs, [0; 512]);
        while matches!(theirs.read(&mut some), Ok(1..)) {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let begun = Instant::now();
    channel.limit(Deadline::within(LIMIT));
    let big = vec![0; 64 << 20];
    let sent = channel.request(|session| session.stage_file(b"/f", 0o644, &big));
    assert_timeout(sent, begun);
    drop(channel);
    agent.join().unwrap();
}

#[test]
fn an_end_that_came_in_time_counts_however_late_it_is_read() {
    let (channel, agent) = channel_to(|mut to| {
        begin(&mut to);
        send(&mut to, &[Reply::Stdout(b"late"), exited()]).unwrap();
        to
    });
    channel.limit(Deadline::within(Duration::ZERO));
    let kept_open = agent.join().unwrap();
    assert!(channel.read_to_end(&mut Nowhere).unwrap().success());
    drop(kept_open);
}

#[test]
fn a_kept_connection_is_used_only_while_the_agent_keeps_it_too() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let channel = Channel::new(ours, Arc::new(Unwatched)).unwrap();
    assert!(channel.is_usable());
    theirs.write_all(b"x").unwrap();
    assert!(!channel.is_usable());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let channel = Channel::new(ours, Arc::new(Unwatched)).unwrap();
    drop(theirs);
    assert!(!channel.is_usable());
}

/// A guest that keeps what it is asked for, and does nothing.
#[derive(Debug, Default)]
struct Asked {
    image: ImageConfig,
    timeouts_ms: Mutex<Vec<u64>>,
    turns: Option<Arc<Turns>>,
    /// How many turns were held at each request.
    held: Mutex<Vec<usize>>,
}

impl Opens for Asked {
    fn image_config(&self) -> &ImageConfig {
        &self.image
    }

    fn open_session(
        &self,
        _: Deadline,
        queue: &dyn Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Channel, Error> {
        let mut session = Session::new();
        queue(&mut session)?;
        let mut parser = Parser::new();
        parser.feed(session.outgoing());
        while let Some(request) = parser.next_request()? {
            if let Request::Exec(request) = request {
                self.timeouts_ms.lock().unwrap().push(request.timeout_ms);
            }
        }
        let held = self.turns.as_ref().map_or(0, |turns| turns.held());
        self.held.lock().unwrap().push(held);
        Err(Error::Cancelled)
    }

    fn turn(&self, is_wanted: &dyn Fn() -> bool) -> Result<Option<Turn>, Error> {
        let turn = |turns: &Arc<Turns>| turns.take(std::process::id(), is_wanted);
        Ok(self.turns.as_ref().and_then(turn))
    }
}

#[test]
fn commands_that_are_collected_have_a_minute_and_others_what_they_say() {
    let guest = Asked::default();
    let plain = Command::new(["command"]);
    let long = plain.clone().timeout(Duration::MAX);
    let short = plain.clone().timeout(Duration::from_secs(2));
    for command in [&plain, &long, &short] {
        assert!(command.output_of(&guest).is_err());
        assert!(command.spawn_on(&guest).is_err());
    }
    let asked = guest.timeouts_ms.into_inner().unwrap();
    assert_eq!(asked, [60_000, 0, 0, 0, 2_000, 2_000]);
}

#[test]
fn commands_that_are_collected_have_a_turn_to_compute_and_others_need_none() {
    let guest = Asked {
        turns: Some(Arc::new(Turns::of_any_engine(1))),
        ..Asked::default()
    };
    for _ in 0..2 {
        // It is over when the command is: the second would wait for ever.
        assert!(Command::new(["command"]).output_of(&guest).is_err());
    }
    assert!(Command::new(["command"]).spawn_on(&guest).is_err());
    assert_eq!(guest.held.into_inner().unwrap(), [1, 1, 0]);
}

#[test]
fn what_an_agent_says_twice_or_out_of_turn_is_no_answer() {
    let hello = || Reply::Hello(Hello::new(0));
    let started = || Reply::Started { pid: 1 };
    let before_its_turn = vec![started()];
    let twice = vec![hello(), hello()];
    let another_start = vec![hello(), started(), started()];
    let unasked = vec![hello(), started(), Reply::Pong(7)];
    let end_before_start = vec![hello(), exited()];
    for replies in [
        before_its_turn,
        twice,
        another_start,
        unasked,
        end_before_start,
    ] {
        let shown = format!("{replies:?}");
        let (channel, agent) = channel_to(move |mut to| {
            let _ = send(&mut to, &replies);
            // Open until the host has had enough.
            let _ = to.read(&mut [0; 4096]);
            while matches!(to.read(&mut [0; 4096]), Ok(1..)) {}
        });
        channel.limit(Deadline::within(SOON));
        let result = channel.read_to_end(&mut Nowhere);
        assert!(
            matches!(result, Err(Error::Protocol(_))),
            "{shown}: {result:?}"
        );
        drop(channel);
        agent.join().unwrap();
    }
    // Whatever comes behind the end is not looked at.
    let (channel, agent) = channel_to(|mut to| {
        begin(&mut to);
        let _ = send(&mut to, &[exited(), exited(), Reply::Stdout(b"more")]);
    });
    assert!(channel.read_to_end(&mut Nowhere).unwrap().success());
    agent.join().unwrap();
}
