//! What a guest may reach, and the secrets that it uses and never has, as other languages
//! say it.

use std::fmt;

use supermachine::{Network, NetworkPolicy, NetworkRule, NetworkSecret};

use crate::numbers::{fitting, optional};
use crate::{BindingError, Result};

/// What a guest may reach.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkOptions {
    /// Everything public but what is denied.
    pub allow_all: bool,
    /// Rules, of which the first that fits decides, before all that follows.
    pub rules: Vec<NetworkRuleOptions>,
    /// Hosts (`example.com`, `*.example.com`) and networks (`10.1.0.0/16`) that may
    /// be reached.
    pub allow: Vec<String>,
    /// The same of what may not, which count first.
    pub deny: Vec<String>,
    /// TCP ports of the host's loopback interface.
    pub host_ports: Vec<f64>,
    /// UDP ports of it.
    pub host_udp_ports: Vec<f64>,
    /// Most bytes a second that the guest gets.
    pub rate_in: Option<f64>,
    /// Most bytes a second that others get from it.
    pub rate_out: Option<f64>,
    /// Bytes that pass at once after a silence.
    pub burst: Option<f64>,
    /// Most connections at a time.
    pub max_flows: Option<f64>,
}

/// A rule of what may be reached: it says either `allow` or `deny`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkRuleOptions {
    /// A host, a network, or `any`, that may be reached.
    pub allow: Option<String>,
    /// The same of what may not.
    pub deny: Option<String>,
    /// A port, or a range like `8000-8080`; all if absent.
    pub ports: Option<String>,
    /// `tcp`, `udp` or `icmp`; all if absent.
    pub protocol: Option<String>,
}

impl NetworkOptions {
    pub(crate) fn network(self) -> Result<Network> {
        let mut policy = match self.allow_all {
            true => NetworkPolicy::allow_all(),
            false => NetworkPolicy::deny_all(),
        };
        for rule in self.rules {
            policy = rule.add(policy)?;
        }
        for text in &self.deny {
            policy = policy.deny(target(text));
        }
        for text in &self.allow {
            policy = policy.allow(target(text));
        }
        for port in self.host_ports {
            policy = policy.host_port(fitting("hostPorts", port, 1)?);
        }
        for port in self.host_udp_ports {
            policy = policy.host_udp_port(fitting("hostUdpPorts", port, 1)?);
        }
        if let Some(rate) = optional("rateIn", self.rate_in, 1)? {
            policy = policy.rate_in(rate);
        }
        if let Some(rate) = optional("rateOut", self.rate_out, 1)? {
            policy = policy.rate_out(rate);
        }
        if let Some(bytes) = optional("burst", self.burst, 1)? {
            policy = policy.burst(bytes);
        }
        if let Some(flows) = optional("maxFlows", self.max_flows, 1)? {
            policy = policy.max_flows(flows);
        }
        Ok(policy.into())
    }
}

impl NetworkRuleOptions {
    fn add(self, policy: NetworkPolicy) -> Result<NetworkPolicy> {
        let (text, may) = match (&self.allow, &self.deny) {
            (Some(text), None) => (text, true),
            (None, Some(text)) => (text, false),
            _ => {
                return Err(BindingError::invalid(
                    "a rule says either allow or deny, with what it is about",
                ));
            }
        };
        let mut rule = match text.as_str() {
            "any" => NetworkRule::any(),
            text => target(text),
        };
        if let Some(ports) = &self.ports {
            rule = rule.ports(ports);
        }
        rule = match self.protocol.as_deref() {
            None => rule,
            Some("tcp") => rule.tcp(),
            Some("udp") => rule.udp(),
            Some("icmp") => rule.icmp(),
            Some(other) => {
                return Err(BindingError::invalid(format!(
                    "a rule's protocol must be tcp, udp or icmp, not {other:?}"
                )));
            }
        };
        Ok(match may {
            true => policy.allow(rule),
            false => policy.deny(rule),
        })
    }
}

fn target(text: &str) -> NetworkRule {
    let is_network = text.contains(['/', ':']) || text.parse::<std::net::IpAddr>().is_ok();
    match is_network {
        true => NetworkRule::network(text),
        false => NetworkRule::host(text),
    }
}

