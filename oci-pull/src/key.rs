//! Public keys that images are signed by.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use graviola::hashing::Sha256;
use graviola::signing::ecdsa::{P256, VerifyingKey};
use graviola::signing::eddsa::Ed25519VerifyingKey;

use crate::error::PullError;

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
    pub(crate) fn has_signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Key::P256(key) => VerifyingKey::<P256>::from_x962_uncompressed(key)
                .is_ok_and(|key| key.verify_asn1::<Sha256>(&[bytes], signature).is_ok()),
            Key::Ed25519(key) => Ed25519VerifyingKey::from_bytes(key)
                .is_ok_and(|key| key.verify(signature, bytes).is_ok()),
        }
    }
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
}
