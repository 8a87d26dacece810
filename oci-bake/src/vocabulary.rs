//! Documents and names in the types of [`oci_spec`], which other tools speak, with the
//! feature `oci-spec`.
//!
//! A document is read strictly first, as one that is baked: what could be read in two ways,
//! or has a digest or size that is none, is an error here, although [`oci_spec`] would take
//! it. Then it becomes that crate's type, with every field that it has.
//!
//! ```
//! use supermachine_oci_bake::vocabulary;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hex = "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c";
//! let document = format!(
//!     r#"{{"schemaVersion": 2, "manifests": [{{
//!         "mediaType": "application/vnd.oci.image.manifest.v1+json",
//!         "digest": "sha256:{hex}", "size": 7,
//!         "platform": {{"os": "linux", "architecture": "arm64"}}
//!     }}]}}"#
//! );
//! let index = vocabulary::index(document.as_bytes(), None)?;
//! assert_eq!(index.manifests()[0].size(), 7);
//! # Ok(())
//! # }
//! ```

use crate::document::{Descriptor, parse_index, parse_manifest};
use crate::{Digest, ImageConfig, ImageError, Platform, RegistryName};
use oci_spec::image as spec;
use serde::de::DeserializeOwned;
use std::collections::HashMap;

pub use oci_spec;

fn read<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::InvalidDocument { what, source })
}

/// Reads a manifest; `media_type` is what led to it.
///
/// # Errors
/// [`ImageError`] for what is no manifest, and for what another program could take for
/// something else.
pub fn manifest(bytes: &[u8], media_type: &str) -> Result<spec::ImageManifest, ImageError> {
    let strict = parse_manifest(bytes, media_type)?;
    for layer in &strict.layers {
        layer.layer_format()?;
    }
    read(bytes, "the image manifest")
}

/// Reads an index; `media_type` is what led to it, if something did.
///
/// # Errors
/// As [`manifest`].
pub fn index(bytes: &[u8], media_type: Option<&str>) -> Result<spec::ImageIndex, ImageError> {
    parse_index(bytes, media_type)?;
    read(bytes, "the image index")
}

/// Reads the config of an image.
///
/// # Errors
/// [`ImageError`] for what is no config, and for one that no machine could run.
pub fn configuration(bytes: &[u8]) -> Result<spec::ImageConfiguration, ImageError> {
    crate::config::parse(bytes)?;
    read(bytes, "the image config")
}

/// Ours are of algorithms that theirs has, with digests of the right length.
impl TryFrom<&Digest> for spec::Digest {
    type Error = oci_spec::OciSpecError;

    fn try_from(digest: &Digest) -> Result<Self, Self::Error> {
        digest.to_string().parse()
    }
}

/// Fails for algorithms that are not read here.
impl TryFrom<&spec::Digest> for Digest {
    type Error = ImageError;

    fn try_from(digest: &spec::Digest) -> Result<Self, ImageError> {
        Ok(digest.to_string().parse::<Self>()?)
    }
}

impl From<&Platform> for spec::Platform {
    fn from(platform: &Platform) -> Self {
        let mut theirs = Self::default();
        theirs.set_os(platform.os.as_str().into());
        theirs.set_architecture(platform.architecture.as_str().into());
        theirs.set_variant(platform.variant.clone());
        theirs
    }
}

impl From<&spec::Platform> for Platform {
    fn from(platform: &spec::Platform) -> Self {
        let mut ours = Self::new(
            platform.os().to_string(),
            platform.architecture().to_string(),
        );
        ours.variant.clone_from(platform.variant());
        ours
    }
}

impl TryFrom<&Descriptor> for spec::Descriptor {
    type Error = oci_spec::OciSpecError;

    fn try_from(descriptor: &Descriptor) -> Result<Self, Self::Error> {
        let digest = spec::Digest::try_from(&descriptor.digest)?;
        let kind = descriptor.media_type.as_str().into();
        let mut theirs = Self::new(kind, descriptor.size, digest);
        theirs.set_platform(descriptor.platform.as_ref().map(Into::into));
        let annotations: HashMap<_, _> = descriptor.annotations.clone().into_iter().collect();
        theirs.set_annotations((!annotations.is_empty()).then_some(annotations));
        Ok(theirs)
    }
}

/// Fails for digests of algorithms that are not read here.
impl TryFrom<&spec::Descriptor> for Descriptor {
    type Error = ImageError;

