//! An image in a registry as a source for baking.

use std::io::Read;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use supermachine_oci_bake::{
    BakeError, BakeOptions, BakedImage, BlobSource, Descriptor, Digest, ImageError, RegistryName,
    Store, bake_from,
};
use tracing::debug;
use ureq::http::header::CONTENT_TYPE;

use crate::blob::Blob;
use crate::config::ClientConfig;
use crate::error::PullError;
use crate::host::Endpoint;
use crate::key::VerifyKey;
use crate::network::Network;
use crate::verify;
use crate::watch::Watch;

/// Most bytes of a manifest or an index, which registries are told to take at least.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// When the registry is asked although the image is here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PullPolicy {
    /// Each time: a tag means what it means there now. Layers that are here are not
    /// got again.
    Always,
    /// Only for what is not here.
    #[default]
    Missing,
    /// Never.
    Never,
}

/// Gets images from registries: any number of them, each with connections of its own.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
}

impl Client {
    /// A client that nobody has talked to yet.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self { config }
    }

    /// Bakes the image called `name` into `store`, with what is there already, and
    /// remembers there what it is. Ended by the `cancel` of this client's configuration,
    /// and that of `options`.
    ///
    /// # Errors
    /// As [`bake_from`]; the cause of [`ImageError::Source`] is a [`PullError`].
    pub fn pull(
        &self,
        name: &RegistryName,
        policy: PullPolicy,
        options: &BakeOptions,
        store: &Store,
    ) -> Result<BakedImage, BakeError> {
        let image = self.image(name, policy, store)?;
        let _watch = Watch::new(&image.network, &options.cancel);
        let signatures = match &self.config.verify_key {
            Some(key) => Some(verified(name, &image, key)?),
            None => None,
        };
        let baked = bake_from(&image, options, store)?;
        image.remember();
        if let Some(signatures) = signatures {
            signatures.remember();
        }
        Ok(baked)
    }

    /// The image called `name`, as a source. Nothing is asked yet.
    ///
    /// # Errors
    /// [`ImageError::Source`] if a mirror's address makes no sense.
    pub fn image<'a>(
        &self,
        name: &RegistryName,
        policy: PullPolicy,
        store: &'a Store,
    ) -> Result<RemoteImage<'a>, ImageError> {
        let network = Arc::new(Network::new(self.config.clone()));
        RemoteImage::new(network, name, policy, store)
    }
}

/// Refuses an image that the key has not signed; gives where its signatures are.
fn verified<'a>(
    name: &RegistryName,
    image: &RemoteImage<'a>,
    key: &VerifyKey,
) -> Result<RemoteImage<'a>, ImageError> {
    // What is baked is this, whatever the name leads to by then.
    let roots = image.roots()?;
    let root = roots.first().ok_or(ImageError::NoImage)?;
    let signatures = verify::signatures_of(name, &root.digest).map_err(source)?;
    let signatures = image.beside(&signatures)?;
    let none = || {
        let reason = "there is no signature beside it";
        source(verify::unverified(name, &root.digest, reason))
    };
    let lists = signatures.roots().map_err(|error| match error {
        ImageError::Source(cause)
            if matches!(
                cause.downcast_ref::<PullError>(),
                Some(PullError::NotFound { .. } | PullError::NotHere { .. })
            ) =>
        {
            none()
        }
        error => error,
    })?;
    let list = lists.first().ok_or_else(none)?;
    let list = signatures.document(list).map_err(source)?;
    let get = |blob: &Descriptor| signatures.document(blob);
    verify::check((name, &root.digest), key, &list, &get).map_err(source)?;
    debug!(image = %name, digest = %root.digest, "the key has signed it");
    Ok(signatures)
}

/// An image in a registry; see [`Client::image`].
#[derive(Debug)]
pub struct RemoteImage<'a> {
    network: Arc<Network>,
    name: RegistryName,
    policy: PullPolicy,
    store: &'a Store,
    /// Mirrors, and the registry itself.
    endpoints: Vec<Endpoint>,
    /// What the name leads to, once that is known.
    root: OnceLock<Descriptor>,
}

