//! Secrets of a machine: kept from its guest, and put into its requests on their way out.

use broker::{BrokerError, Orders, Secret, Value};
use oci_bake::ImageConfig;

use crate::network::Network;
use crate::{Error, Vm};
use std::time::SystemTime;

/// Where the guest finds the certificate of its machine's authority.
const AUTHORITY_FILE: &str = "/run/supermachine/authority.crt";
/// Where it finds that one and those of its image together.
const BUNDLE_FILE: &str = "/run/supermachine/authorities.crt";
/// Variables with the file of one more authority.
const ONE_MORE: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];
/// Variables with the file of all authorities: of OpenSSL and Go, Nix, Python's requests and
/// pip, curl, git, cargo and the AWS tools.
const ALL: [&str; 8] = [
    "SSL_CERT_FILE",
    "NIX_SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
];

/// A secret that the guest never has. Its commands find a placeholder in the variable of
/// that name; in headers of requests by HTTPS to the secret's hosts, and nowhere else, the
/// value is put in its place on the way out.
///
/// ```
/// use supermachine::{Network, VmConfig};
///
/// let key = "sk-0123456789abcdef";
/// let config = VmConfig::new()
///     .with_network(Network::AllowAll)
///     .with_secret(Network::secret("OPENAI_API_KEY", key).for_host("api.openai.com"));
/// # let _ = config;
/// ```
///
/// The value is in no snapshot, log, error or output of `Debug`. What is said wrongly here
/// is found when the machine is started, which it is not then. docs/network.md has the
/// whole of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSecret {
    secret: Secret,
    mistake: Option<BrokerError>,
}

impl Network {
    /// A secret for [`VmConfig::with_secret`](crate::VmConfig::with_secret): the variable in which programs look for it,
    /// and its value, of 8 to 8,192 printable ASCII characters.
    pub fn secret(name: impl Into<String>, value: impl Into<String>) -> NetworkSecret {
        NetworkSecret {
            secret: Secret {
                name: name.into(),
                value: Value::new(value),
                hosts: Vec::new(),
                headers: Vec::new(),
                roots: Vec::new(),
            },
            mistake: None,
        }
    }
}

impl NetworkSecret {
    /// Lets this host have it: a name, on port 443 or as `api.example.com:8443`. The
    /// network's rules have to allow it, too.
    #[must_use]
    pub fn for_host(mut self, host: &str) -> Self {
        match host.parse() {
            Ok(host) => self.secret.hosts.push(host),
            Err(mistake) => self.note(mistake),
        }
        self
    }

    /// Puts it into this header only, or into this one, too, and no others. Without it all
    /// headers are meant that do not frame a request.
    #[must_use]
    pub fn in_header(mut self, header: &str) -> Self {
        self.secret.headers.push(header.to_ascii_lowercase());
        self
    }

    /// Knows its hosts by these authorities instead of those of this system: certificates
    /// in PEM format.
    #[must_use]
    pub fn with_authorities(mut self, pem: &[u8]) -> Self {
        if let Err(mistake) = self.secret.add_roots(pem) {
            self.note(mistake);
        }
        self
    }

    fn note(&mut self, mistake: BrokerError) {
        self.mistake.get_or_insert(mistake);
    }
}

/// Refuses secrets that cannot be kept.
pub(crate) fn check(secrets: &[NetworkSecret], has_network: bool) -> Result<(), Error> {
    if secrets.is_empty() {
        return Ok(());
    }
    if !has_network {
        return Err(Error::Unsuitable {
            what: "a secret of a machine without a network",
            needs: "a network: say what it may reach, too",
        });
    }
    let mut mistakes = secrets.iter().filter_map(|secret| secret.mistake.as_ref());
    if let Some(mistake) = mistakes.next() {
        return Err(mistake.clone().into());
    }
    Ok(broker::check(&kept(secrets))?)
}

fn kept(secrets: &[NetworkSecret]) -> Vec<Secret> {
    secrets.iter().map(|secret| secret.secret.clone()).collect()
}

/// What the guest of one start of a machine is told of its secrets.
#[derive(Debug)]
pub(crate) struct Told {
    /// The certificate that it is to trust, in PEM format.
    certificate: String,
    /// The image's configuration, as commands of this machine have it.
    pub(crate) config: ImageConfig,
}

