//! What became of the guest's flows: the latest, for whoever asks.

use crate::link::monitor::Flows;
use crate::network::NetworkFlow;
use crate::running::unix_ms;
use crate::stats::NetworkStats;
use crate::sync::lock;
use net::driver::Log;
use net::{Counters, FlowRecord};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;

/// Flows that are kept.
const MOST_KEPT: usize = 4096;
/// Flows of one answer: with the longest names some 600 KB of the message's 1 MiB.
const MOST_TOLD: usize = 1000;

/// Bytes of the names of secrets in one answer: those of one flow are a tenth of that.
const MOST_NAME_BYTES: usize = 256 << 10;

/// Bytes of the names of secrets of a flow, as JSON.
fn name_bytes(flow: &NetworkFlow) -> usize {
    let secrets = flow.secrets.iter();
    let names = secrets.flat_map(|secrets| secrets.used.iter().chain(&secrets.misplaced));
    names.map(|name| name.len() + 3).sum()
}

/// The flows of one machine.
#[derive(Default)]
pub struct FlowLog {
    state: Mutex<State>,
    counters: Mutex<Option<Source>>,
}

/// Tells what a network has done, as long as it is there.
type Source = Box<dyn Fn() -> Option<Counters> + Send + Sync>;

#[derive(Default)]
struct State {
    /// The number of the one that comes next.
    next: u64,
    kept: VecDeque<NetworkFlow>,
}

impl fmt::Debug for FlowLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowLog").finish_non_exhaustive()
    }
}

impl Log for FlowLog {
    fn record(&self, record: FlowRecord) {
        let mut state = lock(&self.state);
        let number = state.next;
        state.next = number.saturating_add(1);
        if state.kept.len() >= MOST_KEPT {
            state.kept.pop_front();
        }
        state
            .kept
            .push_back(NetworkFlow::of(number, unix_ms(), record));
    }
}

impl FlowLog {
    /// Which network the flows are of now.
    pub fn attach(&self, counters: impl Fn() -> Option<Counters> + Send + Sync + 'static) {
        *lock(&self.counters) = Some(Box::new(counters));
    }

    /// Flows from a number on, as many as an answer has room for.
    pub fn since(&self, from: u64) -> Flows {
        // What the guest has seen by now is written down when this has an answer.
        let _ = self.stats();
        let state = lock(&self.state);
        let late = state.kept.iter().filter(|flow| flow.number >= from);
        let mut names = 0;
        let has_room = |flow: &&NetworkFlow| {
            names += name_bytes(flow);
            names <= MOST_NAME_BYTES
        };
        let late = late.take(MOST_TOLD).take_while(has_room);
        let flows: Vec<NetworkFlow> = late.cloned().collect();
        let next = flows.last().map_or(state.next, |last| last.number + 1);
        Flows { flows, next }
    }

    /// Forgets them: whoever has the machine next is not told.
    pub fn forget(&self) {
        lock(&self.state).kept.clear();
    }

    /// What the network has done so far, if there is one.
    pub fn stats(&self) -> Option<NetworkStats> {
        let counters = lock(&self.counters).as_ref()?()?;
        Some(NetworkStats {
            connections: counters.connections,
            refused: counters.refused,
            look_ups: counters.look_ups,
            sent_bytes: counters.sent_bytes,
            received_bytes: counters.received_bytes,
            waits: counters.waits,
            lost_datagrams: counters.lost_messages,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::policy::{Cause, Protocol, Verdict};
    use std::time::Duration;

    fn record(port: u16) -> FlowRecord {
        FlowRecord {
            name: None,
            remote: ([192, 0, 2, 1], port).into(),
            protocol: Protocol::Tcp,
            verdict: Verdict::Allow,
            cause: Cause::Default,
            sent_bytes: 1,
            received_bytes: 2,
            end: net::End::Closed,
            lasted: Duration::from_millis(3),
            secrets: None,
        }
    }

    #[test]
    fn latest_flows_are_kept_and_told_in_parts() {
        let log = FlowLog::default();
        assert_eq!(log.since(0).flows, []);
        for number in 0..5000 {
            log.record(record(number));
        }
        let mut from = 0;
        let mut numbers = Vec::new();
        loop {
            let Flows { flows, next } = log.since(from);
            if flows.is_empty() {
                assert_eq!(next, 5000);
                break;
            }
            assert!(flows.len() <= MOST_TOLD);
            numbers.extend(flows.iter().map(|flow| flow.number));
            from = next;
        }
        assert!(numbers.into_iter().eq(5000 - MOST_KEPT as u64..5000));
        log.forget();
        log.record(record(7));
        let Flows { flows, next } = log.since(0);
        assert_eq!((flows.len(), flows[0].number, next), (1, 5000, 5001));
        assert_eq!((flows[0].port, flows[0].sent_bytes), (7, 1));
    }

    #[test]
    fn fullest_answer_fits_a_message() {
        let log = FlowLog::default();
        for _ in 0..MOST_TOLD {
            log.record(FlowRecord {
                name: Some("n".repeat(253)),
                remote: "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535"
                    .parse()
                    .unwrap(),
                cause: Cause::Rule(usize::MAX),
                sent_bytes: u64::MAX,
                received_bytes: u64::MAX,
                lasted: Duration::from_secs(1 << 40),
                ..record(1)
            });
        }
        let answer = crate::link::monitor::Answer::Flows(log.since(0));
        let mut sent = Vec::new();
        crate::link::protocol::send(&mut sent, &answer).unwrap();
    }
}