impl<'a> RemoteImage<'a> {
    fn new(
        network: Arc<Network>,
        name: &RegistryName,
        policy: PullPolicy,
        store: &'a Store,
    ) -> Result<Self, ImageError> {
        let registry = name.registry();
        let mut endpoints = Vec::new();
        for (of, mirror) in &network.config().mirrors {
            if of.eq_ignore_ascii_case(registry) {
                endpoints.push(Endpoint::mirror(mirror, name.repository()).map_err(source)?);
            }
        }
        endpoints.push(Endpoint::registry(registry, name.repository()));
        Ok(Self {
            network,
            name: name.clone(),
            policy,
            store,
            endpoints,
            root: OnceLock::new(),
        })
    }

    /// Another image, by the same connections.
    fn beside(&self, name: &RegistryName) -> Result<Self, ImageError> {
        Self::new(Arc::clone(&self.network), name, self.policy, self.store)
    }

    /// Remembers what the name led to, for those who do not ask.
    fn remember(&self) {
        let Some(root) = self.root.get() else { return };
        if self.policy == PullPolicy::Never {
            return;
        }
        // Without it the registry is asked again.
        if let Err(error) = self.store.remember(&self.name.to_string(), root) {
            debug!("cannot remember what {} is: {error}", self.name);
        }
    }

    fn remembered(&self) -> Option<Descriptor> {
        let root = self.store.remembered(&self.name.to_string())?;
        let is_meant = self
            .name
            .digest()
            .is_none_or(|digest| *digest == root.digest);
        (is_meant && root.is_image() && self.store.document(&root).is_some()).then_some(root)
    }

    fn not_here(&self) -> PullError {
        PullError::NotHere {
            name: self.name.to_string(),
        }
    }

