//! Images by their references: from files, and from registries.

use crate::Error;
use oci_bake::{BakeOptions, BakedImage, Reference, Store, bake};

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
        if let Some(name) = reference.registry_name() {
            return self.pull(name, options, store);
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
        let policy = match self.policy {
            PullPolicy::Always => oci_pull::PullPolicy::Always,
            PullPolicy::Missing => oci_pull::PullPolicy::Missing,
            PullPolicy::Never => oci_pull::PullPolicy::Never,
        };
        let pulled = oci_pull::Client::new(config).pull(name, policy, options, store);
        pulled.map_err(|error| match oci_pull::PullError::of(error) {
            Ok(error) => error.into(),
            Err(error) => error.into(),
        })
    }
}
