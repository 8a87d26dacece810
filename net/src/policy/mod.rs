//! What a guest may reach.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

mod address;
mod limits;
mod names;

pub use address::{Cidr, is_special};
pub use limits::{Limits, MAX_FLOWS};
pub use names::HostPattern;
pub(crate) use names::{MAX_NAME_BYTES, Names, is_name};

/// Most rules of a policy.
pub const MAX_RULES: usize = 512;

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The text is not a network.
    #[error("{0:?} is not a network: write an address, or one with a prefix like 192.0.2.0/24")]
    Network(String),
    /// The text is not a host name.
    #[error("{0:?} is not a host name: write one like example.com or *.example.com")]
    Host(String),
    /// The numbers are not a range of ports.
    #[error("{0:?} is not a port: write a number, or a range like 8000-8080")]
    Ports(String),
    /// A file that says something else than a policy.
    #[error("the network policy is not one: {0}; docs/network.md has the form")]
    File(String),
    /// More rules than are read for each connection.
    #[error("a policy has at most {MAX_RULES} rules, this one has {0}: write fewer")]
    TooManyRules(usize),
    /// A limit that leaves nothing.
    #[error("{0} is 0, with which nothing passes: write more, or leave it out")]
    NothingLeft(&'static str),
    /// A burst of no rate.
    #[error("a burst is what may pass beyond a rate: set a rate, too")]
    BurstWithoutRate,
    /// More connections than there is room for.
    #[error("a machine has at most {MAX_FLOWS} connections, and {0} are asked for: ask for fewer")]
    TooManyFlows(u64),
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// What a guest speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
    /// Echo requests, which have no port.
    Icmp,
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Target {
    /// Everything that is public.
    Any,
    /// Addresses.
    Network(Cidr),
    /// Addresses that this guest was told for a name.
    Host(HostPattern),
}

/// Ports from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// All of them.
    pub const ALL: Self = Self {
        first: 0,
        last: u16::MAX,
    };

    fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

impl From<RangeInclusive<u16>> for Ports {
    fn from(ports: RangeInclusive<u16>) -> Self {
        Self {
            first: *ports.start(),
            last: *ports.end(),
        }
    }
}

impl FromStr for Ports {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(PolicyError::Ports(text.to_owned())),
        }
    }
}

/// One line of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Rule {
    /// What it says.
    pub verdict: Verdict,
    /// Of what.
    pub target: Target,
    /// On which ports.
    pub ports: Ports,
    /// By which protocol; all of them if absent.
    pub protocol: Option<Protocol>,
}

/// What a policy said, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Cause {
    /// The rule of this number, from 0, fits.
    Rule(usize),
    /// No rule fits: what the policy says of all else.
    Default,
    /// The address is not public, and no rule lists it.
    NotPublic,
    /// The address is the gateway's, where only listed ports of the host are.
    HostPort,
    /// Name servers: all of them are the gateway.
    NameServer,
    /// A name that no rule allows to be asked for.
    Name,
    /// There are too many flows.
    Limit,
    /// The connection shows a name that it may not reach there.
    Shown,
    /// The host is one of a secret's, which goes there over TCP.
    Secret,
}

/// What a policy says of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision<'a> {
    pub(crate) verdict: Verdict,
    pub(crate) cause: Cause,
    /// The name that a rule is about, or else the latest that led there.
    pub(crate) name: Option<&'a str>,
}

/// What a guest may reach: the first rule that fits decides. Addresses that are
/// not public are open only to rules that list a network among them, whatever
/// names lead there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Policy {
    rules: Vec<Rule>,
    otherwise: Verdict,
    host_ports: Vec<u16>,
    #[cfg_attr(feature = "serde", serde(default))]
    host_udp_ports: Vec<u16>,
    #[cfg_attr(feature = "serde", serde(default))]
    limits: Limits,
}

