//! Secrets, the hosts that they are for, and what a guest has in their place.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};

use crate::BrokerError;
use crate::value::Value;

/// Longest name.
const MOST_NAME_BYTES: usize = 64;
/// Fewest bytes of a value: what stands for it is as long, and is to be met nowhere else.
const LEAST_VALUE_BYTES: usize = 8;
/// Most bytes of a value, so that a request's header has room for several.
const MOST_VALUE_BYTES: usize = 8192;
/// Port of HTTP over TLS, where nothing else is said.
const HTTPS: u16 = 443;
/// What placeholders begin with that have room for it, for people who meet one.
const PREFIX: &str = "smsecret";
/// What the rest of a placeholder is drawn from: 64 signs that need no quotes and no
/// escapes in shells, URLs and JSON.
const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Fewest signs that are drawn.
const LEAST_DRAWN: usize = 24;
/// Headers that say where a request ends, where it goes, or what the connection becomes.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Where a secret goes: a host by its name, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Host {
    name: String,
    port: u16,
}

impl Host {
    /// Its name, in small letters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port there.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Host {
    type Err = BrokerError;

    /// A name like `api.example.com`, or one with a port like `api.example.com:8443`.
    fn from_str(text: &str) -> Result<Self, BrokerError> {
        let wrong = || BrokerError::Host(text.to_owned());
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, port.parse().map_err(|_| wrong())?),
            None => (text, HTTPS),
        };
        let name = name.to_ascii_lowercase();
        let is_name = matches!(
            ServerName::try_from(name.as_str()),
            Ok(ServerName::DnsName(_))
        );
        if !is_name || name.ends_with('.') || port == 0 {
            return Err(wrong());
        }
        Ok(Self { name, port })
    }
}

impl TryFrom<String> for Host {
    type Error = BrokerError;

    fn try_from(text: String) -> Result<Self, BrokerError> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.to_string()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

/// A secret that leaves the host in headers of requests, to its hosts alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// The variable in which programs of the guest look for it.
    pub name: String,
    /// What the guest never has.
    pub value: Value,
    /// Where it may go.
    pub hosts: Vec<Host>,
    /// The only headers that it is put into, in small letters; all but those that frame
    /// a request if there are none.
    pub headers: Vec<String>,
    /// Certificates of the authorities, in DER, that its hosts are known by; those of the
    /// system if there are none.
    pub roots: Vec<Vec<u8>>,
}

impl Secret {
    /// Refuses one that cannot be kept.
    ///
    /// # Errors
    /// What is the matter with it; never the value.
    pub fn check(&self) -> Result<(), BrokerError> {
        let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let begins_well = self
            .name
            .bytes()
            .next()
            .is_some_and(|byte| !byte.is_ascii_digit());
        if !begins_well || !self.name.bytes().all(is_sign) || self.name.len() > MOST_NAME_BYTES {
            return Err(BrokerError::Name(self.name.clone()));
        }
        let wrong = |reason| BrokerError::Value {
            name: self.name.clone(),
            reason,
        };
        let value = self.value.as_bytes();
        if !(LEAST_VALUE_BYTES..=MOST_VALUE_BYTES).contains(&value.len()) {
            return Err(wrong("has fewer than 8 bytes, or more than 8,192"));
        }
        // RFC 9110, 5.5: what a field's value is made of.
        if !value.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return Err(wrong(
                "has other than printable ASCII characters, which no header carries",
            ));
        }
        if value.starts_with(b" ") || value.ends_with(b" ") {
            return Err(wrong("begins or ends with a space, which a header loses"));
        }
        if self.hosts.is_empty() {
            return Err(BrokerError::NoHost(self.name.clone()));
        }
        for header in &self.headers {
            let is_name = !header.is_empty()
                && header
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            if !is_name || is_framing(header) {
                return Err(BrokerError::Header(header.clone()));
            }
        }
        Ok(())
    }

    /// Adds the authorities of a text in PEM format to those that its hosts are known by.
    ///
    /// # Errors
    /// [`BrokerError::Root`] if there is none in it, or something that is none.
    pub fn add_roots(&mut self, pem: &[u8]) -> Result<(), BrokerError> {
        let wrong = || BrokerError::Root(self.name.clone());
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.map_err(|_| wrong())?;
        if found.is_empty() {
            return Err(wrong());
        }
        let found = found.iter().map(|certificate| certificate.to_vec());
        self.roots.extend(found);
        Ok(())
    }

    /// Whether it is put into a header of that name.
    pub(crate) fn is_for_header(&self, name: &str) -> bool {
        match self.headers.is_empty() {
            true => !is_framing(name),
            false => self
                .headers
                .iter()
                .any(|only| only.eq_ignore_ascii_case(name)),
        }
    }

    pub(crate) fn is_for(&self, name: &str, port: u16) -> bool {
        let mut hosts = self.hosts.iter();
        hosts.any(|host| host.name == name && host.port == port)
    }

    /// What a guest has in its place: as long, and made anew each time.
    pub(crate) fn placeholder(&self) -> Result<String, BrokerError> {
        let bytes = self.value.as_bytes().len();
        let mut text = String::with_capacity(bytes);
        if bytes >= PREFIX.len() + LEAST_DRAWN {
            text.push_str(PREFIX);
        }
        let mut drawn = vec![0; bytes - text.len()];
        getrandom::fill(&mut drawn).map_err(|_| BrokerError::Random)?;
        let signs = drawn
            .iter()
            .filter_map(|byte| SIGNS.get(usize::from(byte & 63)));
        text.extend(signs.map(|sign| char::from(*sign)));
        Ok(text)
    }
}

