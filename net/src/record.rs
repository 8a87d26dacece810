//! What became of each of the guest's flows, for whoever keeps a log.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::policy::{Cause, Protocol, Verdict};

/// How a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum End {
    /// It was not allowed, and never begun.
    Denied,
    /// Both sides finished.
    Closed,
    /// The guest gave it up.
    GuestReset,
    /// The other end, or the host's socket, gave it up.
    RemoteReset,
    /// The other end refused it.
    Refused,
    /// The other end could not be reached.
    Unreachable,
    /// The host could not make it, for want of a socket, a port or a permission.
    Failed,
    /// Nothing was heard for too long.
    TimedOut,
    /// It made room for a newer one.
    Displaced,
    /// The machine went back to a time before it.
    Rewound,
}

impl End {
    /// The word for it in a log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Closed => "closed",
            Self::GuestReset => "guest_reset",
            Self::RemoteReset => "remote_reset",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Displaced => "displaced",
            Self::Rewound => "rewound",
        }
    }

    /// How a connection could not be made.
    pub(crate) fn of_connect(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused | Kind::ConnectionReset => Self::Refused,
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => {
                Self::Unreachable
            }
            Kind::TimedOut => Self::TimedOut,
            _ => Self::Failed,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of secrets on a connection: one that somebody else served, or one on which
/// a placeholder left as it is. Names only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SecretsUse {
    /// Those that were put into requests.
    pub used: Vec<String>,
    /// Those whose placeholder was where none is replaced.
    pub misplaced: Vec<String>,
    /// Why the connection was ended, if it was.
    pub refused: Option<String>,
}

/// What became of one of the guest's flows. When it ended is when it is given; who
/// keeps a log has a clock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FlowRecord {
    /// The name that the guest was told the address for, or that it asked for.
    pub name: Option<String>,
    /// Where the guest wanted to; the port is 0 for echo requests.
    pub remote: SocketAddr,
    /// By which protocol.
    pub protocol: Protocol,
    /// Whether it might.
    pub verdict: Verdict,
    /// What decided that.
    pub cause: Cause,
    /// Bytes that the other end was sent, without headers.
    pub sent_bytes: u64,
    /// Bytes that the guest got, without headers.
    pub received_bytes: u64,
    /// How it ended.
    pub end: End,
    /// How long it was there.
    pub lasted: Duration,
    /// What became of secrets, if it was to a host of some, or had a placeholder.
    pub secrets: Option<SecretsUse>,
}

/// Records that nobody has taken yet. Without a limit of its own it keeps none.
#[derive(Debug, Default)]
pub(crate) struct Records {
    waiting: VecDeque<FlowRecord>,
    limit: usize,
    /// Those that nobody took in time.
    pub(crate) lost: u64,
}

impl Records {
    pub(crate) fn keep(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.limit > 0
    }

    pub(crate) fn add(&mut self, record: FlowRecord) {
        if self.waiting.len() < self.limit {
            self.waiting.push_back(record);
        } else if self.limit > 0 {
            self.lost += 1;
        }
    }

    pub(crate) fn take(&mut self) -> VecDeque<FlowRecord> {
        std::mem::take(&mut self.waiting)
    }
}
