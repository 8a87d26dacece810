//! Signatures of images by a key, as `cosign sign --key` puts them beside an image.
//!
//! The signature of the image with the digest `sha256:X` is in the same repository under
//! the tag `sha256-X.sig`: a manifest, whose layers are small documents that name the
//! digest, each with a signature of its bytes in an annotation.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use graviola::hashing::Sha256;
use graviola::signing::ecdsa::{P256, VerifyingKey};
use graviola::signing::eddsa::Ed25519VerifyingKey;
use serde::Deserialize;
use std::collections::BTreeMap;
use supermachine_oci_bake::{BlobSource, Descriptor, Digest, ImageError, Reference, RegistryName};

use crate::error::PullError;
use crate::registry::{RemoteImage, source};

/// What a public key in DER begins with (RFC 5480 and RFC 8410: the algorithm, and a bit
/// string of the key).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED25519_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";

/// What a signed document is called.
const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const TYPE: &str = "cosign container image signature";
/// Most signatures of an image that are looked at, and bytes of what is signed.
const MAX_SIGNATURES: usize = 64;
const MAX_PAYLOAD_BYTES: u64 = 64 << 10;

/// The public key that an image must be signed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyKey(Key);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl VerifyKey {
    /// Reads a key of ECDSA P-256 or Ed25519 in PEM, such as `cosign generate-key-pair`
    /// puts into `cosign.pub`.
    ///
    /// # Errors
    /// [`PullError::Setting`] if it is no such key; [`PullError::Processor`] if this
    /// processor cannot verify signatures.
    pub fn from_pem(text: &str) -> Result<Self, PullError> {
        if !graviola::util::is_cpu_supported() {
            return Err(PullError::Processor);
        }
        let invalid = || PullError::Setting {
            what: "the key",
            value: text.lines().next().unwrap_or_default().to_owned(),
            reason: "is no public key of ECDSA P-256 or Ed25519 in PEM; use the file \
                     cosign.pub of `cosign generate-key-pair`",
        };
        let body = text.trim().strip_prefix(PEM_BEGIN);
        let body = body.and_then(|body| body.strip_suffix(PEM_END));
        let body: String = body.ok_or_else(invalid)?.split_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| invalid())?;
        let key = if let Some(key) = der.strip_prefix(&P256_PREFIX) {
            VerifyingKey::<P256>::from_x962_uncompressed(key).map_err(|_| invalid())?;
            Key::P256(key.to_vec())
        } else if let Some(key) = der.strip_prefix(&ED25519_PREFIX) {
            Ed25519VerifyingKey::from_bytes(key).map_err(|_| invalid())?;
            Key::Ed25519(key.to_vec())
        } else {
            return Err(invalid());
        };
        Ok(Self(key))
    }

    /// Whether a signature is by this key, of these bytes.
    fn has_signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Key::P256(key) => VerifyingKey::<P256>::from_x962_uncompressed(key)
                .is_ok_and(|key| key.verify_asn1::<Sha256>(&[bytes], signature).is_ok()),
            Key::Ed25519(key) => Ed25519VerifyingKey::from_bytes(key)
                .is_ok_and(|key| key.verify(signature, bytes).is_ok()),
        }
    }
}

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
    signatures.ok_or_else(|| PullError::Unverified {
        name: name.to_string(),
        digest: digest.clone(),
        reason: "its signatures can have no name".to_owned(),
    })
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

/// Refuses an image with the digest unless one of the `signatures` is of it and by the key.
pub(crate) fn check(
    name: &RegistryName,
    digest: &Digest,
    signatures: &RemoteImage<'_>,
    key: &VerifyKey,
) -> Result<(), ImageError> {
    let unverified = |reason: &str| {
        source(PullError::Unverified {
            name: name.to_string(),
            digest: digest.clone(),
            reason: reason.to_owned(),
        })
    };
    let roots = signatures.roots().map_err(|error| match error {
        ImageError::Source(cause)
            if matches!(
                cause.downcast_ref::<PullError>(),
                Some(PullError::NotFound { .. } | PullError::NotHere { .. })
            ) =>
        {
            unverified("there is no signature beside it")
        }
        error => error,
    })?;
    let root = roots
        .first()
        .ok_or_else(|| unverified("there is no signature beside it"))?;
    let manifest = signatures.document(root).map_err(source)?;
    let manifest: Manifest = serde_json::from_slice(&manifest)
        .map_err(|_| unverified("what is beside it is no list of signatures"))?;
    for signature in manifest.layers.iter().take(MAX_SIGNATURES) {
        let bytes = signature.annotations.get(SIGNATURE);
        let bytes = bytes.and_then(|text| STANDARD.decode(text).ok());
        let (Some(bytes), Ok(blob)) = (bytes, signature.digest.parse()) else {
            continue;
        };
        if signature.media_type != MEDIA_TYPE || signature.size > MAX_PAYLOAD_BYTES {
            continue;
        }
        let blob = Descriptor::new(MEDIA_TYPE, blob, signature.size);
        let payload = signatures.document(&blob).map_err(source)?;
        if key.has_signed(&payload, &bytes) && is_about(&payload, digest) {
            return Ok(());
        }
    }
    Err(unverified(
        "none of its signatures is by that key and of this image",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `openssl ec -pubout` and `openssl pkey -pubout` write them.
    const P256_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqV/x98gtXfhwZbqUbs/dh/i1kvUs\n\
        F4SrvNOo28YdYK3dVLoYmzgrtJpttHjeQN4UbbNBCCockFdJA/i/eXQPGw==\n\
        -----END PUBLIC KEY-----\n";
    const ED25519_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAt8f1dajbN3nfqmywbLt8CTzHpBOc97nJDgCvC9dty8o=\n\
        -----END PUBLIC KEY-----";

    #[test]
    fn keys_are_read_from_pem_and_others_are_refused() {
        assert!(matches!(
            VerifyKey::from_pem(P256_PEM).unwrap().0,
            Key::P256(_)
        ));
        assert!(matches!(
            VerifyKey::from_pem(ED25519_PEM).unwrap().0,
            Key::Ed25519(_)
        ));
        let private = P256_PEM.replace("PUBLIC", "PRIVATE");
        let cut = P256_PEM.replace("MFkwEwYH", "MFkwEwYI");
        let off_the_curve = P256_PEM.replace("EqV/x98", "EqV/x99");
        let long = ED25519_PEM.replace("ty8o=", "ty8oA");
        for text in [
            "",
            "cosign",
            PEM_BEGIN,
            &private,
            &cut,
            &off_the_curve,
            &long,
        ] {
            assert!(VerifyKey::from_pem(text).is_err(), "{text}");
        }
    }

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
