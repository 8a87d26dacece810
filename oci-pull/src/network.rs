//! Single requests: connections, redirections, and what went wrong.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use supermachine_oci_bake::Cancel;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use ureq::http::{Response, StatusCode, Uri};
use ureq::{Agent, Body, Proxy};

use crate::authority::is_loopback;
use crate::config::ClientConfig;
use crate::error::PullError;
use crate::secret::Secret;
use crate::tls;

/// Redirections followed before giving up.
const MAX_REDIRECTS: usize = 10;
/// Longest address of a redirection.
const MAX_ADDRESS_BYTES: usize = 16 << 10;
const USER_AGENT: &str = concat!("supermachine/", env!("CARGO_PKG_VERSION"));

/// Makes requests, with one agent for each host: hosts have certificates, proxies and
/// rights of their own.
pub(crate) struct Network {
    config: ClientConfig,
    agents: Mutex<HashMap<(String, String), Agent>>,
    /// Asked to end, without everything that the configuration is used for.
    ended: Cancel,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

/// An answer, and whether it is from the host that was asked.
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    /// The host that answered.
    pub(crate) host: String,
    /// Whether it is the one that was asked, and not one it led to.
    pub(crate) is_own: bool,
}

impl Network {
    pub(crate) fn new(config: ClientConfig) -> Self {
        Self {
            config,
            agents: Mutex::default(),
            ended: Cancel::default(),
        }
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Ends all requests, of other threads too; there are none any more.
    pub(crate) fn shut_down(&self) {
        self.ended.cancel();
        let agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        for agent in agents.values() {
            agent.clone().shutdown();
        }
    }

    fn is_ended(&self) -> bool {
        self.ended.is_cancelled() || self.config.cancel.is_cancelled()
    }

    /// Gets an address. The authorization goes to its host only.
    pub(crate) fn get(
        &self,
        address: &Uri,
        headers: &[(&str, &str)],
        authorization: Option<&Secret>,
    ) -> Result<Answer, PullError> {
        let first = authority(address);
        let mut at = address.clone();
        let mut authorization = authorization;
        for _ in 0..=MAX_REDIRECTS {
            let host = authority(&at);
            let mut request = self.agent(&at)?.get(&at);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(secret) = authorization {
                request = request.header(AUTHORIZATION, secret.reveal());
            }
            let response = request.call().map_err(|error| self.failed(&host, error))?;
            if !is_redirect(response.status()) {
                let is_own = host == first;
                return Ok(Answer {
                    response,
                    host,
                    is_own,
                });
            }
            let next = self.redirect(&at, &response)?;
            if authority(&next) != host || next.scheme() != at.scheme() {
                authorization = None;
            }
            at = next;
        }
        Err(PullError::Redirect {
            host: first,
            to: shown(&at),
            reason: "that is one redirection too many",
        })
    }

    /// Sends a form, which no redirection takes elsewhere.
    pub(crate) fn post(&self, address: &Uri, form: &Secret) -> Result<Answer, PullError> {
        let host = authority(address);
        let request = self.agent(address)?.post(address);
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let response = request
            .send(form.reveal())
            .map_err(|error| self.failed(&host, error))?;
        Ok(Answer {
            response,
            host,
            is_own: true,
        })
    }

    fn redirect(&self, at: &Uri, response: &Response<Body>) -> Result<Uri, PullError> {
        let location = response.headers().get(LOCATION);
        let location = location
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let refused = |reason| PullError::Redirect {
            host: authority(at),
            to: without_query(location),
            reason,
        };
        let next = resolve(at, location).ok_or_else(|| refused("that is no address"))?;
        match (scheme(at), scheme(&next)) {
            (_, "https") => Ok(next),
            ("https", "http") => Err(refused("that has no TLS")),
            // A host that may do without TLS redirects to another without TLS only
            // if that one may do without it, too.
            ("http", "http") if self.may_be_plain(&authority(&next)) => Ok(next),
            ("http", "http") => Err(refused("that has no TLS, and is not on this machine")),
            _ => Err(refused("only https is followed")),
        }
    }

    /// Whether a host may do without TLS.
    pub(crate) fn may_be_plain(&self, authority: &str) -> bool {
        is_loopback(authority) || self.config.is_insecure(authority)
    }

    fn agent(&self, address: &Uri) -> Result<Agent, PullError> {
        let host = authority(address);
        let key = (scheme(address).to_owned(), host.clone());
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_ended() {
            return Err(PullError::Cancelled);
        }
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let config = &self.config;
        let proxy = config.proxies.for_host(scheme(address), &host);
        let proxy = proxy.map(|secret| Proxy::new(secret.reveal())).transpose();
        let proxy = proxy.map_err(|_| PullError::Setting {
            what: "the proxy for",
            value: host.clone(),
            reason: "is no address; correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY",
        })?;
        let mut builder = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(USER_AGENT)
            .accept_encoding("identity")
            .proxy(proxy)
            .timeout_resolve(Some(config.connect_timeout))
            .timeout_connect(Some(config.connect_timeout))
            .timeout_recv_response(Some(config.stall_timeout))
            .timeout_per_read(Some(config.stall_timeout))
            .timeout_per_write(Some(config.stall_timeout));
        if scheme(address) == "https" {
            let insecure = config.is_insecure(&host);
            let tls = tls::for_host(&host, &config.certificate_directories, insecure)?;
            builder = builder.tls_config(tls);
        }
        let agent = Agent::new_with_config(builder.build());
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    /// What an error of the connection means.
    pub(crate) fn failed(&self, host: &str, error: ureq::Error) -> PullError {
        let host = host.to_owned();
        if self.is_ended() {
            return PullError::Cancelled;
        }
        match error {
            ureq::Error::Timeout(_) => PullError::Stalled {
                host,
                limit: self.config.stall_timeout,
            },
            ureq::Error::Rustls(error) => of_tls(host, &error),
            ureq::Error::Io(error) => self.broken(host, &error),
            ureq::Error::HostNotFound => PullError::Network {
                host,
                reason: "there is no host of that name".into(),
            },
            other => PullError::Network {
                host,
                reason: crate::error::show(&other.to_string()),
            },
        }
    }

    /// What an error while reading means.
    pub(crate) fn broken(&self, host: String, error: &io::Error) -> PullError {
        if self.is_ended() {
            return PullError::Cancelled;
        }
        let inner = error.get_ref();
        if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return of_tls(host, error);
        }
        let is_timeout = inner
            .and_then(|inner| inner.downcast_ref::<ureq::Error>())
            .is_some_and(|error| matches!(error, ureq::Error::Timeout(_)));
        if is_timeout || error.kind() == io::ErrorKind::TimedOut {
            return PullError::Stalled {
                host,
                limit: self.config.stall_timeout,
            };
        }
        PullError::Network {
            host,
            reason: crate::error::show(&error.to_string()),
        }
    }

    /// Waits, unless it is cancelled meanwhile.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), PullError> {
        let step = Duration::from_millis(50);
        let mut left = time;
        while !left.is_zero() {
            if self.is_ended() {
                return Err(PullError::Cancelled);
            }
            let now = left.min(step);
            std::thread::sleep(now);
            left -= now;
        }
        Ok(())
    }
}

