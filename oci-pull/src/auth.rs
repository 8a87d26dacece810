//! Proving who asks: tokens and passwords, for one host and repository at a time
//! (the distribution project's "Token Authentication Specification").

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use ureq::http::Uri;

use crate::challenge::Challenge;
use crate::error::{PullError, show};
use crate::login::Login;
use crate::network::{Network, authority, scheme, shown};
use crate::secret::Secret;
use crate::status::of_status;

/// How long a token holds of which that is not said.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// Longest lifetime that is believed: beyond that the registry says when it is over.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Most bytes of an answer with a token.
const MAX_TOKEN_BYTES: u64 = 1 << 20;
/// Who this is, for token servers.
const CLIENT_ID: &str = "supermachine";

/// Who wants to pull what from where.
#[derive(Debug)]
pub(crate) struct Subject {
    /// The registry whose credentials go there.
    pub(crate) registry: String,
    /// The image's name there.
    pub(crate) repository: String,
    /// `HOST[:PORT]`.
    pub(crate) host: String,
}

impl Subject {
    pub(crate) fn login_needed(&self) -> PullError {
        PullError::LoginNeeded {
            host: self.host.clone(),
            repository: self.repository.clone(),
            registry: self.registry.clone(),
        }
    }
}

/// What is known of how to authenticate, for one host.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// What the host wants, by repository.
    challenges: Mutex<HashMap<String, Challenge>>,
    tokens: Mutex<HashMap<TokenKey, Token>>,
    /// Held by who gets a token, so that those who want it too wait for that one.
    getting: Mutex<()>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    realm: String,
    service: String,
    scope: String,
}

#[derive(Debug, Clone)]
struct Token {
    header: Secret,
    until: Instant,
}

impl Known {
    /// Takes in what a host answered who refused a request.
    pub(crate) fn learn(&self, repository: &str, challenges: Vec<Challenge>) -> bool {
        // A token says less than a password.
        let bearer = |c: &&Challenge| matches!(c, Challenge::Bearer { .. });
        let Some(best) = challenges.iter().find(bearer).or(challenges.first()) else {
            return false;
        };
        let mut known = self
            .challenges
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.insert(repository.to_owned(), best.clone());
        true
    }

    /// Forgets tokens that were refused.
    pub(crate) fn forget(&self, refused: &Secret) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, token| token.header != *refused);
    }

    /// The header for a request, as far as the host has said that it wants one.
    pub(crate) fn header(
        &self,
        network: &Network,
        subject: &Subject,
    ) -> Result<Option<Secret>, PullError> {
        let challenge = {
            let known = self
                .challenges
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            known.get(&subject.repository).cloned()
        };
        let login = || {
            network
                .config()
                .credentials
                .find(&subject.registry, &subject.repository)
        };
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => match login()? {
                Some(Login::Password { user, password }) => Ok(Some(basic(&user, &password))),
                // A token for tokens is no password.
                _ => Err(subject.login_needed()),
            },
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let own = || match subject.repository.as_str() {
                    // Only whether it is the right password.
                    "" => String::new(),
                    name => format!("repository:{name}:pull"),
                };
                let key = TokenKey {
                    realm,
                    service,
                    scope: scope.unwrap_or_else(own),
                };
                let _getting = self.getting.lock().unwrap_or_else(PoisonError::into_inner);
                let found = {
                    let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
                    tokens.get(&key).cloned()
                };
                if let Some(token) = found
                    && Instant::now() < token.until
                {
                    return Ok(Some(token.header));
                }
                let token = fetch(network, subject, &key, login()?)?;
                let header = token.header.clone();
                let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
                tokens.insert(key, token);
                Ok(Some(header))
            }
        }
    }
}

pub(crate) fn basic(user: &str, password: &Secret) -> Secret {
    let pair = format!("{user}:{}", password.reveal());
    Secret::new(format!("Basic {}", BASE64_STANDARD.encode(pair)))
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Gets a token where the registry says that they are.
fn fetch(
    network: &Network,
    subject: &Subject,
    key: &TokenKey,
    login: Option<Login>,
) -> Result<Token, PullError> {
    let realm = realm(network, subject, &key.realm)?;
    let asked = Instant::now();
    let answer = match &login {
        Some(Login::IdentityToken(token)) => {
            let form = format!(
                "grant_type=refresh_token&client_id={CLIENT_ID}&service={}&scope={}&refresh_token={}",
                encode(&key.service),
                encode(&key.scope),
                encode(token.reveal()),
            );
            network.post(&realm, &Secret::new(form))?
        }
        _ => {
            let mut query = format!("client_id={CLIENT_ID}");
            if !key.scope.is_empty() {
                query = format!("scope={}&{query}", encode(&key.scope));
            }
            if !key.service.is_empty() {
                query = format!("service={}&{query}", encode(&key.service));
            }
            let separator = if realm.query().is_some() { '&' } else { '?' };
            let address = format!("{realm}{separator}{query}");
            let address = address.parse().map_err(|_| PullError::Realm {
                host: subject.host.clone(),
                realm: shown(&realm),
                reason: "it cannot be asked for a token",
            })?;
            let header = match &login {
                Some(Login::Password { user, password }) => Some(basic(user, password)),
                _ => None,
            };
            network.get(&address, &[("accept", "application/json")], header.as_ref())?
        }
    };
    let host = answer.host.clone();
    let status = answer.response.status().as_u16();
    if matches!(status, 400 | 401 | 403) {
        return Err(match login {
            None => subject.login_needed(),
            Some(_) => PullError::Denied {
                host,
                registry: subject.registry.clone(),
                status,
                message: String::new(),
            },
        });
    }
    if status != 200 {
        return Err(of_status(answer, "a token".into()));
    }
    let invalid = |reason: String| PullError::Answer {
        host: host.clone(),
        what: "a token",
        reason,
    };
    let mut bytes = Vec::new();
    let body = answer.response.into_body().into_reader();
    body.take(MAX_TOKEN_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| network.broken(host.clone(), &error))?;
    // What serde says of it may quote it.
    let answer: TokenAnswer =
        serde_json::from_slice(&bytes).map_err(|_| invalid("it is not JSON".into()))?;
    let found = [answer.token, answer.access_token].into_iter().flatten();
    let token = found.into_iter().find(|token| !token.is_empty());
    let token = token.ok_or_else(|| invalid("there is no token in it".into()))?;
    if !token.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
        return Err(invalid("it has characters that no header takes".into()));
    }
    let lifetime = answer
        .expires_in
        .map_or(DEFAULT_LIFETIME, Duration::from_secs);
    Ok(Token {
        header: Secret::new(format!("Bearer {token}")),
        until: asked + lifetime.clamp(DEFAULT_LIFETIME, MAX_LIFETIME),
    })
}

/// The place where tokens are, if a password may be sent there.
fn realm(network: &Network, subject: &Subject, realm: &str) -> Result<Uri, PullError> {
    let refused = |reason| PullError::Realm {
        host: subject.host.clone(),
        realm: show(realm.split('?').next().unwrap_or_default()),
        reason,
    };
    let address: Uri = realm.parse().map_err(|_| refused("that is no address"))?;
    let host = authority(&address);
    match scheme(&address) {
        "https" => Ok(address),
        // What is sent to the registry without TLS may be sent so here, too.
        "http" if network.may_be_plain(&host) && network.may_be_plain(&subject.host) => Ok(address),
        "http" => Err(refused("that has no TLS")),
        _ => Err(refused("only https is asked")),
    }
}

/// Percent-encodes all but what needs no encoding anywhere (RFC 3986 §2.3).
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
