//! The authority of one start of a machine: its guest trusts it, and nobody else does.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use graviola::hashing::{Hash, Sha256};
use graviola::signing::ecdsa::{P256, SigningKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SerialNumber, SignatureAlgorithm,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::BrokerError;

/// How far back certificates reach: guests whose clock is behind take them.
const BACKDATED: Duration = Duration::from_secs(48 * 3600);
/// How long a certificate of a host holds from now on.
const LEAF_HOLDS: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long before its end it is made anew.
const RENEWED: Duration = Duration::from_secs(24 * 3600);
/// How long the authority holds: longer than machines run.
const AUTHORITY_HOLDS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Bytes of a serial number: RFC 5280, 4.1.2.2, allows 20.
const SERIAL_BYTES: usize = 16;
/// Bytes of a key's name.
const KEY_NAME_BYTES: usize = 20;
/// Bytes of an uncompressed point of P-256 (SEC 1, 2.3.3).
const POINT_BYTES: usize = 65;
/// Room for a key as PKCS #8, and for a signature in DER.
const KEY_ROOM: usize = 256;

/// A key and a certificate, made for one start of a machine. Whoever has it is trusted by
/// that guest: it goes to the process that serves the machine, and nowhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    key: Zeroizing<Vec<u8>>,
    certificate: Vec<u8>,
    /// How many seconds the guest's clock is ahead of the host's.
    ahead_s: i64,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one, for a guest whose clock says `now`.
    ///
    /// # Errors
    /// [`BrokerError::Processor`] where there is no cryptography, and others if the system
    /// gives no random numbers.
    pub fn new(now: SystemTime) -> Result<Self, BrokerError> {
        crate::provider::provider()?;
        let key = Key::new()?;
        let params = Self::params(&key, seconds(now))?;
        let certificate = params
            .self_signed(&key)
            .map_err(|_| failed("the authority"))?;
        Ok(Self {
            key: key.pkcs8()?,
            certificate: certificate.der().to_vec(),
            ahead_s: seconds(now).saturating_sub(seconds(SystemTime::now())),
        })
    }

    /// Its certificate in PEM format, for the guest. The key is not in it.
    pub fn certificate_pem(&self) -> String {
        let text = STANDARD.encode(&self.certificate);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        pem
    }

    fn params(key: &Key, now_s: i64) -> Result<CertificateParams, BrokerError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("supermachine secrets of this machine");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        fill_in(&mut params, key, now_s, AUTHORITY_HOLDS)?;
        Ok(params)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

fn failed(name: &str) -> BrokerError {
    BrokerError::Certificate(name.to_owned())
}

/// Serial number, key's name and validity.
fn fill_in(
    params: &mut CertificateParams,
    key: &Key,
    now_s: i64,
    holds: Duration,
) -> Result<(), BrokerError> {
    let mut serial = [0; SERIAL_BYTES];
    getrandom::fill(&mut serial).map_err(|_| BrokerError::Random)?;
    // Positive, and of that many bytes.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.key_identifier_method = key.name();
    params.not_before = at(now_s.saturating_sub(whole(BACKDATED)));
    params.not_after = at(now_s.saturating_add(whole(holds)));
    Ok(())
}

fn whole(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => whole(after),
        Err(before) => whole(before.duration()).saturating_neg(),
    }
}

