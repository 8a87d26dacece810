//! Connections of a guest that has secrets: whether what stands for one of them leaves as
//! it is, for a host that it is not for.

use std::collections::HashMap;

use memchr::memmem::find;

use crate::config::Config;
use crate::io::FlowId;
use crate::record::SecretsUse;

/// Bytes of a connection that are looked at: credentials come first.
const LOOKED_AT_BYTES: usize = 64 << 10;
/// Most bytes that are kept to find what comes in pieces, of all connections. One that
/// would need more is not looked at any longer.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// The connections that are looked at; none if the guest has no secrets.
#[derive(Debug, Default)]
pub(super) struct Placeholders {
    by_flow: HashMap<FlowId, Seen>,
    kept_bytes: usize,
}

/// What a connection has shown so far.
#[derive(Debug, Default)]
struct Seen {
    bytes: usize,
    /// The last of them, which may be the beginning of a placeholder.
    end: Vec<u8>,
    /// Numbers of the secrets whose placeholders were there.
    found: Vec<usize>,
}

impl Placeholders {
    /// Looks at a connection from its first byte on.
    pub(super) fn begin(&mut self, flow: FlowId, config: &Config) {
        if !config.placeholders.is_empty() {
            self.by_flow.insert(flow, Seen::default());
        }
    }

    /// The guest has sent these.
    pub(super) fn sent(&mut self, flow: FlowId, bytes: &[u8], config: &Config) {
        if self.by_flow.is_empty() {
            return;
        }
        let Some(seen) = self.by_flow.get_mut(&flow) else {
            return;
        };
        let others = self.kept_bytes - seen.end.len();
        seen.look(bytes, config, MAX_KEPT_BYTES.saturating_sub(others));
        self.kept_bytes = others + seen.end.len();
    }

    /// Forgets a connection that has ended; what was found, if anything.
    pub(super) fn end(&mut self, flow: FlowId, config: &Config) -> Option<SecretsUse> {
        if self.by_flow.is_empty() {
            return None;
        }
        let seen = self.by_flow.remove(&flow)?;
        self.kept_bytes -= seen.end.len();
        let known = seen
            .found
            .iter()
            .filter_map(|at| config.placeholders.get(*at));
        let misplaced: Vec<String> = known.map(|(name, _)| name.clone()).collect();
        (!misplaced.is_empty()).then(|| SecretsUse {
            misplaced,
            ..SecretsUse::default()
        })
    }
}

impl Seen {
    fn look(&mut self, bytes: &[u8], config: &Config, room: usize) {
        let most = LOOKED_AT_BYTES.saturating_sub(self.bytes);
        let fresh = bytes.get(..most).unwrap_or(bytes);
        if fresh.is_empty() {
            return;
        }
        self.bytes += fresh.len();
        self.end.extend_from_slice(fresh);
        let mut longest = 0;
        for (number, (_, text)) in config.placeholders.iter().enumerate() {
            longest = longest.max(text.len());
            if !self.found.contains(&number) && find(&self.end, text).is_some() {
                self.found.push(number);
            }
        }
        let kept = longest.saturating_sub(1).min(self.end.len());
        if self.bytes >= LOOKED_AT_BYTES || kept > room {
            self.bytes = LOOKED_AT_BYTES;
            self.end = Vec::new();
        } else {
            self.end.drain(..self.end.len() - kept);
            self.end.shrink_to_fit();
        }
    }
}
