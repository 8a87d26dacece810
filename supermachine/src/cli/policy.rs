//! What a guest may reach, as a file says it.

use super::secrets::Given;
use crate::{Error, NetworkPolicy, NetworkRule};
use exec_proto::Printable;
use net::policy::PolicyError;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longest file in bytes: some five times what the most rules take.
const MAX_FILE_BYTES: u64 = 256 << 10;

/// A file. What it does not know, it refuses: a word that was misspelt is not to open
/// or close something else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// What is not in any rule.
    default: Otherwise,
    /// TCP ports of the host's loopback interface.
    #[serde(default)]
    host_ports: Vec<u16>,
    /// UDP ports of it.
    #[serde(default)]
    host_udp_ports: Vec<u16>,
    #[serde(default)]
    limits: WrittenLimits,
    #[serde(default)]
    rule: Vec<WrittenRule>,
    #[serde(default)]
    secret: Vec<Given>,
}

/// How much of the network the guest may take: rates in bytes a second, a burst in bytes.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLimits {
    rate_in: Option<u64>,
    rate_out: Option<u64>,
    burst: Option<u64>,
    max_flows: Option<u64>,
}

impl WrittenLimits {
    fn apply(&self, policy: NetworkPolicy) -> NetworkPolicy {
        type Limit = fn(NetworkPolicy, u64) -> NetworkPolicy;
        let all: [(Option<u64>, Limit); 4] = [
            (self.rate_in, NetworkPolicy::rate_in),
            (self.rate_out, NetworkPolicy::rate_out),
            (self.burst, NetworkPolicy::burst),
            (self.max_flows, NetworkPolicy::max_flows),
        ];
        all.into_iter()
            .fold(policy, |policy, (value, limit)| match value {
                Some(value) => limit(policy, value),
                None => policy,
            })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Otherwise {
    Allow,
    Deny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    allow: Option<String>,
    deny: Option<String>,
    ports: Option<Ports>,
    protocol: Option<Protocol>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Ports {
    One(u16),
    Range(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

/// Reads a file, all of it or none.
pub fn read(path: &Path) -> Result<(NetworkPolicy, Vec<Given>), Error> {
    let failed = || Error::host("cannot read the network policy", path);
    let mut text = String::new();
    let file = File::open(path).map_err(failed())?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(failed())?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(failed()(io::ErrorKind::FileTooLarge.into()));
    }
    parse(&text)
}

fn parse(text: &str) -> Result<(NetworkPolicy, Vec<Given>), Error> {
    let written: Written = toml::from_str(text).map_err(|error| {
        let place = error.span().map_or(0, |span| span.start);
        let before = text.get(..place).unwrap_or_default();
        let line = before.matches('\n').count().saturating_add(1);
        file_error(format!("line {line}: {}", Printable::line(error.message())))
    })?;
    let policy = match written.default {
        Otherwise::Allow => NetworkPolicy::allow_all(),
        Otherwise::Deny => NetworkPolicy::deny_all(),
    };
    let ports = written.host_ports.into_iter();
    let policy = ports.fold(policy, NetworkPolicy::host_port);
    let ports = written.host_udp_ports.into_iter();
    let policy = ports.fold(policy, NetworkPolicy::host_udp_port);
    let policy = written.limits.apply(policy);
    let mut rules = written.rule.into_iter().enumerate();
    let policy = rules.try_fold(policy, |policy, (number, rule)| {
        let one = || file_error(format!("rule {}: write either allow or deny", number + 1));
        match (&rule.allow, &rule.deny) {
            (Some(target), None) => Ok(policy.allow(rule.about(target))),
            (None, Some(target)) => Ok(policy.deny(rule.about(target))),
            _ => Err(one()),
        }
    })?;
    Ok((policy, written.secret))
}

fn file_error(problem: String) -> Error {
    PolicyError::File(problem).into()
}

impl WrittenRule {
    fn about(&self, target: &str) -> NetworkRule {
        let is_address = target.contains('/') || target.parse::<std::net::IpAddr>().is_ok();
        let rule = match target {
            "any" => NetworkRule::any(),
            network if is_address => NetworkRule::network(network),
            host => NetworkRule::host(host),
        };
        let rule = match &self.ports {
            None => rule,
            Some(Ports::One(port)) => rule.ports(&port.to_string()),
            Some(Ports::Range(range)) => rule.ports(range),
        };
        match self.protocol {
            None => rule,
            Some(Protocol::Tcp) => rule.tcp(),
            Some(Protocol::Udp) => rule.udp(),
            Some(Protocol::Icmp) => rule.icmp(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VmConfig;

    #[test]
    fn file_says_what_the_builder_does() {
        let text = r#"
            default = "deny"
            host_ports = [8080]
            host_udp_ports = [53]

            [limits]
            rate_in = 10_000_000
            rate_out = 1_000_000
            burst = 64_000
            max_flows = 100

            [[rule]]
            deny = "internal.example.com"

            [[rule]]
            allow = "*.example.com"
            ports = 443
            protocol = "tcp"

            [[rule]]
            allow = "10.1.0.0/16"
            ports = "8000-8080"

            [[rule]]
            deny = "fd00::1"

            [[rule]]
            allow = "any"
            protocol = "icmp"
        "#;
        let built = NetworkPolicy::deny_all()
            .host_port(8080)
            .host_udp_port(53)
            .rate_in(10_000_000)
            .rate_out(1_000_000)
            .burst(64_000)
            .max_flows(100)
            .deny(NetworkRule::host("internal.example.com"))
            .allow(NetworkRule::host("*.example.com").ports("443").tcp())
            .allow(NetworkRule::network("10.1.0.0/16").ports("8000-8080"))
            .deny(NetworkRule::network("fd00::1"))
            .allow(NetworkRule::any().icmp());
        assert_eq!(parse(text).unwrap(), (built, Vec::new()));
        let all = NetworkPolicy::allow_all();
        assert_eq!(parse("default = \"allow\"").unwrap(), (all, Vec::new()));
    }

    #[test]
    fn file_says_who_may_have_secrets_and_not_what_they_are() {
        let text = r#"
            default = "allow"

            [[secret]]
            id = "KEY"
            src = "/run/secrets/key"
            hosts = ["api.example.com", "eu.example.com:8443"]
            headers = ["authorization"]
        "#;
        let (_, secrets) = parse(text).unwrap();
        let option = "id=KEY,src=/run/secrets/key,host=api.example.com,\
                      host=eu.example.com:8443,header=authorization";
        assert_eq!(secrets, [crate::cli::secrets::secret(option).unwrap()]);
        let with_value = text.replace("src =", "value =");
        assert_eq!(parse(&with_value).unwrap_err().code(), "network");
    }

    #[test]
    fn file_that_is_half_right_is_refused_whole() {
        let refused = |text: &str| {
            let config = parse(text).map(|(policy, _)| VmConfig::new().with_network(policy));
            let error = config.and_then(|config| config.validate()).unwrap_err();
            assert_eq!(error.code(), "network", "{error}");
            error.to_string()
        };
        for bad in [
            "",
            "default = \"maybe\"",
            "rule = []",
            "default = \"allow\"\nhost_ports = [70000]",
            "default = \"allow\"\nhost_udp_ports = [70000]",
            "default = \"allow\"\n[limits]\nrate_in = 0",
            "default = \"allow\"\n[limits]\nrate_in = -1",
            "default = \"allow\"\n[limits]\nburst = 1",
            "default = \"allow\"\n[limits]\nmax_flows = 100000",
            "default = \"allow\"\n[limits]\nrate = 1",
            "default = \"deny\"\nhosts = [\"example.com\"]",
            "default = \"deny\"\n[[rule]]",
            "default = \"deny\"\n[[rule]]\nallow = \"any\"\ndeny = \"any\"",
            "default = \"deny\"\n[[rule]]\nallow = \"any\"\nport = 80",
            "default = \"deny\"\n[[rule]]\nallow = \"any\"\nprotocol = \"sctp\"",
            "default = \"deny\"\n[[rule]]\nallow = \"10.0.0.1/8\"",
            "default = \"deny\"\n[[rule]]\nallow = \"exa mple\"",
            "default = \"deny\"\n[[rule]]\nallow = \"any\"\nports = \"90-80\"",
            "default = \"deny\"\ndefault = \"allow\"",
        ] {
            refused(bad);
        }
        let text = "default = \"deny\"\n\n[[rule]]\nallow = \"any\"\nport = 80\n";
        assert!(
            refused(text).contains("line 5: unknown field"),
            "{}",
            refused(text)
        );
        let many = "default = \"deny\"\n".to_owned() + &"[[rule]]\ndeny = \"any\"\n".repeat(513);
        assert!(refused(&many).contains("512"));
    }
}
