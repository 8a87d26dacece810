use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Ready(u32, Readiness),
    Woken,
    Deadline,
}

struct Recorder(Mutex<Sender<Seen>>);

impl EventHandler for Recorder {
    fn ready(&self, key: u32, readiness: Readiness) {
        let _ = self.0.lock().unwrap().send(Seen::Ready(key, readiness));
    }
    fn woken(&self) {
        let _ = self.0.lock().unwrap().send(Seen::Woken);
    }
    fn deadline_passed(&self) {
        let _ = self.0.lock().unwrap().send(Seen::Deadline);
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
    let reactor = MioReactor::spawn().unwrap();
    let (handler, seen) = recorder();
    let handle = reactor.handle();
    let id = handle.add_handler(handler);
    let (mut ours, mut theirs) = pair();
    handle.register(id, u32::MAX, ours.as_fd()).unwrap();
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
    let reactor = MioReactor::spawn().unwrap();
    let (handler, seen) = recorder();
    let handle = reactor.handle();
    let id = handle.add_handler(handler);
    let (ours, theirs) = pair();
    handle.register(id, 1, ours.as_fd()).unwrap();
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
    let reactor = MioReactor::spawn().unwrap();
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
    let reactor = MioReactor::spawn().unwrap();
    let handle = reactor.handle();
    let (handler, seen) = recorder();
    let id = handle.add_handler(handler.clone());
    let (ours, mut theirs) = pair();
    handle.register(id, 1, ours.as_fd()).unwrap();
    handle.deregister(ours.as_fd());
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
    let reactor = MioReactor::spawn().unwrap();
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
    struct Last(Mutex<Option<MioReactor>>, Mutex<Sender<()>>);
    impl EventHandler for Last {
        fn ready(&self, _: u32, _: Readiness) {}
        fn woken(&self) {
            drop(self.0.lock().unwrap().take());
            let _ = self.1.lock().unwrap().send(());
        }
    }
    let reactor = MioReactor::spawn().unwrap();
    let handle = reactor.handle();
    let (sender, receiver) = channel();
    let last = Last(Mutex::new(Some(reactor)), Mutex::new(sender));
    handle.wake(handle.add_handler(Arc::new(last)));
    receiver.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn deadlines_come_in_their_order_and_not_before_their_time() {
    let reactor = MioReactor::spawn().unwrap();
    let handle = reactor.handle();
    let (late, late_seen) = recorder();
    let (soon, soon_seen) = recorder();
    let (late, soon) = (handle.add_handler(late), handle.add_handler(soon));
    let begun = Instant::now();
    let at = |ms| Some(begun + Duration::from_millis(ms));
    handle.wake_at(late, at(80));
    handle.wake_at(soon, at(40));
    assert_eq!(soon_seen.recv_timeout(PATIENCE).unwrap(), Seen::Deadline);
    assert!(begun.elapsed() >= Duration::from_millis(40));
    assert_eq!(late_seen.recv_timeout(PATIENCE).unwrap(), Seen::Deadline);
    assert!(begun.elapsed() >= Duration::from_millis(80));
    // One that has passed already comes at once.
    handle.wake_at(soon, Some(begun));
    assert_eq!(soon_seen.recv_timeout(PATIENCE).unwrap(), Seen::Deadline);
}

#[test]
fn only_the_last_deadline_of_a_handler_counts() {
    let reactor = MioReactor::spawn().unwrap();
    let handle = reactor.handle();
    let (handler, seen) = recorder();
    let (other, other_seen) = recorder();
    let (id, other) = (handle.add_handler(handler), handle.add_handler(other));
    let now = Instant::now();
    handle.wake_at(id, Some(now + Duration::from_millis(20)));
    handle.wake_at(id, Some(now + Duration::from_secs(3600)));
    handle.wake_at(other, Some(now + Duration::from_millis(40)));
    assert_eq!(other_seen.recv_timeout(PATIENCE).unwrap(), Seen::Deadline);
    assert!(seen.try_recv().is_err(), "replaced, but came");
    handle.wake_at(id, Some(now + Duration::from_millis(60)));
    handle.wake_at(id, None);
    handle.wake_at(other, Some(now + Duration::from_millis(80)));
    assert_eq!(other_seen.recv_timeout(PATIENCE).unwrap(), Seen::Deadline);
    assert!(seen.try_recv().is_err(), "taken back, but came");
    // Neither does that of a handler that is gone.
    handle.wake_at(id, Some(Instant::now() + Duration::from_millis(20)));
    handle.remove_handler(id);
    handle.wake_at(other, Some(Instant::now() + Duration::from_millis(40)));
    assert_eq!(other_seen.recv_timeout(PATIENCE).unwrap(), Seen::Deadline);
    assert!(seen.try_recv().is_err());
}

#[test]
fn deadline_may_be_set_again_when_it_has_passed() {
    struct Again(Arc<dyn Reactor>, OnceLock<HandlerId>, Mutex<Sender<()>>);
    impl EventHandler for Again {
        fn ready(&self, _: u32, _: Readiness) {}
        fn deadline_passed(&self) {
            let soon = Instant::now() + Duration::from_millis(1);
            self.0.wake_at(*self.1.get().unwrap(), Some(soon));
            let _ = self.2.lock().unwrap().send(());
        }
    }
    let reactor = MioReactor::spawn().unwrap();
    let handle = reactor.handle();
    let (sender, receiver) = channel();
    let again = Arc::new(Again(handle.clone(), OnceLock::new(), Mutex::new(sender)));
    let id = handle.add_handler(again.clone());
    again.1.set(id).unwrap();
    handle.wake_at(id, Some(Instant::now()));
    for _ in 0..20 {
        receiver.recv_timeout(PATIENCE).unwrap();
    }
    handle.remove_handler(id);
}

#[test]
fn idle_loop_sleeps_without_end() {
    let reactor = MioReactor::spawn().unwrap();
    let handle = reactor.handle();
    let (handler, seen) = recorder();
    let id = handle.add_handler(handler);
    let (ours, _theirs) = pair();
    handle.register(id, 1, ours.as_fd()).unwrap();
    // It can be written to: one event, and from then on silence.
    seen.recv_timeout(PATIENCE).unwrap();
    handle.wake_at(id, Some(Instant::now()));
    expect(&seen, |event| *event == Seen::Deadline);
    handle.wake_at(id, Some(Instant::now() + Duration::from_secs(3600)));
    handle.wake(id);
    expect(&seen, |event| *event == Seen::Woken);
    std::thread::sleep(Duration::from_millis(50));
    let before = reactor.counters();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(reactor.counters(), before, "the loop woke up for nothing");
}
