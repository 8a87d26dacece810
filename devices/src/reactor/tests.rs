use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Ready(u32, Readiness),
    Woken,
}

struct Recorder(Mutex<Sender<Seen>>);

impl EventHandler for Recorder {
    fn ready(&self, key: u32, readiness: Readiness) {
        let _ = self.0.lock().unwrap().send(Seen::Ready(key, readiness));
    }
    fn woken(&self) {
        let _ = self.0.lock().unwrap().send(Seen::Woken);
    }
}

fn recorder() -> (Arc<Recorder>, Receiver<Seen>) {
    let (sender, receiver) = channel();
    (Arc::new(Recorder(Mutex::new(sender))), receiver)
}

fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    (a, b)
}

/// Waits for an event that satisfies `wanted`, past any others.
fn expect(receiver: &Receiver<Seen>, wanted: impl Fn(&Seen) -> bool) {
    while !wanted(&receiver.recv_timeout(PATIENCE).unwrap()) {}
}

#[test]
fn readiness_comes_under_the_registered_key() {
    let reactor = Reactor::spawn().unwrap();
    let (handler, seen) = recorder();
    let handle = reactor.handle();
    let id = handle.add_handler(handler);
    let (mut ours, mut theirs) = pair();
    handle.register(id, u32::MAX, &ours).unwrap();
    theirs.write_all(b"x").unwrap();
    expect(
        &seen,
        |event| matches!(event, Seen::Ready(u32::MAX, r) if r.readable && !r.write_closed),
    );
    // Edge-triggered: without new data, silence.
    while seen.recv_timeout(Duration::from_millis(30)).is_ok() {}
    let mut data = [0; 2];
    assert_eq!(ours.read(&mut data).unwrap(), 1);
    theirs.write_all(b"y").unwrap();
    expect(
        &seen,
        |event| matches!(event, Seen::Ready(_, r) if r.readable),
    );
    drop(theirs);
    expect(
        &seen,
        |event| matches!(event, Seen::Ready(_, r) if r.readable && r.write_closed),
    );
}

#[test]
fn half_closed_peer_still_reads() {
    let reactor = Reactor::spawn().unwrap();
    let (handler, seen) = recorder();
    let handle = reactor.handle();
    let id = handle.add_handler(handler);
    let (ours, theirs) = pair();
    handle.register(id, 1, &ours).unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    expect(&seen, |event| {
        let Seen::Ready(1, readiness) = event else {
            return false;
        };
        assert!(!readiness.write_closed);
        readiness.readable
    });
}

#[test]
fn wake_reaches_just_its_handler() {
    let reactor = Reactor::spawn().unwrap();
    let handle = reactor.handle();
    let (first, first_seen) = recorder();
    let (second, second_seen) = recorder();
    let _first = handle.add_handler(first);
    let id = handle.add_handler(second);
    handle.wake(id);
    assert_eq!(second_seen.recv_timeout(PATIENCE).unwrap(), Seen::Woken);
    assert!(first_seen.try_recv().is_err());
}

#[test]
fn removed_handler_is_let_go_and_hears_nothing() {
    let reactor = Reactor::spawn().unwrap();
    let handle = reactor.handle();
    let (handler, seen) = recorder();
    let id = handle.add_handler(handler.clone());
    let (ours, mut theirs) = pair();
    handle.register(id, 1, &ours).unwrap();
    handle.deregister(&ours);
    handle.remove_handler(id);
    handle.wake(id);
    theirs.write_all(b"x").unwrap();
    let (probe, probe_seen) = recorder();
    handle.wake(handle.add_handler(probe));
    probe_seen.recv_timeout(PATIENCE).unwrap();
    // The write may have been reported before the removal, a wake not.
    assert!(!seen.try_iter().any(|event| event == Seen::Woken));
    assert_eq!(Arc::strong_count(&handler), 1);
}

#[test]
fn stop_joins_and_later_use_is_harmless() {
    let reactor = Reactor::spawn().unwrap();
    let handle = reactor.handle();
    let (handler, seen) = recorder();
    let id = handle.add_handler(handler);
    reactor.stop();
    reactor.stop();
    handle.wake(id);
    drop(reactor);
    handle.remove_handler(id);
    assert!(seen.recv_timeout(PATIENCE).is_err());
}

#[test]
fn handler_may_drop_the_reactor() {
    struct Last(Mutex<Option<Arc<Reactor>>>, Mutex<Sender<()>>);
    impl EventHandler for Last {
        fn ready(&self, _: u32, _: Readiness) {}
        fn woken(&self) {
            drop(self.0.lock().unwrap().take());
            let _ = self.1.lock().unwrap().send(());
        }
    }
    let reactor = Reactor::spawn().unwrap();
    let handle = reactor.handle();
    let (sender, receiver) = channel();
    let last = Last(Mutex::new(Some(reactor)), Mutex::new(sender));
    handle.wake(handle.add_handler(Arc::new(last)));
    receiver.recv_timeout(PATIENCE).unwrap();
}
