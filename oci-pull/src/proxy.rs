//! Which requests go through a proxy.

use std::net::IpAddr;

use crate::authority::{host_of, is_loopback};
use crate::secret::Secret;

/// Proxies, and the hosts that are reached without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proxies {
    /// Address of the proxy for `https:`; it may have a password in it.
    pub https: Option<Secret>,
    /// Address of the proxy for `http:`.
    pub http: Option<Secret>,
    /// Hosts reached directly: names with all below them, addresses, networks as
    /// `10.0.0.0/8`, each with `:PORT` or without, or `*`.
    pub except: Vec<String>,
}

impl Proxies {
    /// Those of `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in lower case or
    /// upper.
    #[must_use]
    pub fn from_environment() -> Self {
        let text = |name: &str| {
            let found = [name.to_ascii_lowercase(), name.to_owned()].map(std::env::var);
            found.into_iter().flatten().find(|text| !text.is_empty())
        };
        let of = |name| text(name).or_else(|| text("ALL_PROXY")).map(Secret::new);
        Self {
            https: of("HTTPS_PROXY"),
            http: of("HTTP_PROXY"),
            except: text("NO_PROXY")
                .unwrap_or_default()
                .split([',', ' '])
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
        }
    }

    /// The proxy for a host, unless it is reached directly. This machine always is.
    pub(crate) fn for_host(&self, scheme: &str, authority: &str) -> Option<&Secret> {
        let proxy = match scheme {
            "https" => self.https.as_ref()?,
            _ => self.http.as_ref()?,
        };
        let direct =
            is_loopback(authority) || self.except.iter().any(|rule| is_meant(rule, authority));
        (!direct).then_some(proxy)
    }
}

/// Whether a word of `NO_PROXY` means a host.
fn is_meant(rule: &str, authority: &str) -> bool {
    let host = host_of(authority);
    if rule == "*" || rule.eq_ignore_ascii_case(authority) {
        return true;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return match rule.split_once('/') {
            Some((network, bits)) => match (network.parse(), bits.parse()) {
                (Ok(network), Ok(bits)) => is_in(address, network, bits),
                _ => false,
            },
            None => host_of_rule(rule).parse() == Ok(address),
        };
    }
    let domain = rule.trim_start_matches("*.").trim_start_matches('.');
    let (host, domain) = (host.to_ascii_lowercase(), domain.to_ascii_lowercase());
    !domain.is_empty()
        && host
            .strip_suffix(&domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// An address without brackets; one of IPv6 has colons of its own.
fn host_of_rule(rule: &str) -> &str {
    rule.trim_start_matches('[').trim_end_matches(']')
}

fn is_in(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (u128::from(a.to_bits()), u128::from(n.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits(), n.to_bits(), 128),
        _ => return false,
    };
    let Some(ignored) = u32::checked_sub(width, bits) else {
        return false;
    };
    ignored == 128 || (address >> ignored) == (network >> ignored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_networks_and_ports_are_excepted() {
        for (rule, host, meant) in [
            ("example.com", "example.com", true),
            ("example.com", "a.example.com:5000", true),
            (".example.com", "a.example.com", true),
            ("*.example.com", "a.EXAMPLE.com", true),
            ("example.com", "notexample.com", false),
            ("example.com:5000", "example.com:5000", true),
            ("example.com:5000", "example.com:80", false),
            ("*", "x", true),
            ("10.0.0.0/8", "10.1.2.3:5000", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/99", "10.0.0.0", false),
            ("0.0.0.0/0", "11.1.2.3", true),
            ("fd00::/8", "[fd12::1]:5000", true),
            ("::/0", "[fd12::1]", true),
            ("fd00::/8", "[fe12::1]:5000", false),
            ("fd00::/8", "10.0.0.1", false),
            ("[fd12::1]", "[fd12::1]:5000", true),
            ("10.1.2.3", "10.1.2.3:5000", true),
            ("", "x", false),
            (".", "x", false),
        ] {
            assert_eq!(is_meant(rule, host), meant, "{rule} {host}");
        }
    }

    #[test]
    fn this_machine_is_reached_without_a_proxy() {
        let proxies = Proxies {
            https: Some(Secret::new("http://proxy:1")),
            http: None,
            except: vec!["internal".into()],
        };
        assert!(proxies.for_host("https", "a.example").is_some());
        for host in ["localhost:5000", "127.0.0.1", "[::1]:80", "x.internal"] {
            assert!(proxies.for_host("https", host).is_none(), "{host}");
        }
        assert!(proxies.for_host("http", "a.example").is_none());
    }
}
