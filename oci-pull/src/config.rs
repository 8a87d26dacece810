//! What a client may be told.

use std::path::PathBuf;
use std::time::Duration;

use supermachine_oci_bake::Cancel;

use crate::authority::host_of;
use crate::credentials::Credentials;
use crate::error::PullError;
use crate::key::VerifyKey;
use crate::proxy::Proxies;

/// Directories with a directory for each host, as Docker and podman have them.
const CERTIFICATE_DIRECTORIES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
/// Variable with mirrors: `docker.io=mirror.example,ghcr.io=https://other.example/ghcr`.
const MIRRORS_VARIABLE: &str = "SUPERMACHINE_MIRRORS";
/// Variable with registries that need no TLS, separated by commas.
const INSECURE_VARIABLE: &str = "SUPERMACHINE_INSECURE_REGISTRIES";

/// How to talk to registries.
///
/// [`ClientConfig::default`] reads nothing of this machine;
/// [`ClientConfig::from_environment`] reads what Docker and podman do.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Registries, as `HOST` or `HOST:PORT`, that may have any certificate, or no TLS.
    /// Those on this machine may do without TLS anyway.
    pub insecure: Vec<String>,
    /// Where to look first, for a registry: pairs of its name and `HOST[:PORT]` or
    /// `SCHEME://HOST[:PORT][/PREFIX]`. Tried in their order, and then the registry.
    pub mirrors: Vec<(String, String)>,
    /// Directories with a directory `HOST[:PORT]` for a host: in it `*.crt` files of
    /// authorities that are trusted for it, and `NAME.cert` with `NAME.key` to show.
    pub certificate_directories: Vec<PathBuf>,
    /// Names and passwords.
    pub credentials: Credentials,
    /// Proxies.
    pub proxies: Proxies,
    /// Longest time to make a connection.
    pub connect_timeout: Duration,
    /// Longest time without a byte. There is no limit for the whole.
    pub stall_timeout: Duration,
    /// How often something is tried before a mirror counts as failed; starts again
    /// when a blob gets further.
    pub attempts: u32,
    /// Pause before the second attempt; doubled before each further one.
    pub first_pause: Duration,
    /// Longest pause; what asks for more is an error.
    pub longest_pause: Duration,
    /// Stops everything from another thread.
    pub cancel: Cancel,
    /// Images must be signed by this key, as `cosign sign --key` does it.
    pub verify_key: Option<VerifyKey>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            mirrors: Vec::new(),
            certificate_directories: Vec::new(),
            credentials: Credentials::default(),
            proxies: Proxies::default(),
            connect_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            attempts: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(120),
            cancel: Cancel::default(),
            verify_key: None,
        }
    }
}

impl ClientConfig {
    /// What this user has set up: the credentials of `docker login` and `podman login`,
    /// certificates, and the variables `DOCKER_CONFIG`, `REGISTRY_AUTH_FILE`,
    /// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, `SUPERMACHINE_MIRRORS`
    /// (`docker.io=mirror.example,…`) and `SUPERMACHINE_INSECURE_REGISTRIES`.
    ///
    /// # Errors
    /// [`PullError::Setting`] if a variable makes no sense.
    pub fn from_environment() -> Result<Self, PullError> {
        let text = |name| std::env::var(name).unwrap_or_default();
        let words = |text: &str| -> Vec<String> {
            let words = text.split(',').map(str::trim);
            words.filter(|w| !w.is_empty()).map(str::to_owned).collect()
        };
        let pair = |word: String| match word.split_once('=') {
            Some((registry, mirror)) => Ok((registry.to_owned(), mirror.to_owned())),
            None => Err(PullError::Setting {
                what: MIRRORS_VARIABLE,
                value: word,
                reason: "is no REGISTRY=MIRROR; correct it",
            }),
        };
        let mirrors: Result<_, _> = words(&text(MIRRORS_VARIABLE))
            .into_iter()
            .map(pair)
            .collect();
        let own = std::env::home_dir().map(|home| home.join(".docker/certs.d"));
        let shared = CERTIFICATE_DIRECTORIES.iter().map(PathBuf::from);
        Ok(Self {
            insecure: words(&text(INSECURE_VARIABLE)),
            mirrors: mirrors?,
            certificate_directories: own.into_iter().chain(shared).collect(),
            credentials: Credentials::from_environment(),
            proxies: Proxies::from_environment(),
            ..Self::default()
        })
    }

    /// Whether `authority` may do without TLS, or without a certificate.
    pub(crate) fn is_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        self.insecure
            .iter()
            .any(|named| named.eq_ignore_ascii_case(authority) || named.eq_ignore_ascii_case(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_insecure_by_its_name_with_or_without_port() {
        let config = ClientConfig {
            insecure: vec!["a.example".into(), "b.example:5000".into()],
            ..ClientConfig::default()
        };
        assert!(config.is_insecure("A.example:80") && config.is_insecure("b.example:5000"));
        assert!(!config.is_insecure("b.example") && !config.is_insecure("x.a.example"));
    }
}