    fn try_from(descriptor: &spec::Descriptor) -> Result<Self, ImageError> {
        let digest = Digest::try_from(descriptor.digest())?;
        let mut ours = Self::new(
            descriptor.media_type().to_string(),
            digest,
            descriptor.size(),
        );
        ours.platform = descriptor.platform().as_ref().map(Into::into);
        let annotations = descriptor.annotations().clone().unwrap_or_default();
        ours.annotations = annotations.into_iter().collect();
        Ok(ours)
    }
}

impl TryFrom<&RegistryName> for oci_spec::distribution::Reference {
    type Error = oci_spec::distribution::ParseError;

    fn try_from(name: &RegistryName) -> Result<Self, Self::Error> {
        name.to_string().parse()
    }
}

/// What a config says of running the image; the rest of a configuration is empty.
impl From<&ImageConfig> for spec::ImageConfiguration {
    fn from(config: &ImageConfig) -> Self {
        let mut run = spec::Config::default();
        let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        run.set_entrypoint(some(&config.entrypoint));
        run.set_cmd(some(&config.cmd));
        run.set_env(some(&config.env));
        run.set_user((!config.user.is_empty()).then(|| config.user.clone()));
        run.set_working_dir(Some(config.working_dir.clone()));
        let listed = |set: &std::collections::BTreeSet<String>| {
            (!set.is_empty()).then(|| set.iter().cloned().collect())
        };
        run.set_exposed_ports(listed(&config.exposed_ports));
        run.set_volumes(listed(&config.volumes));
        let labels: HashMap<_, _> = config.labels.clone().into_iter().collect();
        run.set_labels((!labels.is_empty()).then_some(labels));
        run.set_stop_signal(config.stop_signal.clone());
        let mut whole = Self::default();
        whole.set_os(config.os.as_str().into());
        whole.set_architecture(config.architecture.as_str().into());
        whole.set_variant(config.variant.clone());
        whole.set_config(Some(run));
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reference;

    const HEX: &str = "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c";

    fn described(media_type: &str) -> String {
        format!(r#"{{"mediaType": "{media_type}", "digest": "sha256:{HEX}", "size": 3}}"#)
    }

    fn manifest_with(more: &str) -> String {
        let config = described("application/vnd.oci.image.config.v1+json");
        let layer = described("application/vnd.oci.image.layer.v1.tar+gzip");
        format!(r#"{{"schemaVersion": 2, "config": {config}, "layers": [{layer}]{more}}}"#)
    }

    #[test]
    fn what_is_read_strictly_becomes_a_type_of_oci_spec_with_all_its_fields() {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let text = manifest_with(r#", "annotations": {"a": "b"}"#);
        let read = manifest(text.as_bytes(), kind).unwrap();
        assert_eq!(read.layers().len(), 1);
        assert_eq!(read.annotations().as_ref().unwrap()["a"], "b");
    }

    /// Which oci-spec takes.
    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let text = manifest_with(r#", "manifests": []"#);
        assert!(serde_json::from_str::<spec::ImageManifest>(&text).is_ok());
        assert!(matches!(
            manifest(text.as_bytes(), kind),
            Err(ImageError::MediaTypeConfusion { .. })
        ));
        assert!(index(text.as_bytes(), None).is_err());
    }

    #[test]
    fn descriptors_platforms_and_names_go_both_ways() {
        let mut ours = Descriptor::new("a/b", format!("sha256:{HEX}").parse().unwrap(), 9);
        ours.platform = Some(Platform::new("linux", "arm64").with_variant("v8"));
        ours.annotations.insert("k".into(), "v".into());
        let theirs = spec::Descriptor::try_from(&ours).unwrap();
        assert_eq!(theirs.platform().as_ref().unwrap().os(), &spec::Os::Linux);
        assert_eq!(Descriptor::try_from(&theirs).unwrap(), ours);

        let reference = Reference::parse("ghcr.io/o/i:tag").unwrap();
        let name = reference.registry_name().unwrap();
        let theirs = oci_spec::distribution::Reference::try_from(name).unwrap();
        assert_eq!(
            (theirs.registry(), theirs.repository(), theirs.tag()),
            ("ghcr.io", "o/i", Some("tag"))
        );
    }

    #[test]
    fn a_config_is_read_by_oci_spec_as_we_mean_it() {
        let config = ImageConfig {
            architecture: "arm64".into(),
            os: "linux".into(),
            cmd: vec!["sh".into()],
            env: vec!["A=b".into()],
            working_dir: "/w".into(),
            ..ImageConfig::default()
        };
        let theirs = spec::ImageConfiguration::from(&config);
        let run = theirs.config().as_ref().unwrap();
        assert_eq!(run.cmd().as_ref().unwrap(), &["sh"]);
        assert_eq!(run.entrypoint(), &None);
        assert_eq!(theirs.architecture(), &spec::Arch::ARM64);
    }
}
