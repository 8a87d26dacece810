//! What a machine may reach.

use net::policy::{Limits, Policy, PolicyError, Ports, Protocol, Rule, Target, Verdict};

pub use net::End as NetworkEnd;
use net::FlowRecord;
pub use net::SecretsUse as NetworkSecretsUse;
pub use net::policy::{
    Cause as NetworkCause, Protocol as NetworkProtocol, Verdict as NetworkVerdict,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use crate::Error;
use crate::stats::micros;

/// What a machine's guest may reach of the network. It is always the caller's: a
/// snapshot holds none, and each start says it anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Network {
    /// Nothing: the guest has no interface but its own loopback.
    #[default]
    Off,
    /// Everything public. What is not (private, loopback, link-local and shared
    /// addresses, metadata services, in every form) is refused.
    AllowAll,
    /// What a policy says.
    Policy(NetworkPolicy),
}

impl Network {
    /// Whether the guest has an interface.
    pub(crate) fn is_on(&self) -> bool {
        *self != Self::Off
    }

    /// What a worker is told, if the guest has an interface.
    pub(crate) fn policy(&self) -> Option<Policy> {
        match self {
            Self::Off => None,
            Self::AllowAll => Some(Policy::allow_all()),
            Self::Policy(policy) => Some(policy.policy.clone()),
        }
    }

    /// Refuses a policy that is not all there: none of it counts then.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Policy(policy) => match &policy.mistake {
                Some(mistake) => Err(mistake.clone().into()),
                None => Ok(policy.policy.check()?),
            },
            Self::Off | Self::AllowAll => Ok(()),
        }
    }
}

impl From<NetworkPolicy> for Network {
    fn from(policy: NetworkPolicy) -> Self {
        Self::Policy(policy)
    }
}

/// Rules of what may be reached, of which the first that fits decides.
///
/// ```
/// use supermachine::{NetworkPolicy, NetworkRule, VmConfig};
///
/// let policy = NetworkPolicy::deny_all()
///     .deny(NetworkRule::host("internal.example.com"))
///     .allow(NetworkRule::host("*.example.com").ports("443").tcp())
///     .allow(NetworkRule::network("10.1.0.0/16").ports("5432"))
///     .host_port(8080);
/// let config = VmConfig::new().with_network(policy);
/// # let _ = config;
/// ```
///
/// Addresses that are not public are open only to [`NetworkRule::network`]s that lie
/// among them, whatever name leads there. What is written wrongly is found when the
/// machine is started, which it is not then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    policy: Policy,
    mistake: Option<PolicyError>,
}

impl NetworkPolicy {
    /// Nothing may be reached but what rules allow.
    pub fn deny_all() -> Self {
        Self {
            policy: Policy::deny_all(),
            mistake: None,
        }
    }

    /// Everything public may be reached but what rules deny.
    pub fn allow_all() -> Self {
        Self {
            policy: Policy::allow_all(),
            mistake: None,
        }
    }

    /// Adds a rule of what may be reached, behind the others.
    #[must_use]
    pub fn allow(self, rule: NetworkRule) -> Self {
        self.rule(rule, Verdict::Allow)
    }

    /// Adds a rule of what may not be reached, behind the others.
    #[must_use]
    pub fn deny(self, rule: NetworkRule) -> Self {
        self.rule(rule, Verdict::Deny)
    }

    /// Lets the guest reach a TCP port of the host's loopback interface, as
    /// `host.supermachine.internal`. No other is reached.
    #[must_use]
    pub fn host_port(mut self, port: u16) -> Self {
        self.policy = self.policy.host_port(port);
        self
    }

    /// The same for a UDP port.
    #[must_use]
    pub fn host_udp_port(mut self, port: u16) -> Self {
        self.policy = self.policy.host_udp_port(port);
        self
    }

    /// Most bytes a second that the guest gets, without headers, on average: a tenth of
    /// a second's may pass at once after a silence, or [`NetworkPolicy::burst`].
    /// Connections wait, and have equal shares; datagrams are held back.
    #[must_use]
    pub fn rate_in(self, bytes_per_second: u64) -> Self {
        self.limit("rate_in", bytes_per_second, |limits| &mut limits.rate_in)
    }

    /// The same of what others get from it; datagrams beyond are lost.
    #[must_use]
    pub fn rate_out(self, bytes_per_second: u64) -> Self {
        self.limit("rate_out", bytes_per_second, |limits| &mut limits.rate_out)
    }

    /// Bytes beyond a rate that may pass at once after a silence, in each direction.
    #[must_use]
    pub fn burst(self, bytes: u64) -> Self {
        self.limit("burst", bytes, |limits| &mut limits.burst)
    }

    /// Most connections at a time, 10,000 if it is not said, and most exchanges of
    /// datagrams, of which there are never more than 512.
    #[must_use]
    pub fn max_flows(self, flows: u64) -> Self {
        self.limit("max_flows", flows, |limits| &mut limits.max_flows)
    }

