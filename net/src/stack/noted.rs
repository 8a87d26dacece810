//! What is written down of flows, and counted.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Counters, Stack};
use crate::policy::{Protocol, Verdict};
use crate::record::{End, FlowRecord};
use crate::tcp::Origin;

impl Stack {
    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        let connections = self.table.iter().map(|flow| flow.bytes());
        for (sent, received) in connections.chain(self.datagrams.bytes()) {
            counters.sent_bytes += sent;
            counters.received_bytes += received;
        }
        counters.lost_records = self.records.lost;
        counters.waits = self.rates.waits();
        counters
    }

    /// Keeps records of flows from now on, at most so many until they are taken.
    pub fn keep_records(&mut self, most: usize) {
        self.records.keep(most);
    }

    /// Records of flows that have ended or were refused since the last call.
    pub fn take_records(&mut self) -> VecDeque<FlowRecord> {
        self.records.take()
    }

    /// Takes note of a flow that was not begun.
    pub(super) fn note_denied(&mut self, protocol: Protocol, remote: SocketAddr, origin: Origin) {
        self.counters.refused += 1;
        if self.records.is_kept() {
            self.records.add(FlowRecord {
                name: origin.name,
                remote,
                protocol,
                verdict: Verdict::Deny,
                cause: origin.cause,
                sent_bytes: 0,
                received_bytes: 0,
                end: End::Denied,
                lasted: Duration::ZERO,
                secrets: None,
            });
        }
    }

    /// Takes note of a flow that has ended.
    pub(super) fn note_end(
        &mut self,
        protocol: Protocol,
        remote: SocketAddr,
        origin: Origin,
        bytes: (u64, u64),
        (end, now): (End, Instant),
    ) {
        let record = self.ended(protocol, remote, origin, bytes, (end, now));
        self.note(record);
    }

    pub(super) fn note(&mut self, record: FlowRecord) {
        if self.records.is_kept() {
            self.records.add(record);
        }
    }

    /// Counts a flow that has ended; what is to be written down of it.
    pub(super) fn ended(
        &mut self,
        protocol: Protocol,
        remote: SocketAddr,
        origin: Origin,
        (sent_bytes, received_bytes): (u64, u64),
        (end, now): (End, Instant),
    ) -> FlowRecord {
        self.counters.sent_bytes += sent_bytes;
        self.counters.received_bytes += received_bytes;
        FlowRecord {
            name: origin.name,
            remote,
            protocol,
            verdict: Verdict::Allow,
            cause: origin.cause,
            sent_bytes,
            received_bytes,
            end,
            lasted: now.saturating_duration_since(origin.begun),
            secrets: None,
        }
    }
}
