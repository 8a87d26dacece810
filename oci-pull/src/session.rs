//! Logging in and out: credentials that a registry accepts, kept where Docker keeps them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use crate::config::ClientConfig;
use crate::credentials::{MAX_FILE_BYTES, server_name};
use crate::error::PullError;
use crate::helper::{self, Helpers};
use crate::host::Endpoint;
use crate::login::Login;
use crate::network::Network;
use crate::secret::Secret;

/// Where a login was kept, or removed from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// In this file, which says it to everyone who can read it.
    File(PathBuf),
    /// By this credential helper.
    Helper(String),
    /// Nowhere: nothing was known of that registry.
    Nowhere,
}

/// Asks a registry whether it accepts a name and a password, and keeps them in the first
/// of the files of `config`, or with the credential helper that it names.
///
/// # Errors
/// [`PullError::Denied`] or [`PullError::LoginNeeded`] if the registry does not accept
/// them; what else pulling fails with; [`PullError::File`] and [`PullError::Helper`] if
/// they cannot be kept.
pub fn login(
    config: &ClientConfig,
    registry: &str,
    user: &str,
    password: &Secret,
) -> Result<Kept, PullError> {
    let registry = checked(registry)?;
    let mut asking = config.clone();
    asking.credentials.only = Some(Login::of(user, password.reveal()));
    let network = Network::new(asking);
    Endpoint::registry(&registry, "")
        .get(&network, "", &[], "a login", &[200])
        .map(drop)?;
    let path = file(config)?;
    let mut document = read(path)?;
    if let Some(name) = helper_of(&document, &registry) {
        let entry = json!({
            "ServerURL": server_name(&registry), "Username": user, "Secret": password.reveal(),
        });
        ask(config, &name, "store", &entry.to_string())?;
        return Ok(Kept::Helper(name));
    }
    let pair = BASE64_STANDARD.encode(format!("{user}:{}", password.reveal()));
    let auths = document.entry("auths").or_insert_with(|| json!({}));
    let Some(auths) = auths.as_object_mut() else {
        return Err(wrong(path, "its `auths` is no object"));
    };
    auths.insert(server_name(&registry).to_owned(), json!({ "auth": pair }));
    write(path, document)?;
    Ok(Kept::File(path.to_owned()))
}

/// Forgets what is known of a registry in the first of the files of `config`, and with
/// its credential helper.
///
/// # Errors
/// [`PullError::File`] and [`PullError::Helper`] if that cannot be done.
pub fn logout(config: &ClientConfig, registry: &str) -> Result<Kept, PullError> {
    let registry = checked(registry)?;
    let path = file(config)?;
    let mut document = read(path)?;
    if let Some(name) = helper_of(&document, &registry) {
        ask(config, &name, "erase", server_name(&registry))?;
        return Ok(Kept::Helper(name));
    }
    let auths = document.get_mut("auths").and_then(Value::as_object_mut);
    let names = [registry.as_str(), server_name(&registry)];
    let removed = auths.is_some_and(|auths| {
        let found = names.map(|name| auths.remove(name).is_some());
        found.contains(&true)
    });
    if !removed {
        return Ok(Kept::Nowhere);
    }
    write(path, document)?;
    Ok(Kept::File(path.to_owned()))
}

/// A registry by the name that images have it by.
fn checked(registry: &str) -> Result<String, PullError> {
    // As in the name of an image there.
    let image = format!("{registry}/x");
    let invalid = || PullError::Setting {
        what: "the registry",
        value: registry.to_owned(),
        reason: "is no HOST[:PORT]; correct it",
    };
    let reference = supermachine_oci_bake::Reference::parse(&image).map_err(|_| invalid())?;
    let name = reference.registry_name().ok_or_else(invalid)?;
    // A word is the user of an image on Docker Hub.
    let is_host = name.repository() == "x" || name.repository() == "library/x";
    is_host
        .then(|| name.registry().to_owned())
        .ok_or_else(invalid)
}

fn file(config: &ClientConfig) -> Result<&Path, PullError> {
    let first = config.credentials.files.first();
    first.map(PathBuf::as_path).ok_or(PullError::Setting {
        what: "the place for credentials",
        value: String::new(),
        reason: "is not known; set DOCKER_CONFIG to a directory",
    })
}

fn wrong(path: &Path, reason: impl ToString) -> PullError {
    PullError::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// All that is in the file, known here or not.
fn read(path: &Path) -> Result<Map<String, Value>, PullError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(wrong(path, error)),
        Ok(found) if !found.is_file() || found.len() > MAX_FILE_BYTES => {
            return Err(wrong(path, "it is no file of a reasonable size"));
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(|error| wrong(path, error))?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes).map_err(|_| wrong(path, "it is no JSON object"))
}

/// Written beside it and renamed; for the user's eyes only.
fn write(path: &Path, document: Map<String, Value>) -> Result<(), PullError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(|error| wrong(directory, error))?;
    // The file itself, should the name be a link to it.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let temporary = target.with_extension(format!("{}.tmp", std::process::id()));
    let text = serde_json::to_string_pretty(&Value::Object(document)).unwrap_or_default();
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, &target));
    written.map_err(|error| {
        // There is no one to tell.
        let _ = fs::remove_file(&temporary);
        wrong(path, error)
    })
}

fn helper_of(document: &Map<String, Value>, registry: &str) -> Option<String> {
    let own = document
        .get("credHelpers")
        .and_then(|helpers| helpers.get(registry));
    let name = own.or_else(|| document.get("credsStore"))?.as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn ask(config: &ClientConfig, name: &str, action: &str, input: &str) -> Result<(), PullError> {
    let credentials = &config.credentials;
    let helpers = Helpers {
        directories: &credentials.helper_directories,
        timeout: credentials.helper_timeout,
    };
    match helper::ask(helpers, name, action, input)? {
        (_, true) => Ok(()),
        (_, false) => Err(PullError::Helper {
            program: name.to_owned(),
            reason: format!("could not {action} the credentials"),
        }),
    }
}
