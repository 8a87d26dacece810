//! Requests to one registry or mirror: its scheme, who asks, and trying again.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::warn;
use ureq::http::header::WWW_AUTHENTICATE;
use ureq::http::{HeaderMap, Uri};

use crate::auth::{Known, Subject};
use crate::challenge;
use crate::error::PullError;
use crate::network::{Answer, Network};
use crate::status::{message, of_status};

/// Where Docker Hub really is.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// One place where an image may be.
#[derive(Debug)]
pub(crate) struct Endpoint {
    subject: Subject,
    /// Between host and `/v2/`.
    prefix: String,
    /// `https`, or what was found or asked for.
    scheme: OnceLock<&'static str>,
    known: Known,
    /// When the host may be asked again, for all who ask it.
    not_before: Mutex<Option<Instant>>,
}

impl Endpoint {
    /// The registry itself.
    pub(crate) fn registry(registry: &str, repository: &str) -> Self {
        let host = match registry {
            DOCKER_HUB => DOCKER_HUB_HOST,
            other => other,
        };
        Self::new(registry, host, "", repository)
    }

    /// A mirror: `HOST[:PORT]` or `SCHEME://HOST[:PORT][/PREFIX]`.
    pub(crate) fn mirror(text: &str, repository: &str) -> Result<Self, PullError> {
        let invalid = |reason| PullError::Setting {
            what: "the mirror",
            value: text.to_owned(),
            reason,
        };
        let with_scheme = match text.contains("://") {
            true => text.to_owned(),
            false => format!("any://{text}"),
        };
        let address: Uri = with_scheme
            .parse()
            .map_err(|_| invalid("is no HOST[:PORT] and no address; correct it"))?;
        let host = crate::network::authority(&address);
        let prefix = address.path().trim_end_matches('/');
        let endpoint = Self::new(&host, &host, prefix, repository);
        match crate::network::scheme(&address) {
            "any" => {}
            "https" => drop(endpoint.scheme.set("https")),
            "http" => drop(endpoint.scheme.set("http")),
            _ => return Err(invalid("is neither http nor https; correct it")),
        }
        match host.is_empty() || address.query().is_some() {
            true => Err(invalid("is no HOST[:PORT] and no address; correct it")),
            false => Ok(endpoint),
        }
    }

    fn new(registry: &str, host: &str, prefix: &str, repository: &str) -> Self {
        Self {
            subject: Subject {
                registry: registry.to_owned(),
                repository: repository.to_owned(),
                host: host.to_ascii_lowercase(),
            },
            prefix: prefix.to_owned(),
            scheme: OnceLock::new(),
            known: Known::default(),
            not_before: Mutex::default(),
        }
    }

    /// `HOST[:PORT]`.
    pub(crate) fn authority(&self) -> String {
        self.subject.host.clone()
    }

    /// The image's name there.
    pub(crate) fn repository(&self) -> &str {
        &self.subject.repository
    }

    /// Gets `/v2/PATH`: the answer is one with a status of `wanted`. Asked again after
    /// failures that pass, as often as the configuration says.
    pub(crate) fn get(
        &self,
        network: &Network,
        path: &str,
        headers: &[(&str, &str)],
        what: &str,
        wanted: &[u16],
    ) -> Result<Answer, PullError> {
        let mut pacing = Pacing::new(network);
        loop {
            match self.get_once(network, path, headers, what, wanted) {
                Err(error) if error.is_transient() => pacing.after(self, error)?,
                done => return done,
            }
        }
    }

    /// As [`Self::get`], once.
    pub(crate) fn get_once(
        &self,
        network: &Network,
        path: &str,
        headers: &[(&str, &str)],
        what: &str,
        wanted: &[u16],
    ) -> Result<Answer, PullError> {
        self.await_turn(network)?;
        let scheme = self.scheme(network)?;
        let address = format!("{scheme}://{}{}/v2/{path}", self.subject.host, self.prefix);
        let address: Uri = address.parse().map_err(|_| PullError::Network {
            host: self.subject.host.clone(),
            reason: "that is no address".into(),
        })?;
        let mut asked_again = false;
        loop {
            let authorization = self.known.header(network, &self.subject)?;
            let answer = network.get(&address, headers, authorization.as_ref())?;
            let status = answer.response.status().as_u16();
            if wanted.contains(&status) {
                return Ok(answer);
            }
            if status == 401 && answer.is_own {
                if let Some(refused) = &authorization {
                    self.known.forget(refused);
                }
                let found = challenges(answer.response.headers());
                if !asked_again && self.known.learn(&self.subject.repository, found) {
                    // What was sent was too old, or nothing.
                    asked_again = true;
                    continue;
                }
                return Err(match authorization {
                    None => self.subject.login_needed(),
                    Some(_) => self.denied(answer),
                });
            }
            return Err(match status {
                403 => self.denied(answer),
                404 => PullError::NotFound {
                    host: answer.host,
                    what: what.to_owned(),
                },
                _ => of_status(answer, what.to_owned()),
            });
        }
    }

