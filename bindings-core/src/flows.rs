//! What became of a guest's flows, in words.

use supermachine::{
    NetworkCause, NetworkEnd, NetworkFlow, NetworkProtocol, NetworkSecretsUse, NetworkVerdict,
};

/// What became of one of a guest's flows, as a binding tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// Counts the machine's flows, in the order in which they ended.
    pub number: u64,
    /// When it ended, in milliseconds since 1970.
    pub ended_unix_ms: u64,
    /// How long it was there, in seconds.
    pub lasted: f64,
    /// The name that the guest was told the address for, or that it asked for.
    pub name: Option<String>,
    /// Where it wanted to.
    pub address: String,
    /// The port there; 0 for echo requests.
    pub port: u16,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: &'static str,
    /// Whether it might.
    pub allowed: bool,
    /// What decided that, as a word.
    pub cause: &'static str,
    /// The number of the rule, if it was one.
    pub rule: Option<u64>,
    /// Bytes that the other end was sent.
    pub sent_bytes: u64,
    /// Bytes that the guest got.
    pub received_bytes: u64,
    /// How it ended, as a word.
    pub end: &'static str,
    /// What became of secrets on it, if there was anything.
    pub secrets: Option<NetworkSecretsUse>,
}

impl From<NetworkFlow> for Flow {
    fn from(flow: NetworkFlow) -> Self {
        let (cause, rule) = cause(flow.cause);
        Self {
            number: flow.number,
            ended_unix_ms: flow.ended_unix_ms,
            lasted: flow.lasted.as_secs_f64(),
            name: flow.name,
            address: flow.address.to_string(),
            port: flow.port,
            protocol: protocol(flow.protocol),
            allowed: flow.verdict == NetworkVerdict::Allow,
            cause,
            rule,
            sent_bytes: flow.sent_bytes,
            received_bytes: flow.received_bytes,
            end: end(flow.end),
            secrets: flow.secrets,
        }
    }
}

fn protocol(protocol: NetworkProtocol) -> &'static str {
    match protocol {
        NetworkProtocol::Tcp => "tcp",
        NetworkProtocol::Udp => "udp",
        _ => "icmp",
    }
}

fn cause(cause: NetworkCause) -> (&'static str, Option<u64>) {
    let word = match cause {
        NetworkCause::Rule(number) => return ("rule", u64::try_from(number).ok()),
        NetworkCause::Default => "default",
        NetworkCause::NotPublic => "not-public",
        NetworkCause::HostPort => "host-port",
        NetworkCause::NameServer => "name-server",
        NetworkCause::Name => "name",
        NetworkCause::Limit => "limit",
        NetworkCause::Shown => "shown",
        NetworkCause::Secret => "secret",
        _ => "other",
    };
    (word, None)
}

fn end(end: NetworkEnd) -> &'static str {
    match end {
        NetworkEnd::Denied => "denied",
        NetworkEnd::Closed => "closed",
        NetworkEnd::GuestReset => "guest-reset",
        NetworkEnd::RemoteReset => "remote-reset",
        NetworkEnd::Refused => "refused",
        NetworkEnd::Unreachable => "unreachable",
        NetworkEnd::TimedOut => "timed-out",
        NetworkEnd::Displaced => "displaced",
        NetworkEnd::Rewound => "rewound",
        // Also what a later version may have.
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_told_in_words() {
        let json = serde_json::json!({
            "number": 7, "ended_unix_ms": 1_000, "lasted_us": 1_500_000, "name": "example.com",
            "address": "2001:db8::1", "port": 443, "protocol": "tcp", "verdict": "deny",
            "cause": { "rule": 2 }, "sent_bytes": 1, "received_bytes": 2, "end": "guest_reset",
        });
        let flow: NetworkFlow = serde_json::from_value(json).unwrap();
        let told = Flow::from(flow.clone());
        assert_eq!(
            (told.cause, told.rule, told.allowed),
            ("rule", Some(2), false)
        );
        assert_eq!((told.end, told.protocol), ("guest-reset", "tcp"));
        assert_eq!((told.lasted, &*told.address), (1.5, "2001:db8::1"));
        let mut other = flow;
        other.cause = NetworkCause::NotPublic;
        other.end = NetworkEnd::Denied;
        let told = Flow::from(other);
        assert_eq!(
            (told.cause, told.rule, told.end),
            ("not-public", None, "denied")
        );
    }
}
