//! The connection to the host that is always open before anybody needs it.
//!
//! One thread at a time holds the *post*: it dials, greets, and waits for the
//! host's first word. When that comes the thread serves the connection, and
//! the post goes to another, which dials the next. So a host that takes a
//! connection finds the agent already there, and a device that resets all
//! connections, as after a restore, makes the agent call at once.
//!
//! A thread that gets no further with what it serves (a program that hangs while
//! it is executed) is relieved of the post by whoever needs the line.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// First and longest pause while the host refuses, or closes at once.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// A connection that lived this long was wanted, even if nobody spoke on it.
const WANTED_NS: u64 = 1_000_000_000;
/// Threads that wait for the post while another holds it.
const KEPT_SPARE: usize = 2;

/// How a connection begins.
#[derive(Debug)]
pub enum Greeting {
    /// The host opened it.
    Hello,
    /// The agent opened it, with facts about the boot.
    Ready {
        /// `CLOCK_MONOTONIC` at the start of `main`, in ns.
        started_ns: u64,
        /// `CLOCK_MONOTONIC` when listening began, in ns.
        ready_ns: u64,
    },
}

/// Dials the host, one connection after the other.
pub struct Dialer {
    dial: Box<dyn Fn() -> io::Result<OwnedFd> + Send + Sync>,
    greeting: Greeting,
    state: Mutex<State>,
    vacancy: Condvar,
}

struct State {
    vacant: bool,
    /// Which holder of the post the present one is, or the last one was.
    tenure: u64,
    spare: usize,
    failures: u32,
}

/// How long to wait after so many failures in a row.
fn pause(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_PAUSE
            .saturating_mul(1 << doublings.min(10))
            .min(LAST_PAUSE),
    }
}