    fn denied(&self, answer: Answer) -> PullError {
        PullError::Denied {
            host: answer.host.clone(),
            registry: self.subject.registry.clone(),
            status: answer.response.status().as_u16(),
            message: message(answer),
        }
    }

    /// The scheme: https, unless the host may do without it and has none.
    fn scheme(&self, network: &Network) -> Result<&'static str, PullError> {
        if let Some(scheme) = self.scheme.get() {
            if *scheme == "http" && !network.may_be_plain(&self.subject.host) {
                return Err(PullError::Setting {
                    what: "the mirror",
                    value: self.subject.host.clone(),
                    reason: "has no TLS; name it with --insecure-registry if that is meant",
                });
            }
            return Ok(scheme);
        }
        let found = match network.may_be_plain(&self.subject.host) {
            false => "https",
            true => self.probe(network)?,
        };
        Ok(self.scheme.get_or_init(|| found))
    }

    fn probe(&self, network: &Network) -> Result<&'static str, PullError> {
        let of = |scheme| {
            let address = format!("{scheme}://{}{}/v2/", self.subject.host, self.prefix);
            address.parse::<Uri>().map_err(|_| PullError::Network {
                host: self.subject.host.clone(),
                reason: "that is no address".into(),
            })
        };
        match network.get(&of("https")?, &[], None) {
            Ok(_) => Ok("https"),
            // An answer over TLS, of whatever kind, rules plain HTTP out.
            Err(
                error @ (PullError::Untrusted { .. }
                | PullError::Cancelled
                | PullError::Redirect { .. }
                | PullError::File { .. }),
            ) => Err(error),
            Err(_) => Ok("http"),
        }
    }

    fn await_turn(&self, network: &Network) -> Result<(), PullError> {
        let until = *self
            .not_before
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match until.and_then(|until| until.checked_duration_since(Instant::now())) {
            Some(wait) => network.pause(wait),
            None => Ok(()),
        }
    }

    fn stay_away(&self, time: Duration) {
        let mut until = self
            .not_before
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let then = Instant::now() + time;
        *until = Some(until.map_or(then, |until| until.max(then)));
    }
}

/// How often something was tried, and how long to wait before the next time.
#[derive(Debug)]
pub(crate) struct Pacing<'a> {
    network: &'a Network,
    failures: u32,
}

impl<'a> Pacing<'a> {
    pub(crate) fn new(network: &'a Network) -> Self {
        Self {
            network,
            failures: 0,
        }
    }

    /// It got further: what failed before counts no more.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Waits for the next attempt after `error`; the error if there is none.
    pub(crate) fn after(&mut self, endpoint: &Endpoint, error: PullError) -> Result<(), PullError> {
        let config = self.network.config();
        self.failures += 1;
        if !error.is_transient() || self.failures >= config.attempts {
            return Err(error);
        }
        let asked = error.retry_after();
        if let Some(wait) = asked.filter(|wait| *wait > config.longest_pause) {
            return Err(PullError::TooBusy {
                host: endpoint.authority(),
                wait,
            });
        }
        let doubled = config
            .first_pause
            .saturating_mul(1 << (self.failures - 1).min(16));
        let pause = asked.unwrap_or_else(|| jittered(doubled).min(config.longest_pause));
        warn!(
            host = endpoint.subject.host,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            attempt = self.failures,
            "trying again: {error}"
        );
        if asked.is_some() {
            // All who talk to that host wait.
            endpoint.stay_away(pause);
            return Ok(());
        }
        self.network.pause(pause)
    }
}

/// Something between a half and all of `time`, so that many who failed at once do not
/// come back at once.
fn jittered(time: Duration) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let random = now.unwrap_or_default().subsec_nanos() % 1000;
    time / 2 + time.mul_f64(f64::from(random) / 2000.0)
}

fn challenges(headers: &HeaderMap) -> Vec<challenge::Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().take(16);
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(challenge::parse).collect()
}
