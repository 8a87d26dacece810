//! Host names: patterns of them, and the addresses that a guest was told for some.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::PolicyError;

/// Longest name in text form (RFC 1035, 2.3.4).
pub(crate) const MAX_NAME_BYTES: usize = 253;
/// Longest label of a name.
const MAX_LABEL_BYTES: usize = 63;
/// Most pairs of a name and an address that are remembered.
const MAX_PAIRS: usize = 4096;
/// How long an answer holds, whatever lifetime it had.
const HOLDS: Duration = Duration::from_secs(300);

/// Whether this is a host name, in small letters.
pub(crate) fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
            })
    };
    text.len() <= MAX_NAME_BYTES && text.split('.').all(label)
}

/// A host name, or `*.` and the names below one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "String", try_from = "String"))]
pub struct HostPattern {
    name: String,
    below: bool,
}

impl HostPattern {
    pub(crate) fn matches(&self, name: &str) -> bool {
        match self.below {
            false => name == self.name,
            true => name
                .strip_suffix(&self.name)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

impl FromStr for HostPattern {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let lower = text.to_ascii_lowercase();
        let whole = lower.strip_suffix('.').unwrap_or(&lower);
        let (name, below) = match whole.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (whole, false),
        };
        if !is_name(name) {
            return Err(PolicyError::Host(text.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            below,
        })
    }
}

impl TryFrom<String> for HostPattern {
    type Error = PolicyError;

    fn try_from(text: String) -> Result<Self, PolicyError> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.below { "*." } else { "" };
        write!(f, "{below}{}", self.name)
    }
}

/// Addresses that the guest was told, by name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_address: HashMap<IpAddr, Vec<(String, Instant)>>,
    /// Pairs in the order in which they came.
    order: VecDeque<(IpAddr, String)>,
}

impl Names {
    /// The guest was told that the name has this address.
    pub(crate) fn tell(&mut self, name: &str, address: IpAddr, now: Instant) {
        let until = now + HOLDS;
        let known = self.by_address.entry(address).or_default();
        if let Some((_, old)) = known.iter_mut().find(|(known, _)| known == name) {
            *old = until;
            return;
        }
        known.push((name.to_owned(), until));
        self.order.push_back((address, name.to_owned()));
        while self.order.len() > MAX_PAIRS {
            let Some((address, name)) = self.order.pop_front() else {
                break;
            };
            if let Some(names) = self.by_address.get_mut(&address) {
                names.retain(|(known, _)| *known != name);
                if names.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
    }

    /// Names that the guest was told this address for.
    pub(crate) fn of(&self, address: IpAddr, now: Instant) -> impl Iterator<Item = &str> {
        let known = self.by_address.get(&address).map_or(&[][..], Vec::as_slice);
        let current = known.iter().filter(move |(_, until)| *until > now);
        current.map(|(name, _)| name.as_str())
    }
}