fn is_framing(name: &str) -> bool {
    FRAMING
        .iter()
        .any(|framing| framing.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, value: &str) -> Secret {
        Secret {
            name: name.into(),
            value: Value::new(value),
            hosts: vec!["api.example.com".parse().unwrap()],
            headers: Vec::new(),
            roots: Vec::new(),
        }
    }

    #[test]
    fn hosts_are_names_with_a_port() {
        let host: Host = "API.Example.com".parse().unwrap();
        assert_eq!((host.name(), host.port()), ("api.example.com", 443));
        assert_eq!("a.b:8443".parse::<Host>().unwrap().port(), 8443);
        for bad in [
            "",
            "a b",
            "192.0.2.1",
            "[::1]",
            "a:",
            "a:0",
            "a:70000",
            "*.a.b",
            "a.b.",
            "-a",
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
    }

    #[test]
    fn values_that_a_header_does_not_carry_are_refused_and_not_shown() {
        assert!(secret("KEY", "sk-0123456789").check().is_ok());
        for bad in [
            "short",
            "two\r\nlines",
            "tab\tbed value",
            " leading space",
            "schlüssel-1",
            "nul\0nul nul",
        ] {
            let error = secret("KEY", bad).check().unwrap_err();
            assert!(!format!("{error} {error:?}").contains(bad), "{error:?}");
        }
        for bad in ["", "1KEY", "A=B", "A B"] {
            assert!(secret(bad, "sk-0123456789").check().is_err(), "{bad}");
        }
        for bad in ["", "Host", "host", "content-length", "a b", "Authorization"] {
            let mut secret = secret("KEY", "sk-0123456789");
            secret.headers.push(bad.into());
            assert!(secret.check().is_err(), "{bad}");
        }
        let mut nowhere = secret("KEY", "sk-0123456789");
        nowhere.hosts.clear();
        assert!(nowhere.check().is_err());
    }

    #[test]
    fn placeholders_are_as_long_as_values_and_never_the_same() {
        for bytes in [8, 31, 32, 200] {
            let secret = secret("KEY", &"v".repeat(bytes));
            let (one, other) = (secret.placeholder().unwrap(), secret.placeholder().unwrap());
            assert_eq!((one.len(), other.len()), (bytes, bytes));
            assert_ne!(one, other);
            assert_eq!(one.starts_with(PREFIX), bytes >= 32);
        }
    }

    #[test]
    fn debug_output_has_no_value() {
        let text = format!("{:?}", secret("KEY", "sk-0123456789"));
        assert!(!text.contains("0123") && text.contains("KEY"), "{text}");
    }
}