impl Policy {
    /// Nothing may be reached but what rules allow.
    pub fn deny_all() -> Self {
        Self {
            rules: Vec::new(),
            otherwise: Verdict::Deny,
            host_ports: Vec::new(),
            host_udp_ports: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// Everything public may be reached but what rules deny.
    pub fn allow_all() -> Self {
        Self {
            otherwise: Verdict::Allow,
            ..Self::deny_all()
        }
    }

    /// Adds a rule behind the others.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Lets the guest reach this TCP port of the host's loopback interface, at the
    /// gateway's address.
    #[must_use]
    pub fn host_port(mut self, port: u16) -> Self {
        self.host_ports.push(port);
        self
    }

    /// Lets the guest reach this UDP port of the host's loopback interface, at the
    /// gateway's address.
    #[must_use]
    pub fn host_udp_port(mut self, port: u16) -> Self {
        self.host_udp_ports.push(port);
        self
    }

    /// Says how much of the network the guest may take, in place of what was said.
    #[must_use]
    pub fn limited(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How much of the network the guest may take.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Refuses a policy of too many rules, and limits that say nothing.
    pub fn check(&self) -> Result<(), PolicyError> {
        match self.rules.len() {
            0..=MAX_RULES => self.limits.check(),
            rules => Err(PolicyError::TooManyRules(rules)),
        }
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub(crate) fn has_host_port(&self, protocol: Protocol, port: u16) -> bool {
        match protocol {
            Protocol::Tcp => self.host_ports.contains(&port),
            Protocol::Udp => self.host_udp_ports.contains(&port),
            Protocol::Icmp => false,
        }
    }

    /// Whether the guest may reach an address, for which it was told `names`, the
    /// latest last.
    pub(crate) fn decide<'a>(
        &self,
        protocol: Protocol,
        address: IpAddr,
        port: u16,
        names: &mut dyn Iterator<Item = &'a str>,
    ) -> Decision<'a> {
        let special = is_special(address);
        let names: Vec<&str> = names.collect();
        let decision = |verdict, cause, name: Option<&'a str>| Decision {
            verdict,
            cause,
            name: name.or(names.last().copied()),
        };
        for (number, rule) in self.rules.iter().enumerate() {
            let is_meant = rule.protocol.is_none_or(|only| only == protocol)
                && (protocol == Protocol::Icmp || rule.ports.contains(port));
            let mut by_name = None;
            let (hits, lists) = match &rule.target {
                Target::Any => (true, false),
                Target::Network(network) => (network.contains(address), network.is_special()),
                Target::Host(pattern) => {
                    by_name = names.iter().copied().find(|name| pattern.matches(name));
                    (by_name.is_some(), false)
                }
            };
            if !is_meant || !hits {
                continue;
            }
            match rule.verdict {
                Verdict::Deny => return decision(Verdict::Deny, Cause::Rule(number), by_name),
                Verdict::Allow if !special || lists => {
                    return decision(Verdict::Allow, Cause::Rule(number), by_name);
                }
                Verdict::Allow => {}
            }
        }
        match special {
            true => decision(Verdict::Deny, Cause::NotPublic, None),
            false => decision(self.otherwise, Cause::Default, None),
        }
    }

    /// Whether a rule about names had a say in what was decided of a TCP port.
    pub(crate) fn is_by_name(&self, cause: Cause, port: u16) -> bool {
        let asked = match cause {
            Cause::Rule(number) => number.saturating_add(1),
            _ => self.rules.len(),
        };
        self.rules.iter().take(asked).any(|rule| {
            matches!(rule.target, Target::Host(_))
                && rule.protocol.is_none_or(|only| only == Protocol::Tcp)
                && rule.ports.contains(port)
        })
    }

    /// Whether a rule that allows lists this very address, and not a network around it.
    pub(crate) fn lists_alone(&self, address: IpAddr) -> bool {
        self.rules.iter().any(|rule| {
            rule.verdict == Verdict::Allow
                && matches!(&rule.target, Target::Network(network) if network.is_only(address))
        })
    }

    /// Whether the guest may ask for a name's addresses: if some port of it may be
    /// reached. What no rule allows is not asked, since a question also tells.
    pub(crate) fn may_ask(&self, name: &str) -> bool {
        for rule in &self.rules {
            let hits = match &rule.target {
                Target::Any => true,
                Target::Host(pattern) => pattern.matches(name),
                Target::Network(_) => false,
            };
            let is_all = rule.ports == Ports::ALL && rule.protocol.is_none();
            match rule.verdict {
                Verdict::Allow if hits => return true,
                Verdict::Deny if hits && is_all => return false,
                _ => {}
            }
        }
        self.otherwise == Verdict::Allow
    }
}

#[cfg(test)]
mod tests;
