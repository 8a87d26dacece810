//! Signatures of images by a key, as `cosign sign --key` puts them beside an image.
//!
//! The signature of the image with the digest `sha256:X` is in the same repository under
//! the tag `sha256-X.sig`: a manifest, whose layers are small documents that name the
//! digest, each with a signature of its bytes in an annotation.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use supermachine_oci_bake::{Descriptor, Digest, Reference, RegistryName};

use crate::error::PullError;
use crate::key::VerifyKey;

/// What a signed document is called.
const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const TYPE: &str = "cosign container image signature";
/// Most signatures of an image that are looked at, and bytes of what is signed.
const MAX_SIGNATURES: usize = 64;
const MAX_PAYLOAD_BYTES: u64 = 64 << 10;

/// Where the signatures of an image are.
pub(crate) fn signatures_of(
    name: &RegistryName,
    digest: &Digest,
) -> Result<RegistryName, PullError> {
    let (registry, repository) = (name.registry(), name.repository());
    let tag = digest.to_string().replacen(':', "-", 1);
    let reference = Reference::parse(&format!("docker://{registry}/{repository}:{tag}.sig"));
    let signatures = reference
        .ok()
        .and_then(|found| found.registry_name().cloned());
    signatures.ok_or_else(|| unverified(name, digest, "its signatures can have no name"))
}

/// The manifest of signatures, as far as it matters.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Signature>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signature {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// What is signed.
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: String,
}

/// Whether signed bytes are about an image.
fn is_about(payload: &[u8], digest: &Digest) -> bool {
    serde_json::from_slice::<Payload>(payload).is_ok_and(|payload| {
        let critical = payload.critical;
        critical.kind == TYPE && critical.image.docker_manifest_digest == digest.to_string()
    })
}

/// The error for an image that is not known to be signed.
pub(crate) fn unverified(name: &RegistryName, digest: &Digest, reason: &str) -> PullError {
    PullError::Unverified {
        name: name.to_string(),
        digest: digest.clone(),
        reason: reason.to_owned(),
    }
}

/// Refuses an image with the digest unless one of the signatures that `manifest` lists is
/// of it and by the key. `get` gives what a descriptor names.
pub(crate) fn check(
    (name, digest): (&RegistryName, &Digest),
    key: &VerifyKey,
    manifest: &[u8],
    get: &dyn Fn(&Descriptor) -> Result<Vec<u8>, PullError>,
) -> Result<(), PullError> {
    let manifest: Manifest = serde_json::from_slice(manifest)
        .map_err(|_| unverified(name, digest, "what is beside it is no list of signatures"))?;
    for signature in manifest.layers.iter().take(MAX_SIGNATURES) {
        let bytes = signature.annotations.get(SIGNATURE);
        let bytes = bytes.and_then(|text| STANDARD.decode(text).ok());
        let (Some(bytes), Ok(blob)) = (bytes, signature.digest.parse()) else {
            continue;
        };
        if signature.media_type != MEDIA_TYPE || signature.size > MAX_PAYLOAD_BYTES {
            continue;
        }
        let payload = get(&Descriptor::new(MEDIA_TYPE, blob, signature.size))?;
        if key.has_signed(&payload, &bytes) && is_about(&payload, digest) {
            return Ok(());
        }
    }
    Err(unverified(
        name,
        digest,
        "none of its signatures is by that key and of this image",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_bytes_name_the_image_they_are_about() {
        let digest = Digest::sha256_of(b"x");
        let text = |digest: &str, kind: &str| {
            serde_json::json!({"critical": {
                "identity": {"docker-reference": "a/b"},
                "image": {"docker-manifest-digest": digest},
                "type": kind,
            }, "optional": null})
            .to_string()
        };
        assert!(is_about(
            text(&digest.to_string(), TYPE).as_bytes(),
            &digest
        ));
        for other in [
            text(&Digest::sha256_of(b"y").to_string(), TYPE),
            text(&digest.to_string(), "another"),
            "{}".to_owned(),
            String::new(),
        ] {
            assert!(!is_about(other.as_bytes(), &digest), "{other}");
        }
    }
}