/// A moment that a certificate can name: years of four digits (RFC 5280, 4.1.2.5).
fn at(seconds: i64) -> OffsetDateTime {
    const FIRST: i64 = 0;
    // The last second of 9999.
    const LAST: i64 = 253_402_300_799;
    OffsetDateTime::from_unix_timestamp(seconds.clamp(FIRST, LAST))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A key for certificates.
struct Key {
    key: SigningKey<P256>,
    point: [u8; POINT_BYTES],
}

impl Key {
    fn new() -> Result<Self, BrokerError> {
        Self::of(SigningKey::generate().map_err(|_| BrokerError::Random)?)
    }

    fn of(key: SigningKey<P256>) -> Result<Self, BrokerError> {
        // The point is the end of its description (RFC 5480, 2).
        let mut room = [0; KEY_ROOM];
        let described = key.to_spki_der(&mut room).map_err(|_| failed("a key"))?;
        let point = described
            .last_chunk()
            .copied()
            .ok_or_else(|| failed("a key"))?;
        Ok(Self { key, point })
    }

    fn from_pkcs8(key: &[u8]) -> Result<Self, BrokerError> {
        Self::of(SigningKey::from_pkcs8_der(key).map_err(|_| failed("a key that was sent"))?)
    }

    /// What certificates call it (RFC 7093, 2, method 1).
    fn name(&self) -> KeyIdMethod {
        let digest = Sha256::hash(&self.point);
        let name = digest.as_ref().iter().take(KEY_NAME_BYTES).copied();
        KeyIdMethod::PreSpecified(name.collect())
    }

    fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, BrokerError> {
        let mut room = Zeroizing::new([0; KEY_ROOM]);
        let encoded = self.key.to_pkcs8_der(&mut *room);
        let encoded = encoded.map_err(|_| failed("a key"))?;
        Ok(Zeroizing::new(encoded.to_vec()))
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let mut room = [0; KEY_ROOM];
        let signed = self.key.sign_asn1::<Sha256>(&[message], &mut room);
        let signed = signed.map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(signed.to_vec())
    }
}

/// Makes certificates for hosts, each for one name.
pub(crate) struct Certificates {
    issuer: Issuer<'static, Key>,
    authority: CertificateDer<'static>,
    key: Key,
    ahead_s: i64,
    provider: Arc<CryptoProvider>,
    made: HashMap<String, (i64, Arc<ServerConfig>)>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Certificates {
    pub(crate) fn of(authority: &Authority) -> Result<Self, BrokerError> {
        let certificate = CertificateDer::from(authority.certificate.clone());
        // Its certificate is not read again: names of it and of its key are made as then.
        let key = Key::from_pkcs8(&authority.key)?;
        let params = Authority::params(&key, 0)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            authority: certificate,
            key: Key::new()?,
            ahead_s: authority.ahead_s,
            provider: crate::provider::provider()?,
            made: HashMap::new(),
        })
    }

    /// How a host of that name answers the guest at `now`. Only names of secrets' hosts
    /// are asked for, so there are few.
    pub(crate) fn answer_as(
        &mut self,
        name: &str,
        now: SystemTime,
    ) -> Result<Arc<ServerConfig>, BrokerError> {
        let now_s = seconds(now).saturating_add(self.ahead_s);
        if let Some((until, config)) = self.made.get(name)
            && now_s < until.saturating_sub(whole(RENEWED))
            // A clock that went back before it.
            && now_s >= until.saturating_sub(whole(LEAF_HOLDS))
        {
            return Ok(config.clone());
        }
        let certificate = self.leaf(name, now_s)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.pkcs8()?.to_vec()));
        let builder = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|_| failed(name))?
            .with_no_client_auth();
        let chain = vec![certificate, self.authority.clone()];
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|_| failed(name))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let until = now_s.saturating_add(whole(LEAF_HOLDS));
        self.made.insert(name.to_owned(), (until, config.clone()));
        Ok(config)
    }

    fn leaf(&self, name: &str, now_s: i64) -> Result<CertificateDer<'static>, BrokerError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("a host, by supermachine");
        let alternative = name.try_into().map_err(|_| failed(name))?;
        params.subject_alt_names = vec![SanType::DnsName(alternative)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Some ask for it, though it is clear: Python, for one.
        params.use_authority_key_identifier_extension = true;
        fill_in(&mut params, &self.key, now_s, LEAF_HOLDS)?;
        let made = params.signed_by(&self.key, &self.issuer);
        Ok(made.map_err(|_| failed(name))?.der().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memchr::memmem::find;
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};

    fn verify(
        authority: &Authority,
        leaf: &CertificateDer<'_>,
        name: &str,
        at: SystemTime,
    ) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone().into()).unwrap();
        let provider = crate::provider::provider().unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let name = ServerName::try_from(name).unwrap();
        let since = at.duration_since(UNIX_EPOCH).unwrap();
        let now = UnixTime::since_unix_epoch(since);
        let verified = verifier.build().unwrap();
        verified
            .verify_server_cert(leaf, &[], &name, &[], now)
            .is_ok()
    }

    #[test]
    fn leaves_hold_for_one_name_from_two_days_ago_for_a_week() {
        let now = SystemTime::now();
        let authority = Authority::new(now).unwrap();
        let certificates = Certificates::of(&authority).unwrap();
        let leaf = certificates.leaf("api.example.com", seconds(now)).unwrap();
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let holds = |name, at| verify(&authority, &leaf, name, at);
        assert!(holds("api.example.com", now));
        assert!(holds("api.example.com", now - hours(47)));
        assert!(holds("api.example.com", now + hours(6 * 24)));
        assert!(!holds("api.example.com", now + hours(8 * 24)));
        assert!(!holds("api.example.com", now - hours(49)));
        for other in ["example.com", "x.api.example.com", "other.example.com"] {
            assert!(!holds(other, now), "{other}");
        }
        let other = Authority::new(now).unwrap();
        assert!(!verify(&other, &leaf, "api.example.com", now));
    }

    #[test]
    fn certificates_are_kept_until_shortly_before_their_end() {
        let now = SystemTime::now();
        let authority = Authority::new(now).unwrap();
        let mut certificates = Certificates::of(&authority).unwrap();
        let mut at = |days: u64| {
            let at = now + Duration::from_secs(days * 24 * 3600);
            certificates.answer_as("a.example.com", at).unwrap()
        };
        let first = at(0);
        assert!(Arc::ptr_eq(&first, &at(5)));
        let second = at(7);
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &at(7)));
        // A clock that is set back.
        assert!(!Arc::ptr_eq(&second, &at(1)));
    }

    #[test]
    fn guests_of_another_time_get_certificates_of_theirs() {
        let then = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let authority = Authority::new(then).unwrap();
        let mut certificates = Certificates::of(&authority).unwrap();
        certificates
            .answer_as("a.example.com", SystemTime::now())
            .unwrap();
        let there = seconds(SystemTime::now()) + authority.ahead_s;
        let leaf = certificates.leaf("a.example.com", there).unwrap();
        assert!(verify(&authority, &leaf, "a.example.com", then));
    }

    #[test]
    fn key_is_neither_in_the_certificate_nor_in_debug_output() {
        let authority = Authority::new(SystemTime::now()).unwrap();
        let other: Authority =
            serde_json::from_str(&serde_json::to_string(&authority).unwrap()).unwrap();
        assert_eq!(authority, other);
        // The number is the first string of 32 bytes in its description (RFC 5915, 3).
        let at = find(&authority.key, &[0x04, 0x20]).unwrap() + 2;
        let scalar = &authority.key[at..at + 32];
        assert!(find(&authority.certificate, &scalar[..8]).is_none());
        assert_eq!(format!("{authority:?}"), "Authority { .. }");
        assert!(
            authority
                .certificate_pem()
                .ends_with("-----END CERTIFICATE-----\n")
        );
    }
}