fn of_tls(host: String, error: &rustls::Error) -> PullError {
    let reason = crate::error::show(&error.to_string());
    match error {
        rustls::Error::InvalidCertificate(_) => PullError::Untrusted { host, reason },
        _ => PullError::Network { host, reason },
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

pub(crate) fn scheme(address: &Uri) -> &str {
    address.scheme_str().unwrap_or_default()
}

/// `HOST[:PORT]`, without the user that may be in front of it.
pub(crate) fn authority(address: &Uri) -> String {
    let text = address
        .authority()
        .map_or("", |authority| authority.as_str());
    text.rsplit('@')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
}

/// An address for a message: its query may have a signature in it.
pub(crate) fn shown(address: &Uri) -> String {
    format!(
        "{}://{}{}",
        scheme(address),
        authority(address),
        address.path()
    )
}

fn without_query(location: &str) -> String {
    let text = location.split(['?', '#']).next().unwrap_or_default();
    match text.split_once("://") {
        Some((scheme, rest)) => {
            let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
            format!("{scheme}://{rest}")
        }
        None => text.to_owned(),
    }
}

/// Where `location` leads from `at` (RFC 3986 §5.2, as far as registries use it).
fn resolve(at: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?.trim();
    if location.is_empty() || location.len() > MAX_ADDRESS_BYTES {
        return None;
    }
    let text = if location.contains("://") && !location.starts_with(['/', '?']) {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{}://{rest}", scheme(at))
    } else if location.starts_with('/') {
        format!("{}://{}{location}", scheme(at), authority(at))
    } else if location.starts_with('?') {
        format!("{}{location}", shown(at))
    } else if location.split('/').next()?.contains(':') {
        // A scheme without an authority.
        return None;
    } else {
        let directory = at
            .path()
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory);
        format!("{}://{}{directory}/{location}", scheme(at), authority(at))
    };
    let address: Uri = text.parse().ok()?;
    // An address with a password in it is refused.
    let has_user = address
        .authority()
        .is_some_and(|a| a.as_str().contains('@'));
    (address.scheme().is_some() && !authority(&address).is_empty() && !has_user).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_against_where_they_come_from() {
        let at: Uri = "https://r.example:5000/v2/a/blobs/x?y=z".parse().unwrap();
        for (location, to) in [
            ("https://s3.example/b?sig=1", "https://s3.example/b?sig=1"),
            ("//s3.example/b", "https://s3.example/b"),
            ("/b?c", "https://r.example:5000/b?c"),
            ("b", "https://r.example:5000/v2/a/blobs/b"),
            ("?q=1", "https://r.example:5000/v2/a/blobs/x?q=1"),
            ("https://s3.example/b#part", "https://s3.example/b"),
            ("ftp://s3.example/b", "ftp://s3.example/b"),
        ] {
            assert_eq!(
                resolve(&at, location).unwrap().to_string(),
                to,
                "{location}"
            );
        }
        let long = format!("/{}", "a".repeat(20_000));
        for location in [
            "",
            "#x",
            "file:/etc/passwd",
            "file:///etc/passwd",
            "data:x",
            "https://u:p@h/x",
            "http://",
            &long,
        ] {
            assert_eq!(resolve(&at, location), None, "{location}");
        }
    }

    #[test]
    fn what_is_shown_of_an_address_has_no_query_and_no_password() {
        assert_eq!(without_query("https://u:p@h/x?sig=secret#f"), "https://h/x");
        let address: Uri = "https://u:p@h/x?sig=secret".parse().unwrap();
        assert_eq!(shown(&address), "https://h/x");
    }
}