impl Told {
    /// Makes placeholders and an authority anew, for the worker and for the guest; none if
    /// there are no secrets. `guest_time` is what the guest's clock will say.
    pub(crate) fn new(
        secrets: &[NetworkSecret],
        guest_time: SystemTime,
        image: &ImageConfig,
    ) -> Result<Option<(Orders, Self)>, Error> {
        if secrets.is_empty() {
            return Ok(None);
        }
        let orders = Orders::new(&kept(secrets), guest_time)?;
        let mut image = image.clone();
        let set: Vec<String> = image
            .env
            .iter()
            .filter_map(|entry| Some(entry.split_once('=')?.0.to_owned()))
            .collect();
        let files = ONE_MORE.iter().map(|name| (*name, AUTHORITY_FILE));
        let files = files.chain(ALL.iter().map(|name| (*name, BUNDLE_FILE)));
        for (name, file) in files {
            // An image that has its own knows why.
            if !set.iter().any(|known| known == name) {
                image.env.push(format!("{name}={file}"));
            }
        }
        for (name, placeholder) in orders.placeholders() {
            image.env.push(format!("{name}={placeholder}"));
        }
        let told = Self {
            certificate: orders.certificate_pem(),
            config: image,
        };
        Ok(Some((orders, told)))
    }

    /// Has the guest trust the authority.
    pub(crate) fn install(&self, vm: &Vm) -> Result<(), Error> {
        crate::files::mounts::trust(vm, &self.certificate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NetworkPolicy, VmConfig};
    use std::error::Error as _;

    const VALUE: &str = "sk-0123456789abcdef";

    fn with(secret: NetworkSecret) -> VmConfig {
        VmConfig::new()
            .with_network(Network::AllowAll)
            .with_secret(secret)
    }

    #[test]
    fn secrets_with_a_mistake_refuse_to_start_and_are_not_shown() {
        let good = Network::secret("KEY", VALUE).for_host("api.example.com");
        assert!(with(good.clone()).validate().is_ok());
        for bad in [
            Network::secret("KEY", VALUE),
            Network::secret("KEY", VALUE).for_host("192.0.2.1"),
            good.clone().for_host("*.example.com"),
            good.clone().in_header("Host"),
            good.clone().with_authorities(b"none"),
            Network::secret("K=Y", VALUE).for_host("api.example.com"),
            Network::secret("KEY", "sk-0123456789\r\nabcdef").for_host("api.example.com"),
        ] {
            let config = with(bad);
            let error = config.validate().unwrap_err();
            let text = format!("{error} {error:?} {:?} {config:?}", error.source());
            assert_eq!(error.code(), "network", "{text}");
            assert!(!text.contains("0123456789"), "{text}");
        }
        let twice = with(good.clone()).with_secret(good.clone());
        assert_eq!(twice.validate().unwrap_err().code(), "network");
        let off = VmConfig::new().with_secret(good);
        assert_eq!(off.validate().unwrap_err().code(), "unsuitable");
    }

    #[test]
    fn commands_have_placeholders_and_files_that_the_image_does_not_name() {
        let secret = Network::secret("KEY", VALUE).for_host("api.example.com");
        let config = with(secret).with_network(NetworkPolicy::allow_all());
        let mut image = ImageConfig::default();
        image.env = vec!["KEY=of the image".into(), "SSL_CERT_FILE=/own".into()];
        let told =
            |config: &VmConfig| Told::new(&config.secrets, SystemTime::now(), &image).unwrap();
        let (orders, one) = told(&config).unwrap();
        let (_, other) = told(&config).unwrap();
        let env = &one.config.env;
        let key = env.iter().rfind(|entry| entry.starts_with("KEY=")).unwrap();
        assert_eq!(key.len(), "KEY=".len() + VALUE.len());
        assert!(!other.config.env.contains(key), "anew for each start");
        let files: Vec<&String> = env
            .iter()
            .filter(|e| e.starts_with("SSL_CERT_FILE="))
            .collect();
        assert_eq!(files, ["SSL_CERT_FILE=/own"]);
        assert!(env.contains(&format!("NODE_EXTRA_CA_CERTS={AUTHORITY_FILE}")));
        assert!(!format!("{one:?} {orders:?}").contains(VALUE));
        assert!(told(&VmConfig::new()).is_none());
    }
}
