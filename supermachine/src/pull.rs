//! Images by their references: from files, and from registries.

use crate::Error;
use oci_bake::{BakeOptions, BakedImage, Reference, Store, bake};
#[cfg(feature = "pull")]
use std::io::Read;
#[cfg(feature = "pull")]
use std::path::Path;
use std::path::PathBuf;

/// When the registry is asked for an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PullPolicy {
    /// Each time, so that a tag means what it means there now. Only what is new comes
    /// over the network.
    Always,
    /// If the image, or a part of it, is not here.
    #[default]
    Missing,
    /// Never: an image that is not here is an error.
    Never,
}

/// How an image gets here.
#[derive(Clone, Debug, Default)]
#[cfg_attr(
    not(feature = "pull"),
    allow(dead_code, reason = "without registries there is nothing to ask")
)]
pub(crate) struct Fetch {
    pub(crate) policy: PullPolicy,
    /// Registries that may do without TLS, beside those that the environment names.
    pub(crate) insecure: Vec<String>,
    /// File of the key that images must be signed by.
    pub(crate) verify_key: Option<PathBuf>,
}

impl Fetch {
    /// The image that `reference` names, baked into `store`.
    pub(crate) fn bake(
        &self,
        reference: &Reference,
        options: &BakeOptions,
        store: &Store,
    ) -> Result<BakedImage, Error> {
        #[cfg(feature = "pull")]
        let is_of_engine = reference.engine_name().is_some()
            || reference.registry_name().is_some() && names_are_of_engine()?;
        #[cfg(not(feature = "pull"))]
        let is_of_engine = true;
        if self.verify_key.is_some() && (is_of_engine || reference.registry_name().is_none()) {
            return Err(Error::Unsuitable {
                what: "a key to verify an image by",
                needs: "an image in a registry, where its signature is: name one, or leave \
                        the key out",
            });
        }
        #[cfg(feature = "pull")]
        {
            if let Some(name) = reference.engine_name() {
                return in_engine(name, options, store);
            }
            if let Some(name) = reference.registry_name() {
                return match is_of_engine {
                    true => in_engine(&name.to_string(), options, store),
                    false => self.pull(name, options, store),
                };
            }
        }
        Ok(bake(reference, options, store)?)
    }

    #[cfg(feature = "pull")]
    fn pull(
        &self,
        name: &oci_bake::RegistryName,
        options: &BakeOptions,
        store: &Store,
    ) -> Result<BakedImage, Error> {
        let mut config = oci_pull::ClientConfig::from_environment()?;
        config.insecure.extend(self.insecure.iter().cloned());
        config.cancel = options.cancel.clone();
        config.verify_key = match &self.verify_key {
            Some(path) => Some(key_in(path)?),
            None => None,
        };
        let policy = match self.policy {
            PullPolicy::Always => oci_pull::PullPolicy::Always,
            PullPolicy::Missing => oci_pull::PullPolicy::Missing,
            PullPolicy::Never => oci_pull::PullPolicy::Never,
        };
        let pulled = oci_pull::Client::new(config).pull(name, policy, options, store);
        pulled.map_err(of_pull)
    }
}

/// Longest file of a public key.
#[cfg(feature = "pull")]
const MAX_KEY_BYTES: u64 = 64 << 10;

#[cfg(feature = "pull")]
fn key_in(path: &Path) -> Result<oci_pull::VerifyKey, Error> {
    let failed = || Error::host("cannot read the key", path);
    let file = std::fs::File::open(path).map_err(failed())?;
    let mut text = String::new();
    let mut file = file.take(MAX_KEY_BYTES);
    file.read_to_string(&mut text).map_err(failed())?;
    Ok(oci_pull::VerifyKey::from_pem(&text)?)
}

#[cfg(feature = "pull")]
fn of_pull(error: oci_bake::BakeError) -> Error {
    match oci_pull::PullError::of(error) {
        Ok(error) => error.into(),
        Err(error) => error.into(),
    }
}

/// The image that a container engine of this machine has under a name.
#[cfg(feature = "pull")]
fn in_engine(name: &str, options: &BakeOptions, store: &Store) -> Result<BakedImage, Error> {
    let engine = oci_pull::ContainerEngine::from_environment()?;
    engine.bake(name, options, store).map_err(of_pull)
}

/// Whether a name without a scheme is that of an image of a container engine, as
/// `SUPERMACHINE_IMAGE_SOURCE=docker` says.
#[cfg(feature = "pull")]
fn names_are_of_engine() -> Result<bool, Error> {
    let source = std::env::var_os("SUPERMACHINE_IMAGE_SOURCE").unwrap_or_default();
    match source.as_encoded_bytes() {
        b"docker" => Ok(true),
        b"" | b"registry" => Ok(false),
        _ => Err(Error::Unsuitable {
            what: "SUPERMACHINE_IMAGE_SOURCE",
            needs: "docker or registry: set it to one of them",
        }),
    }
}