    /// The manifest or index that the name leads to, from the first endpoint that has
    /// it.
    fn ask(&self) -> Result<Descriptor, PullError> {
        let which = match (self.name.digest(), self.name.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let (media_type, bytes) = self.manifest(&which)?;
        let digest = match self.name.digest() {
            // Whether it has that is found out by whoever reads it.
            Some(digest) => digest.clone(),
            None => Digest::sha256_of(&bytes),
        };
        self.keep(&digest, &bytes);
        let root = Descriptor::new(media_type, digest, bytes.len() as u64);
        debug!(image = %self.name, digest = %root.digest, "the registry has it");
        Ok(root)
    }

    fn keep(&self, digest: &Digest, bytes: &[u8]) {
        // Without it the registry is asked again.
        if let Err(error) = self.store.keep_document(digest, bytes) {
            debug!("cannot keep {digest}: {error}");
        }
    }

    /// A manifest or index by tag or digest, with its media type.
    fn manifest(&self, which: &str) -> Result<(String, Vec<u8>), PullError> {
        const WHAT: &str = "a manifest";
        let accept = Descriptor::IMAGE_TYPES.join(", ");
        self.first(|endpoint| {
            let path = format!("{}/manifests/{which}", endpoint.repository());
            let what = format!("image {}:{which}", endpoint.repository());
            let headers = [("accept", accept.as_str())];
            let answer = endpoint.get(&self.network, &path, &headers, &what, &[200])?;
            let host = answer.host.clone();
            let kind = answer.response.headers().get(CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
            let mut bytes = Vec::new();
            let body = answer.response.into_body().into_reader();
            body.take(MAX_MANIFEST_BYTES + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| self.network.broken(host.clone(), &error))?;
            if bytes.len() as u64 > MAX_MANIFEST_BYTES {
                return Err(PullError::TooLarge {
                    host,
                    what: WHAT,
                    limit: MAX_MANIFEST_BYTES,
                });
            }
            match media_type(&kind, &bytes) {
                Some(media_type) => Ok((media_type, bytes)),
                None => Err(PullError::Answer {
                    host,
                    what: WHAT,
                    reason: format!("it is `{}`", crate::error::show(&kind)),
                }),
            }
        })
    }

    /// The answer of the first endpoint that has one.
    fn first<T>(&self, ask: impl Fn(&Endpoint) -> Result<T, PullError>) -> Result<T, PullError> {
        let mut endpoints = self.endpoints.iter();
        let last = endpoints.next_back();
        for endpoint in endpoints {
            match ask(endpoint) {
                Err(error) if !error.is_final() => {
                    tracing::warn!("trying another registry: {error}");
                }
                done => return done,
            }
        }
        match last {
            Some(endpoint) => ask(endpoint),
            None => Err(self.not_here()),
        }
    }

    /// A document that may be here.
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PullError> {
        if let Some(bytes) = self.store.document(descriptor) {
            return Ok(bytes);
        }
        if self.policy == PullPolicy::Never {
            return Err(self.not_here());
        }
        let bytes = match descriptor.is_image() {
            true => self.manifest(&descriptor.digest.to_string())?.1,
            false => {
                let mut bytes = Vec::new();
                let host = || self.name.registry().to_owned();
                // The caller knows how long it may be.
                Blob::open(&self.network, &self.endpoints, descriptor, 0)?
                    .take(descriptor.size.saturating_add(1))
                    .read_to_end(&mut bytes)
                    .map_err(|error| match error.downcast::<PullError>() {
                        Ok(error) => error,
                        Err(error) => self.network.broken(host(), &error),
                    })?;
                bytes
            }
        };
        self.keep(&descriptor.digest, &bytes);
        Ok(bytes)
    }
}

impl BlobSource for RemoteImage<'_> {
    fn roots(&self) -> Result<Vec<Descriptor>, ImageError> {
        if let Some(root) = self.root.get() {
            return Ok(vec![root.clone()]);
        }
        let remembered = match self.policy {
            PullPolicy::Always => None,
            PullPolicy::Missing | PullPolicy::Never => self.remembered(),
        };
        let root = match (remembered, self.policy) {
            (Some(root), _) => root,
            (None, PullPolicy::Never) => return Err(source(self.not_here())),
            (None, _) => self.ask().map_err(source)?,
        };
        Ok(vec![self.root.get_or_init(|| root).clone()])
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + '_>, ImageError> {
        if blob.is_document() {
            let bytes = self.document(blob).map_err(source)?;
            return Ok(Box::new(std::io::Cursor::new(bytes)));
        }
        self.open_at(blob, 0)
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn open_at(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + '_>, ImageError> {
        if self.policy == PullPolicy::Never {
            return Err(source(self.not_here()));
        }
        let blob = Blob::open(&self.network, &self.endpoints, blob, offset).map_err(source)?;
        Ok(Box::new(blob))
    }

    fn abandon(&self) {
        self.network.shut_down();
    }
}

fn source(error: PullError) -> ImageError {
    ImageError::Source(Box::new(error))
}

/// What a manifest is: as the registry says, or as it says itself where the registry
/// says nothing.
fn media_type(declared: &str, bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Itself {
        #[serde(default)]
        media_type: Option<String>,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
    }
    if Descriptor::IMAGE_TYPES.contains(&declared) {
        return Some(declared.to_owned());
    }
    if ![
        "",
        "application/json",
        "application/octet-stream",
        "text/plain",
    ]
    .contains(&declared)
    {
        // Schema 1 and artifacts of other kinds, which baking names; a page of the
        // network's owner is none of them.
        let is_manifest = declared.starts_with("application/vnd.");
        return is_manifest.then(|| declared.to_owned());
    }
    let itself: Itself = serde_json::from_slice(bytes).ok()?;
    let [manifest, index, ..] = Descriptor::IMAGE_TYPES;
    Some(itself.media_type.unwrap_or_else(|| match itself.manifests {
        Some(_) => index.to_owned(),
        None => manifest.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_what_the_registry_or_it_itself_says() {
        let [manifest, index, docker, _] = Descriptor::IMAGE_TYPES;
        let itself = format!(r#"{{"mediaType":"{docker}"}}"#);
        for (declared, bytes, found) in [
            (index, "{}", Some(index)),
            ("application/json", itself.as_str(), Some(docker)),
            ("", "{\"manifests\":[]}", Some(index)),
            ("text/plain", "{}", Some(manifest)),
            ("text/html", "{}", None),
            ("", "<html>", None),
            (
                "application/vnd.docker.distribution.manifest.v1+json",
                "{}",
                Some("application/vnd.docker.distribution.manifest.v1+json"),
            ),
        ] {
            assert_eq!(
                media_type(declared, bytes.as_bytes()).as_deref(),
                found,
                "{declared} {bytes}"
            );
        }
    }
}
