//! The secrets of one start of a machine, by the hosts that they are for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::authority::Authority;
use crate::secret::{Host, Secret};
use crate::{BrokerError, MAX_SECRETS};

/// What whoever serves a machine's network has to know. It has the values in it: it goes to
/// that process, and is not written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    pub(crate) authority: Authority,
    pub(crate) secrets: Vec<Kept>,
}

/// A secret, and what the guest has in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    pub(crate) secret: Secret,
    pub(crate) placeholder: String,
}

/// Refuses secrets that cannot be kept, or not together.
///
/// # Errors
/// What is the matter; never a value.
pub fn check(secrets: &[Secret]) -> Result<(), BrokerError> {
    if secrets.len() > MAX_SECRETS {
        return Err(BrokerError::TooMany {
            count: secrets.len(),
            most: MAX_SECRETS,
        });
    }
    for (number, secret) in secrets.iter().enumerate() {
        secret.check()?;
        let mut before = secrets.iter().take(number);
        if before.any(|other| other.name == secret.name) {
            return Err(BrokerError::Twice(secret.name.clone()));
        }
        for root in &secret.roots {
            crate::trust::check_root(root).ok_or_else(|| BrokerError::Root(secret.name.clone()))?;
        }
    }
    Ok(())
}

impl Orders {
    /// For one start of a machine with these secrets, whose placeholders and authority are
    /// new.
    ///
    /// # Errors
    /// As [`check`], and where there is no cryptography.
    pub fn new(secrets: &[Secret], guest_time: std::time::SystemTime) -> Result<Self, BrokerError> {
        check(secrets)?;
        let kept: Result<Vec<Kept>, BrokerError> = secrets
            .iter()
            .map(|secret| {
                Ok(Kept {
                    placeholder: secret.placeholder()?,
                    secret: secret.clone(),
                })
            })
            .collect();
        Ok(Self {
            authority: Authority::new(guest_time)?,
            secrets: kept?,
        })
    }

    /// The certificate that the guest is to trust, in PEM format.
    pub fn certificate_pem(&self) -> String {
        self.authority.certificate_pem()
    }

    /// The guest's variables: names of secrets, and what stands for their values.
    pub fn placeholders(&self) -> impl Iterator<Item = (&str, &str)> {
        let kept = self.secrets.iter();
        kept.map(|kept| (kept.secret.name.as_str(), kept.placeholder.as_str()))
    }

    /// The hosts that secrets are for.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.secrets.iter().flat_map(|kept| &kept.secret.hosts)
    }

    pub(crate) fn of_host(self: &Arc<Self>, name: &str, port: u16) -> Option<Arc<HostSecrets>> {
        let is_one = self
            .hosts()
            .any(|host| host.name() == name && host.port() == port);
        is_one.then(|| {
            Arc::new(HostSecrets {
                orders: self.clone(),
                host: name.to_owned(),
                port,
            })
        })
    }
}

/// The secrets of a machine, as one host is to have them.
#[derive(Debug)]
pub(crate) struct HostSecrets {
    orders: Arc<Orders>,
    host: String,
    port: u16,
}

impl HostSecrets {
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What stands for secrets, for whatever hosts they are, by their numbers.
    pub(crate) fn placeholders(&self) -> impl Iterator<Item = &[u8]> {
        self.orders
            .secrets
            .iter()
            .map(|kept| kept.placeholder.as_bytes())
    }

    /// Those that this host may have: number, placeholder, and the secret.
    fn own(&self) -> impl Iterator<Item = (usize, &Kept)> {
        let kept = self.orders.secrets.iter().enumerate();
        kept.filter(|(_, kept)| kept.secret.is_for(&self.host, self.port))
    }

    /// Those that go into a header of this host's: number, placeholder and value.
    pub(crate) fn for_header<'a>(
        &'a self,
        header: &'a str,
    ) -> impl Iterator<Item = (usize, &'a [u8], &'a [u8])> {
        let own = self
            .own()
            .filter(move |(_, kept)| kept.secret.is_for_header(header));
        own.map(|(number, kept)| {
            (
                number,
                kept.placeholder.as_bytes(),
                kept.secret.value.as_bytes(),
            )
        })
    }

    /// What is to be put back into answers: value and placeholder.
    pub(crate) fn back(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.own()
            .map(|(_, kept)| (kept.secret.value.as_bytes(), kept.placeholder.as_bytes()))
    }

    /// Certificates that the host is known by, if not those of the system's.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &[u8]> {
        self.own()
            .flat_map(|(_, kept)| kept.secret.roots.iter().map(Vec::as_slice))
    }

    pub(crate) fn name(&self, number: usize) -> Option<&str> {
        Some(self.orders.secrets.get(number)?.secret.name.as_str())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Value;
    use std::time::SystemTime;

    pub(crate) const SECRET: &str = "sk-the-real-value-of-it-0123456789";
    pub(crate) const PLACE: &str = "smsecretAAAABBBBCCCCDDDDEEEEFFFF-_";

    fn secret(name: &str, host: &str) -> Secret {
        Secret {
            name: name.into(),
            value: Value::new(SECRET),
            hosts: vec![host.parse().unwrap()],
            headers: Vec::new(),
            roots: Vec::new(),
        }
    }

    /// One secret of `api.example.com`, whose placeholder is known.
    pub(crate) fn host_secrets(headers: &[&str]) -> Arc<HostSecrets> {
        let mut one = secret("KEY", "api.example.com");
        one.headers = headers.iter().map(|header| (*header).to_owned()).collect();
        let mut orders = Orders::new(&[one], SystemTime::now()).unwrap();
        orders.secrets[0].placeholder = PLACE.into();
        Arc::new(orders).of_host("api.example.com", 443).unwrap()
    }

    #[test]
    fn hosts_have_their_own_secrets_and_know_the_others_placeholders() {
        let secrets = [
            secret("ONE", "one.example"),
            secret("TWO", "two.example:8443"),
        ];
        let orders = Arc::new(Orders::new(&secrets, SystemTime::now()).unwrap());
        let two = orders.of_host("two.example", 8443).unwrap();
        assert!(orders.of_host("two.example", 443).is_none());
        assert_eq!(two.placeholders().count(), 2);
        let own: Vec<usize> = two
            .for_header("authorization")
            .map(|(own, ..)| own)
            .collect();
        assert_eq!(own, [1]);
        assert_eq!(two.name(1), Some("TWO"));
        let (one, other) = (orders.placeholders().next(), orders.placeholders().nth(1));
        assert_ne!(one.unwrap().1, other.unwrap().1);
    }

    #[test]
    fn secrets_that_cannot_be_kept_together_are_refused() {
        let one = secret("ONE", "one.example");
        let twice = check(&[one.clone(), one.clone()]).unwrap_err();
        assert_eq!(twice, BrokerError::Twice("ONE".into()));
        let mut bad_root = one.clone();
        bad_root.roots.push(b"no certificate".to_vec());
        assert_eq!(check(&[bad_root]), Err(BrokerError::Root("ONE".into())));
        let many: Vec<Secret> = (0..=MAX_SECRETS)
            .map(|number| secret(&format!("S{number}"), "one.example"))
            .collect();
        assert!(matches!(check(&many), Err(BrokerError::TooMany { .. })));
    }
}
