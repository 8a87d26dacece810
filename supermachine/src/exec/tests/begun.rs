//! Commands that are begun by one thread, and waited for by another.

use super::*;
use crate::Command;
use crate::deadline::Deadline;
use crate::exec::begun::{AsOpens, ExecBegun};
use crate::exec::{Asked, Opens};
use crate::pool::turns::{Turn, Turns};
use exec_proto::ProtoError;
use exec_proto::client::Session;
use exec_proto::server::Parser;
use oci_bake::ImageConfig;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A guest whose connections are these: one that is there, and one that is to be waited
/// for.
#[derive(Debug, Default)]
struct Guest {
    image: ImageConfig,
    there: Mutex<Option<UnixStream>>,
    later: Mutex<Option<UnixStream>>,
    turns: Option<Arc<Turns>>,
}

impl Guest {
    /// One with a connection that is there, and its other end.
    fn with_connection() -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let guest = Self {
            there: Mutex::new(Some(ours)),
            ..Self::default()
        };
        (guest, theirs)
    }
}

impl Opens for Guest {
    fn image_config(&self) -> &ImageConfig {
        &self.image
    }

    fn open_session(
        &self,
        deadline: Deadline,
        queue: &dyn Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Channel, Error> {
        let stream = self.later.lock().unwrap().take().ok_or(Error::Paused)?;
        let channel = Channel::new(stream, Arc::new(Unwatched))?;
        channel.limit(deadline);
        channel.request(queue)?;
        channel.greeting()?;
        Ok(channel)
    }

    fn ask_at_once(
        &self,
        queue: &dyn Fn(&mut Session) -> Result<(), ProtoError>,
    ) -> Result<Option<Asked>, Error> {
        let Some(stream) = self.there.lock().unwrap().take() else {
            return Ok(None);
        };
        let channel = Channel::new(stream, Arc::new(Unwatched))?;
        channel.queue(queue)?;
        channel.send_some()?;
        Ok(Some(Asked {
            channel,
            is_greeted: false,
        }))
    }

    fn turn(&self, is_wanted: &dyn Fn() -> bool) -> Result<Option<Turn>, Error> {
        let Some(turns) = &self.turns else {
            return Ok(None);
        };
        let turn = turns.take(std::process::id(), is_wanted);
        turn.map(Some).ok_or(Error::Cancelled)
    }
}

impl AsOpens for Guest {
    fn opens(&self) -> &dyn Opens {
        self
    }
}

fn begun(guest: Guest) -> ExecBegun {
    ExecBegun::ask(&Arc::new(guest), &Command::new(["command"])).unwrap()
}

/// Reads one request.
fn read_request(from: &mut UnixStream) {
    let mut parser = Parser::new();
    let mut bytes = [0; 4096];
    while parser.next_request().unwrap().is_none() {
        let count = from.read(&mut bytes).unwrap();
        assert_ne!(count, 0, "nothing was asked for");
        parser.feed(&bytes[..count]);
    }
}

fn is_closed(mut end: &UnixStream) -> bool {
    end.set_read_timeout(Some(SOON)).unwrap();
    loop {
        match end.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn the_guest_is_asked_before_anybody_waits() {
    let (guest, mut agent) = Guest::with_connection();
    let begun = begun(guest);
    read_request(&mut agent);
    begin(&mut agent);
    send(&mut agent, &[Reply::Stdout(b"done"), exited()]).unwrap();
    let outcome = begun.wait().unwrap();
    assert_eq!(outcome.stdout, b"done");
    assert!(outcome.success());
}

#[test]
fn nothing_is_asked_of_a_guest_where_that_would_have_to_wait() {
    let command = Command::new(["command"]);
    assert!(ExecBegun::ask(&Arc::new(Guest::default()), &command).is_none());

    let (guest, agent) = Guest::with_connection();
    let large = command.clone().stage_file("/f", vec![0; 64 * 1024 + 1]);
    let turns = Arc::new(Turns::of_any_engine(1));
    let busy = Arc::new(Guest {
        turns: Some(turns.clone()),
        ..guest
    });
    assert!(ExecBegun::ask(&busy, &large).is_none());
    let held = turns.take(std::process::id(), &|| true);
    assert!(ExecBegun::ask(&busy, &command).is_none());
    agent.set_nonblocking(true).unwrap();
    let error = (&agent).read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);

    drop(held);
    let begun = ExecBegun::ask(&busy, &command).unwrap();
    assert_eq!(turns.held(), 1);
    drop(begun);
    assert_eq!(turns.held(), 0);
}

#[test]
fn what_an_agent_refuses_is_asked_for_again() {
    let (guest, agent) = Guest::with_connection();
    let (ours, mut patient) = UnixStream::pair().unwrap();
    let begun = begun(Guest {
        later: Mutex::new(Some(ours)),
        ..guest
    });
    // Closed without a greeting: it has not begun.
    drop(agent);
    let waits = std::thread::spawn(move || begun.wait());
    read_request(&mut patient);
    begin(&mut patient);
    send(&mut patient, &[exited()]).unwrap();
    assert!(waits.join().unwrap().unwrap().success());
}

#[test]
fn an_agent_that_breaks_off_after_its_greeting_is_not_asked_again() {
    let (guest, mut agent) = Guest::with_connection();
    let (ours, patient) = UnixStream::pair().unwrap();
    let begun = begun(Guest {
        later: Mutex::new(Some(ours)),
        ..guest
    });
    begin(&mut agent);
    drop(agent);
    let result = begun.wait();
    assert!(
        matches!(result, Err(Error::Connection { .. })),
        "{result:?}"
    );
    patient.set_nonblocking(true).unwrap();
    assert!(!matches!((&patient).read(&mut [0; 1]), Ok(1)));
}

#[test]
fn who_waits_for_a_command_that_is_stopped_learns_it_at_once() {
    for greets in [false, true] {
        let (guest, mut agent) = Guest::with_connection();
        let begun = begun(guest);
        if greets {
            begin(&mut agent);
        }
        let stop = begun.stop();
        let waits = std::thread::spawn(move || begun.wait());
        stop.stop();
        let result = waits.join().unwrap();
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        assert!(is_closed(&agent));
    }
    let (guest, agent) = Guest::with_connection();
    drop(begun(guest));
    assert!(is_closed(&agent));
}

#[test]
fn a_command_ends_when_its_thread_does_not_want_it_whatever_the_guest_sends() {
    for replies in [vec![], vec![Reply::Stdout(b"more")]] {
        let (guest, mut agent) = Guest::with_connection();
        let command = begun(guest);
        let agent = std::thread::spawn(move || {
            begin(&mut agent);
            if replies.is_empty() {
                return is_closed(&agent);
            }
            while send(&mut agent, &replies).is_ok() {}
            true
        });
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = looks.clone();
        let result = command.wait_while(move || counted.fetch_add(1, Ordering::SeqCst) < 2);
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        assert_eq!(looks.load(Ordering::SeqCst), 3);
        assert!(agent.join().unwrap());
    }
}