/// A secret that the guest uses and never has.
#[derive(Clone, Default, PartialEq)]
pub struct SecretOptions {
    /// The variable in which programs look for it.
    pub name: String,
    /// What it is.
    pub value: String,
    /// Hosts that get it, as `HOST` or `HOST:PORT`.
    pub hosts: Vec<String>,
    /// Headers that it is put into; any if none is said.
    pub headers: Vec<String>,
    /// Certificates in PEM format by which its hosts are known, if not the system's.
    pub authorities: Option<String>,
}

impl fmt::Debug for SecretOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretOptions")
            .field("name", &self.name)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

impl SecretOptions {
    pub(crate) fn secret(self) -> NetworkSecret {
        let mut secret = Network::secret(self.name, self.value);
        for host in &self.hosts {
            secret = secret.for_host(host);
        }
        for header in &self.headers {
            secret = secret.in_header(header);
        }
        match self.authorities {
            Some(pem) => secret.with_authorities(pem.as_bytes()),
            None => secret,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_what_their_options_say() {
        let rule = |allow: Option<&str>, deny: Option<&str>| NetworkRuleOptions {
            allow: allow.map(str::to_owned),
            deny: deny.map(str::to_owned),
            ..NetworkRuleOptions::default()
        };
        let options = NetworkOptions {
            rules: vec![
                NetworkRuleOptions {
                    ports: Some("443".into()),
                    protocol: Some("tcp".into()),
                    ..rule(Some("*.example.com"), None)
                },
                rule(None, Some("any")),
            ],
            allow: vec!["10.1.0.0/16".into()],
            deny: vec!["internal.example.com".into()],
            host_ports: vec![8080.0],
            host_udp_ports: vec![53.0],
            rate_in: Some(1e6),
            rate_out: Some(2e6),
            burst: Some(1e5),
            max_flows: Some(100.0),
            ..NetworkOptions::default()
        };
        let expected = NetworkPolicy::deny_all()
            .allow(NetworkRule::host("*.example.com").ports("443").tcp())
            .deny(NetworkRule::any())
            .deny(NetworkRule::host("internal.example.com"))
            .allow(NetworkRule::network("10.1.0.0/16"))
            .host_port(8080)
            .host_udp_port(53)
            .rate_in(1_000_000)
            .rate_out(2_000_000)
            .burst(100_000)
            .max_flows(100);
        assert_eq!(options.network().unwrap(), Network::from(expected));
    }

    #[test]
    fn rules_and_limits_that_cannot_be_are_refused_by_name() {
        let rules = |rule| NetworkOptions {
            rules: vec![rule],
            ..NetworkOptions::default()
        };
        let both = NetworkRuleOptions {
            allow: Some("any".into()),
            deny: Some("any".into()),
            ..NetworkRuleOptions::default()
        };
        let strange = NetworkRuleOptions {
            allow: Some("any".into()),
            protocol: Some("sctp".into()),
            ..NetworkRuleOptions::default()
        };
        for (options, named) in [
            (rules(NetworkRuleOptions::default()), "allow or deny"),
            (rules(both), "allow or deny"),
            (rules(strange), "sctp"),
            (
                NetworkOptions {
                    rate_in: Some(0.0),
                    ..NetworkOptions::default()
                },
                "rateIn",
            ),
            (
                NetworkOptions {
                    host_udp_ports: vec![70_000.0],
                    ..NetworkOptions::default()
                },
                "hostUdpPorts",
            ),
        ] {
            let message = options.network().unwrap_err().message;
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn secrets_are_what_their_options_say_and_are_not_shown() {
        let options = SecretOptions {
            name: "KEY".into(),
            value: "sk-0123456789".into(),
            hosts: vec!["api.example.com".into(), "other.example.com:8443".into()],
            headers: vec!["Authorization".into()],
            authorities: None,
        };
        assert!(!format!("{options:?}").contains("sk-0123456789"));
        let expected = Network::secret("KEY", "sk-0123456789")
            .for_host("api.example.com")
            .for_host("other.example.com:8443")
            .in_header("authorization");
        assert_eq!(options.secret(), expected);
    }
}
