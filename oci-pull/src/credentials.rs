//! Names and passwords, from where Docker and podman keep them.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;

use crate::error::PullError;
use crate::helper::{self, Helpers};
use crate::login::Login;
use crate::secret::Secret;

/// Names under which credentials for Docker Hub are kept; the first is what helpers
/// are asked for.
const DOCKER_HUB_NAMES: [&str; 4] = [
    "https://index.docker.io/v1/",
    "docker.io",
    "index.docker.io",
    "registry-1.docker.io",
];
const DOCKER_HUB: &str = "docker.io";
/// Largest file with credentials that is read.
pub(crate) const MAX_FILE_BYTES: u64 = 4 << 20;

/// Where credentials are looked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Credentials {
    /// Files in the form of Docker's `config.json`, the first that knows a registry
    /// counts.
    pub files: Vec<PathBuf>,
    /// Directories with `docker-credential-NAME`, before those of `PATH`.
    pub helper_directories: Vec<PathBuf>,
    /// Longest time a credential helper may take: some ask the user.
    pub helper_timeout: Duration,
    /// Counts instead of all that is anywhere, for every registry.
    pub only: Option<Login>,
}

impl Default for Credentials {
    /// None.
    fn default() -> Self {
        Self {
            files: Vec::new(),
            helper_directories: Vec::new(),
            helper_timeout: Duration::from_secs(120),
            only: None,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigFile {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Auth {
    #[serde(default)]
    auth: Option<Secret64>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<Secret64>,
    #[serde(default)]
    identitytoken: Option<Secret64>,
}

/// A secret in a document.
#[derive(Deserialize)]
#[serde(transparent)]
struct Secret64(String);

impl std::fmt::Debug for Secret64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hidden")
    }
}

impl Credentials {
    /// Docker's `config.json` (in `DOCKER_CONFIG` or `~/.docker`), then podman's
    /// `auth.json` (`REGISTRY_AUTH_FILE`, or in `XDG_RUNTIME_DIR` or `~/.config`).
    #[must_use]
    pub fn from_environment() -> Self {
        let path = |name: &str| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty());
            value.map(PathBuf::from)
        };
        let home = std::env::home_dir();
        let docker =
            path("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
        let runtime = path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
        let config = path("XDG_CONFIG_HOME").or_else(|| home.map(|home| home.join(".config")));
        let files = [
            docker.map(|dir| dir.join("config.json")),
            path("REGISTRY_AUTH_FILE"),
            runtime,
            config.map(|dir| dir.join("containers/auth.json")),
        ];
        Self {
            files: files.into_iter().flatten().collect(),
            ..Self::default()
        }
    }

    /// The credentials for a repository, if there are any.
    ///
    /// # Errors
    /// [`PullError::File`] if a file is no such file, [`PullError::Helper`] if a
    /// credential helper fails otherwise than by knowing nothing.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Login>, PullError> {
        if self.only.is_some() {
            return Ok(self.only.clone());
        }
        for path in &self.files {
            let Some(file) = read(path)? else { continue };
            if let Some(login) = self.find_in(&file, path, registry, repository)? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    fn find_in(
        &self,
        file: &ConfigFile,
        path: &std::path::Path,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Login>, PullError> {
        let names = names(registry, repository);
        let own_helper = names.iter().find_map(|name| file.cred_helpers.get(name));
        if let Some(helper) = own_helper.or(file.creds_store.as_ref()) {
            let helpers = Helpers {
                directories: &self.helper_directories,
                timeout: self.helper_timeout,
            };
            let servers: &[&str] = match registry {
                DOCKER_HUB => &DOCKER_HUB_NAMES[..2],
                other => &[other],
            };
            for server in servers {
                if let Some(login) = helper::get(helpers, helper, server)? {
                    return Ok(Some(login));
                }
            }
        }
        let found = names.iter().find_map(|name| file.auths.get(name));
        match found {
            Some(auth) => of_auth(auth).map_err(|reason| PullError::File {
                path: path.to_owned(),
                reason: format!("{reason} for {registry}"),
            }),
            None => Ok(None),
        }
    }
}

fn read(path: &std::path::Path) -> Result<Option<ConfigFile>, PullError> {
    let wrong = |reason: String| PullError::File {
        path: path.to_owned(),
        reason,
    };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
        Ok(found) if !found.is_file() || found.len() > MAX_FILE_BYTES => {
            return Err(wrong("it is no file of a reasonable size".into()));
        }
        Ok(_) => {}
    }
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    // The error's text may quote what it found.
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| {
        wrong(format!(
            "line {} is not what it should be there",
            error.line()
        ))
    })
}

/// The name under which a registry's credentials are kept.
pub(crate) fn server_name(registry: &str) -> &str {
    match registry {
        DOCKER_HUB => DOCKER_HUB_NAMES[0],
        other => other,
    }
}

/// Keys that mean a repository, the nearest first.
fn names(registry: &str, repository: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut path = format!("{registry}/{repository}");
    while path.len() > registry.len() {
        names.push(path.clone());
        path.truncate(path.rfind('/').unwrap_or(0));
    }
    match registry {
        DOCKER_HUB => names.extend(DOCKER_HUB_NAMES.map(str::to_owned)),
        other => names.push(other.to_owned()),
    }
    for scheme in ["https://", "http://"] {
        for end in ["", "/", "/v1/", "/v2/"] {
            names.push(format!("{scheme}{registry}{end}"));
        }
    }
    names
}

fn of_auth(auth: &Auth) -> Result<Option<Login>, &'static str> {
    if let Some(token) = auth
        .identitytoken
        .as_ref()
        .filter(|token| !token.0.is_empty())
    {
        return Ok(Some(Login::IdentityToken(Secret::new(&token.0))));
    }
    if let (Some(user), Some(password)) = (&auth.username, &auth.password) {
        return Ok(Some(Login::Password {
            user: user.clone(),
            password: Secret::new(&password.0),
        }));
    }
    let Some(pair) = auth.auth.as_ref().filter(|pair| !pair.0.is_empty()) else {
        return Ok(None);
    };
    let bytes = BASE64_STANDARD
        .decode(&pair.0)
        .map_err(|_| "`auth` is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "`auth` is not text")?;
    let (user, password) = text.split_once(':').ok_or("`auth` has no colon in it")?;
    Ok(Some(Login::of(user, password.trim_end_matches('\0'))))
}
