//! Looks names up by the host's resolver, which waits: on threads of its own.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use dns_lookup::{AddrInfoHints, LookupErrorKind};

use super::{Shared, forward, lock};
use crate::dns::{Answer, Family};
use crate::io::{Query, Ticket};

/// Most names that are looked up at the same time: one whose servers do not answer
/// holds up a thread for many seconds.
const MAX_THREADS: usize = 4;

/// Questions, and the answers to them.
#[derive(Default)]
pub(super) struct Resolver {
    state: Mutex<State>,
    asked: Condvar,
    answers: Mutex<Vec<(Ticket, Answer)>>,
}

#[derive(Default)]
struct State {
    questions: VecDeque<(Ticket, Query)>,
    threads: usize,
    idle: usize,
    is_over: bool,
}

impl Resolver {
    /// Looks a name up on another thread; false if there is no thread for it.
    pub(super) fn ask(&self, shared: &Arc<Shared>, ticket: Ticket, query: Query) -> bool {
        let mut state = lock(&self.state);
        if state.idle <= state.questions.len() && state.threads < MAX_THREADS {
            let weak = Arc::downgrade(shared);
            let started = std::thread::Builder::new()
                .name("vm-names".into())
                .spawn(move || {
                    // Not the network: a look-up outlives it.
                    while let Some((ticket, query)) =
                        weak.upgrade().and_then(|shared| shared.resolver.next())
                    {
                        let answer = match query {
                            Query::Addresses { name, family } => look_up(&name, family),
                            Query::Records(asked) => forward::ask(&forward::servers(), &asked),
                        };
                        let Some(shared) = weak.upgrade() else {
                            return;
                        };
                        shared.resolver.put(&shared, ticket, answer);
                    }
                });
            state.threads += usize::from(started.is_ok());
        }
        if state.threads == 0 {
            return false;
        }
        state.questions.push_back((ticket, query));
        self.asked.notify_one();
        true
    }

    fn next(&self) -> Option<(Ticket, Query)> {
        let mut state = lock(&self.state);
        state.idle += 1;
        while state.questions.is_empty() && !state.is_over {
            state = self
                .asked
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.idle -= 1;
        state.questions.pop_front()
    }

    fn put(&self, shared: &Shared, ticket: Ticket, answer: Answer) {
        lock(&self.answers).push((ticket, answer));
        if let Some(waker) = shared.waker.get()
            && !shared.is_called.swap(true, Ordering::SeqCst)
        {
            let _ = waker.wake();
        }
    }

    /// Answers that have come.
    pub(super) fn answers(&self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut *lock(&self.answers))
    }

    /// Lets the threads end.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        state.is_over = true;
        state.questions.clear();
        self.asked.notify_all();
    }
}

fn look_up(name: &str, family: Family) -> Answer {
    let hints = AddrInfoHints {
        address: match family {
            Family::V4 => dns_lookup::AddrFamily::Inet.into(),
            Family::V6 => dns_lookup::AddrFamily::Inet6.into(),
        },
        socktype: dns_lookup::SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    // As any program of the host would: with its hosts file and its search list.
    match dns_lookup::getaddrinfo(Some(name), None, Some(hints)) {
        Ok(found) => {
            let mut seen = HashSet::new();
            let addresses = found.flatten().map(|info| info.sockaddr.ip());
            let distinct = addresses.filter(|address| seen.insert(*address));
            Answer::Addresses(distinct.collect::<Vec<IpAddr>>())
        }
        Err(error) => match error.kind() {
            LookupErrorKind::NoName => Answer::NoName,
            LookupErrorKind::NoData => Answer::Addresses(Vec::new()),
            _ => Answer::Failed,
        },
    }
}
