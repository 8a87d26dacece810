//! Who computes: so many machines of a pool at once, and the others in the order in
//! which they came.

use crate::host;
use crate::limits::{LINE_LOOK, LONGEST_TURN, STANDSTILL, TURN_LOOK};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Instant;

/// Whether a process has something to compute, if the system tells.
type Computes = dyn Fn(u32) -> Option<bool> + Send + Sync;

/// The turns of a pool.
///
/// A turn counts as long as its machine has something to compute, and not for longer than
/// [`LONGEST_TURN`]: commands that sleep, or wait for those of other machines, hold
/// nobody up, and none that computes without an end holds others up for ever.
pub(crate) struct Turns {
    most: usize,
    /// The engine they are for, if not for all.
    only: Option<&'static str>,
    computes: Box<Computes>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Vec<Held>,
    line: VecDeque<(u64, Thread)>,
    next: u64,
}

/// A turn that somebody has.
struct Held {
    number: u64,
    pid: u32,
    since: Instant,
    /// Since when it was seen with nothing to compute.
    idle: Option<Instant>,
    counts: bool,
}

impl Turns {
    /// Turns for so many machines at once, and one at least.
    pub fn of_any_engine(most: usize) -> Self {
        Self::measured(most, Box::new(host::has_running_thread))
    }

    /// The same for machines of the software engine, and no limit for others.
    pub fn of_software(most: usize) -> Self {
        Self {
            only: Some(softhv::api().name),
            ..Self::of_any_engine(most)
        }
    }

    /// Whether machines of an engine wait for turns.
    pub fn are_for(&self, engine: &str) -> bool {
        self.only.is_none_or(|only| only == engine)
    }

    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.lock().held.len()
    }

    #[cfg(test)]
    pub fn most(&self) -> usize {
        self.most
    }

    fn measured(most: usize, computes: Box<Computes>) -> Self {
        Self {
            most: most.max(1),
            only: None,
            computes,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn of the machine whose worker this is. `None` if it is not wanted
    /// any more.
    pub fn take(self: &Arc<Self>, pid: u32, is_wanted: &dyn Fn() -> bool) -> Option<Turn> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        if !state.line.is_empty() || state.counted() >= self.most {
            state.line.push_back((number, thread::current()));
            loop {
                let is_first = state
                    .line
                    .front()
                    .is_some_and(|(first, _)| *first == number);
                if is_first && self.look(&mut state) < self.most {
                    break;
                }
                if !is_wanted() {
                    state.line.retain(|(other, _)| *other != number);
                    state.wake_first();
                    return None;
                }
                drop(state);
                thread::park_timeout(if is_first { TURN_LOOK } else { LINE_LOOK });
                state = self.lock();
            }
            state.line.pop_front();
            state.wake_first();
        }
        state.held.push(Held {
            number,
            pid,
            since: Instant::now(),
            idle: None,
            counts: true,
        });
        Some(Turn {
            turns: self.clone(),
            number,
        })
    }

    /// Finds out which turns count, and tells how many.
    fn look(&self, state: &mut State) -> usize {
        let now = Instant::now();
        for held in &mut state.held {
            held.idle = match (self.computes)(held.pid) {
                Some(false) => held.idle.or(Some(now)),
                Some(true) | None => None,
            };
            let stands = |since: Instant| now.duration_since(since) >= STANDSTILL;
            held.counts =
                !held.idle.is_some_and(stands) && now.duration_since(held.since) < LONGEST_TURN;
        }
        state.counted()
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("most", &self.most).finish()
    }
}

impl State {
    fn counted(&self) -> usize {
        self.held.iter().filter(|held| held.counts).count()
    }

    fn wake_first(&self) {
        if let Some((_, first)) = self.line.front() {
            first.unpark();
        }
    }
}

/// A turn, for as long as this is not dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    number: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        state.held.retain(|held| held.number != self.number);
        state.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    /// These machines always have something to compute.
    fn busy(most: usize) -> Arc<Turns> {
        Arc::new(Turns::measured(most, Box::new(|_| Some(true))))
    }

    fn take(turns: &Arc<Turns>) -> Turn {
        turns.take(1, &|| true).unwrap()
    }

    fn await_line(turns: &Turns, length: usize) {
        while turns.lock().line.len() != length {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn turns_are_given_in_the_order_in_which_they_were_asked_for() {
        let turns = busy(2);
        let (first, second) = (take(&turns), take(&turns));
        let (said, order) = channel();
        let waiting: Vec<_> = (0..3)
            .map(|number| {
                let (waits, said) = (turns.clone(), said.clone());
                let waiter = thread::spawn(move || {
                    let turn = take(&waits);
                    said.send(number).unwrap();
                    drop(turn);
                });
                await_line(&turns, number + 1);
                waiter
            })
            .collect();
        drop(first);
        drop(second);
        for waiter in waiting {
            waiter.join().unwrap();
        }
        drop(said);
        let mut order: Vec<_> = order.into_iter().collect();
        // Two of them had one at the same time, and may say so in either order.
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2]);
        assert!(turns.lock().held.is_empty() && turns.lock().line.is_empty());
    }

    #[test]
    fn nobody_goes_first_who_came_later() {
        let turns = busy(1);
        let held = take(&turns);
        let (said, order) = channel();
        let waiting: Vec<_> = (0..4)
            .map(|number| {
                let (waits, said) = (turns.clone(), said.clone());
                let waiter = thread::spawn(move || {
                    let _turn = take(&waits);
                    said.send(number).unwrap();
                });
                await_line(&turns, number + 1);
                waiter
            })
            .collect();
        drop((held, said));
        for waiter in waiting {
            waiter.join().unwrap();
        }
        assert_eq!(order.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_turn_of_a_machine_that_stands_still_holds_nobody_up() {
        let turns = Arc::new(Turns::measured(1, Box::new(|_| Some(false))));
        let idle = take(&turns);
        // It is given though the first is still held.
        let second = take(&turns);
        drop((idle, second));
        assert!(turns.lock().held.is_empty());
    }

    #[test]
    fn who_does_not_want_a_turn_any_more_leaves_the_line() {
        let turns = busy(1);
        let held = take(&turns);
        assert!(turns.take(1, &|| false).is_none());
        assert!(turns.lock().line.is_empty());
        let (said, answer) = channel();
        let waits = turns.clone();
        let waiter = thread::spawn(move || {
            drop(take(&waits));
            said.send(()).unwrap();
        });
        await_line(&turns, 1);
        assert!(answer.try_recv().is_err());
        drop(held);
        let answered = answer.recv_timeout(Duration::from_secs(60));
        assert_ne!(answered, Err(RecvTimeoutError::Timeout));
        waiter.join().unwrap();
    }
}