impl Dialer {
    /// Dials with `dial` and opens every connection with `greeting`.
    pub fn new(
        dial: impl Fn() -> io::Result<OwnedFd> + Send + Sync + 'static,
        greeting: Greeting,
    ) -> Self {
        Self {
            dial: Box::new(dial),
            greeting,
            state: Mutex::new(State {
                vacant: true,
                tenure: 0,
                spare: 0,
                failures: 0,
            }),
            vacancy: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Waits for the post and takes it; the number of this tenure. None if enough
    /// others wait.
    pub(super) fn await_post(&self) -> Option<u64> {
        let mut state = self.lock();
        if !state.vacant && state.spare >= KEPT_SPARE {
            return None;
        }
        state.spare += 1;
        while !state.vacant {
            let woken = self.vacancy.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state.spare -= 1;
        state.vacant = false;
        state.tenure += 1;
        Some(state.tenure)
    }

    pub(super) fn is_held_by(&self, tenure: u64) -> bool {
        let state = self.lock();
        !state.vacant && state.tenure == tenure
    }

    /// Gives the post up and tells how many threads wait for it; none if somebody
    /// else holds it by now.
    pub(super) fn vacate(&self, tenure: u64) -> Option<usize> {
        let state = self.lock();
        let is_held = !state.vacant && state.tenure == tenure;
        is_held.then(|| self.vacated(state))
    }

    /// As [`Dialer::vacate`], for whoever holds the post.
    pub(super) fn relieve(&self) -> Option<usize> {
        let state = self.lock();
        (!state.vacant).then(|| self.vacated(state))
    }

    fn vacated(&self, mut state: MutexGuard<'_, State>) -> usize {
        state.vacant = true;
        state.failures = 0;
        let spare = state.spare;
        drop(state);
        self.vacancy.notify_one();
        spare
    }

    /// Dials until the host answers.
    pub(super) fn connect(&self, standby: &Standby) -> OwnedFd {
        standby.set(Line::Calling);
        loop {
            if let Ok(socket) = (self.dial)() {
                standby.set(Line::Open);
                return socket;
            }
            standby.set(Line::Dead);
            let mut state = self.lock();
            state.failures = state.failures.saturating_add(1);
            let failures = state.failures;
            drop(state);
            // The first time it is a copy of the machine, where the call that was
            // under way has ended.
            thread::sleep(pause(failures.saturating_sub(1)));
        }
    }

    /// A connection ended after `lived_ns` without a word. The first time that
    /// is the device's reset; a host that goes on like this is kept waiting.
    pub(super) fn ended_unused(&self, lived_ns: u64) {
        let mut state = self.lock();
        if lived_ns >= WANTED_NS {
            state.failures = 0;
        }
        let failures = state.failures;
        state.failures = failures.saturating_add(1);
        drop(state);
        if failures > 0 {
            thread::sleep(pause(failures));
        }
    }
}

/// Whether the host has an unused connection to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Nobody dials, or the host refuses.
    Dead,
    /// One is about to be there.
    Calling,
    /// The host uses what was open, and the one who holds the post will pass it on.
    InUse,
    Open,
}

/// How long a holder of the post may serve a request before another calls in its
/// place, if somebody waits for that.
const RELIEF_AFTER: Duration = Duration::from_millis(100);

/// The state of the line to the host, for those who must not be captured in
/// the middle of a call.
pub(super) struct Standby {
    line: Mutex<Line>,
    changed: Condvar,
    /// Lets another thread dial.
    relief: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Standby {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Standby").field(&self.line).finish()
    }
}

impl Default for Standby {
    fn default() -> Self {
        Self {
            line: Mutex::new(Line::Dead),
            changed: Condvar::new(),
            relief: OnceLock::new(),
        }
    }
}

impl Standby {
    fn set(&self, line: Line) {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
        self.changed.notify_all();
    }

    /// How to let another thread dial than the one that holds the post.
    pub(super) fn set_relief(&self, relief: impl Fn() + Send + Sync + 'static) {
        // There is one dialer.
        let _ = self.relief.set(Box::new(relief));
    }

    /// Waits while a call is under way or about to be made, at most for `limit`;
    /// whether none is. Has another thread call if that does not get on.
    pub(super) fn settle(&self, limit: Duration) -> bool {
        let first = RELIEF_AFTER.min(limit);
        match self.settled(first) {
            Line::Dead | Line::Open => return true,
            Line::Calling => {}
            Line::InUse => {
                if let Some(relieve) = self.relief.get() {
                    relieve();
                }
            }
        }
        matches!(self.settled(limit - first), Line::Dead | Line::Open)
    }

    fn settled(&self, limit: Duration) -> Line {
        let is_moving = |line: &mut Line| matches!(line, Line::Calling | Line::InUse);
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(line, limit, is_moving);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A thread's hold on the post while it serves a connection.
pub(super) struct Post<'a> {
    standby: Option<&'a Standby>,
    pass_on: &'a dyn Fn(),
    held: Cell<bool>,
}

impl<'a> Post<'a> {
    pub(super) fn new(standby: &'a Standby, pass_on: &'a dyn Fn()) -> Self {
        Self {
            standby: Some(standby),
            pass_on,
            held: Cell::new(true),
        }
    }

    /// For a connection that the host made.
    pub(super) fn none() -> Self {
        Self {
            standby: None,
            pass_on: &|| {},
            held: Cell::new(false),
        }
    }

    /// The host uses the connection: it has none in reserve now.
    pub(super) fn in_use(&self) {
        if let Some(standby) = self.standby
            && self.held.get()
        {
            standby.set(Line::InUse);
        }
    }

    /// Lets another thread dial; later calls do nothing.
    pub(super) fn pass_on(&self) {
        if self.held.replace(false) {
            (self.pass_on)();
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_nothing_to_their_limit() {
        let millis: Vec<u128> = (0..10).map(|n| pause(n).as_millis()).collect();
        assert_eq!(millis, [0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(pause(u32::MAX), LAST_PAUSE);
    }

    #[test]
    fn reset_is_answered_at_once_and_a_host_that_hangs_up_is_not() {
        let dialer = Dialer::new(|| Err(io::ErrorKind::Unsupported.into()), Greeting::Hello);
        let failures = || dialer.lock().failures;
        dialer.ended_unused(5);
        assert_eq!(failures(), 1, "without a pause: it was the first");
        dialer.ended_unused(5);
        assert_eq!(failures(), 2);
        dialer.ended_unused(WANTED_NS);
        assert_eq!(failures(), 1);
        dialer.relieve();
        assert_eq!(failures(), 1, "nobody holds the post");
        let tenure = dialer.await_post().unwrap();
        assert_eq!(dialer.vacate(tenure), Some(0));
        assert_eq!(failures(), 0);
    }

    #[test]
    fn post_is_passed_on_once() {
        let count = Cell::new(0);
        let pass_on = || count.set(count.get() + 1);
        let standby = Standby::default();
        let post = Post::new(&standby, &pass_on);
        assert!(post.is_held());
        post.pass_on();
        post.pass_on();
        assert!(!post.is_held());
        assert_eq!(count.get(), 1);
    }

    #[test]
    fn who_was_relieved_has_no_post_to_pass_on() {
        let dialer = Dialer::new(|| Err(io::ErrorKind::Unsupported.into()), Greeting::Hello);
        let first = dialer.await_post().unwrap();
        assert!(dialer.is_held_by(first));
        assert_eq!(dialer.relieve(), Some(0));
        assert!(!dialer.is_held_by(first));
        assert_eq!(dialer.vacate(first), None);
        let second = dialer.await_post().unwrap();
        assert_eq!(dialer.vacate(first), None);
        assert!(dialer.is_held_by(second) && !dialer.is_held_by(first));
    }

    #[test]
    fn call_that_a_hanging_command_owes_is_made_by_another() {
        let standby = std::sync::Arc::new(Standby::default());
        let post = Post::new(&standby, &|| {});
        post.in_use();
        let other = std::sync::Arc::downgrade(&standby);
        standby.set_relief(move || {
            let standby = other.upgrade().unwrap();
            standby.set(Line::Calling);
            thread::spawn(move || standby.set(Line::Open));
        });
        assert!(standby.settle(Duration::from_secs(60)));
        // An open line is not waited for, and nobody is relieved.
        standby.set(Line::Calling);
        assert!(!standby.settle(Duration::from_millis(20)));
    }

    #[test]
    fn only_a_call_under_way_is_waited_for() {
        let long = Duration::from_secs(60);
        let standby = Standby::default();
        assert!(standby.settle(long));
        standby.set(Line::Open);
        assert!(standby.settle(long));
        let post = Post::new(&standby, &|| {});
        post.in_use();
        let begin = std::time::Instant::now();
        assert!(!standby.settle(Duration::from_millis(20)));
        assert!(begin.elapsed() >= Duration::from_millis(20));
        thread::scope(|scope| {
            scope.spawn(|| standby.settle(long));
            standby.set(Line::Open);
        });
    }
}