    fn limit(
        mut self,
        what: &'static str,
        value: u64,
        of: impl FnOnce(&mut Limits) -> &mut Option<NonZeroU64>,
    ) -> Self {
        let value = NonZeroU64::new(value);
        if value.is_none() {
            self.mistake.get_or_insert(PolicyError::NothingLeft(what));
        }
        let mut limits = self.policy.limits();
        *of(&mut limits) = value;
        self.policy = self.policy.limited(limits);
        self
    }

    fn rule(mut self, rule: NetworkRule, verdict: Verdict) -> Self {
        match rule.parts() {
            Ok((target, ports)) => {
                self.policy = self.policy.rule(Rule {
                    verdict,
                    target,
                    ports,
                    protocol: rule.protocol,
                });
            }
            Err(mistake) => {
                self.mistake.get_or_insert(mistake);
            }
        }
        self
    }
}

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRule {
    target: Result<Target, PolicyError>,
    ports: Result<Ports, PolicyError>,
    protocol: Option<Protocol>,
}

impl NetworkRule {
    fn of(target: Result<Target, PolicyError>) -> Self {
        Self {
            target,
            ports: Ok(Ports::ALL),
            protocol: None,
        }
    }

    /// Everything public.
    pub fn any() -> Self {
        Self::of(Ok(Target::Any))
    }

    /// A host by its name, or with `*.` in front all below it: the addresses that
    /// this guest was told for it.
    pub fn host(name: &str) -> Self {
        Self::of(name.parse().map(Target::Host))
    }

    /// An address, or a network like `192.0.2.0/24`.
    pub fn network(network: &str) -> Self {
        Self::of(network.parse().map(Target::Network))
    }

    /// Only this port, or range of ports like `8000-8080`.
    #[must_use]
    pub fn ports(mut self, ports: &str) -> Self {
        self.ports = ports.parse();
        self
    }

    /// Only TCP.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.protocol = Some(Protocol::Tcp);
        self
    }

    /// Only UDP.
    #[must_use]
    pub fn udp(mut self) -> Self {
        self.protocol = Some(Protocol::Udp);
        self
    }

    /// Only echo requests (`ping`).
    #[must_use]
    pub fn icmp(mut self) -> Self {
        self.protocol = Some(Protocol::Icmp);
        self
    }

    fn parts(&self) -> Result<(Target, Ports), PolicyError> {
        Ok((self.target.clone()?, self.ports.clone()?))
    }
}

/// What became of one of a guest's flows: a connection, an exchange of datagrams, a
/// question for a name that it may not ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkFlow {
    /// Counts the machine's flows, in the order in which they ended.
    pub number: u64,
    /// When it ended, in milliseconds since 1970.
    pub ended_unix_ms: u64,
    /// How long it was there.
    #[serde(rename = "lasted_us", with = "micros")]
    pub lasted: Duration,
    /// The name that the guest was told the address for, or that it asked for.
    pub name: Option<String>,
    /// Where it wanted to.
    pub address: IpAddr,
    /// The port there; 0 for echo requests.
    pub port: u16,
    /// By which protocol.
    pub protocol: NetworkProtocol,
    /// Whether it might.
    pub verdict: NetworkVerdict,
    /// What decided that.
    pub cause: NetworkCause,
    /// Bytes that the other end was sent, without headers.
    pub sent_bytes: u64,
    /// Bytes that the guest got, without headers.
    pub received_bytes: u64,
    /// How it ended.
    pub end: NetworkEnd,
    /// What became of secrets, if it was to a host of some, or a placeholder left on it
    /// in clear text; by their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<NetworkSecretsUse>,
}

impl NetworkFlow {
    pub(crate) fn of(number: u64, ended_unix_ms: u64, record: FlowRecord) -> Self {
        Self {
            number,
            ended_unix_ms,
            lasted: record.lasted,
            name: record.name,
            address: record.remote.ip(),
            port: record.remote.port(),
            protocol: record.protocol,
            verdict: record.verdict,
            cause: record.cause,
            sent_bytes: record.sent_bytes,
            received_bytes: record.received_bytes,
            end: record.end,
            secrets: record.secrets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VmConfig;

    #[test]
    fn policy_with_a_mistake_refuses_to_start() {
        let good = NetworkPolicy::allow_all().deny(NetworkRule::any().ports("25").tcp());
        assert!(
            VmConfig::new()
                .with_network(good.clone())
                .validate()
                .is_ok()
        );
        for bad in [
            NetworkRule::host("exa mple"),
            NetworkRule::network("10.0.0.1/8"),
            NetworkRule::any().ports("90-80"),
        ] {
            let policy = good.clone().allow(bad).allow(NetworkRule::any());
            let error = VmConfig::new().with_network(policy).validate().unwrap_err();
            assert_eq!(error.code(), "network", "{error}");
        }
        for bad in [
            good.clone().rate_in(0),
            good.clone().rate_out(0),
            good.clone().rate_in(1).burst(0),
            good.clone().burst(1),
            good.clone().max_flows(0),
            good.clone().max_flows(10_001),
        ] {
            let error = VmConfig::new().with_network(bad).validate().unwrap_err();
            assert_eq!(error.code(), "network", "{error}");
        }
        let limited = good.rate_in(1).rate_out(1).burst(1).max_flows(1);
        assert!(VmConfig::new().with_network(limited).validate().is_ok());
    }
}
