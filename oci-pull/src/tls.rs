//! Whom to trust, and what to show, when connecting with TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use ureq::tls::{
    Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider, parse_pem,
};

use crate::error::PullError;

/// Largest file with certificates that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The cryptography, made once.
pub(crate) fn provider() -> Result<Arc<CryptoProvider>, PullError> {
    static PROVIDER: OnceLock<Option<Arc<CryptoProvider>>> = OnceLock::new();
    let made = PROVIDER.get_or_init(choose);
    made.clone().ok_or(PullError::Processor)
}

#[cfg(feature = "ring")]
fn choose() -> Option<Arc<CryptoProvider>> {
    Some(Arc::new(rustls::crypto::ring::default_provider()))
}

/// graviola asserts what is asked here, the first time it is used.
#[cfg(not(feature = "ring"))]
fn choose() -> Option<Arc<CryptoProvider>> {
    #[cfg(target_arch = "x86_64")]
    let can = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq")
        && std::arch::is_x86_feature_detected!("bmi1")
        && std::arch::is_x86_feature_detected!("bmi2")
        && std::arch::is_x86_feature_detected!("adx")
        && std::arch::is_x86_feature_detected!("avx2");
    #[cfg(target_arch = "aarch64")]
    let can = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
        && std::arch::is_aarch64_feature_detected!("sha2");
    can.then(|| Arc::new(rustls_graviola::default_provider()))
}

/// How to make connections to a host: by the authorities of this machine, unless
/// `directories` say otherwise for it.
pub(crate) fn for_host(
    authority: &str,
    directories: &[PathBuf],
    insecure: bool,
) -> Result<TlsConfig, PullError> {
    let mut roots = Vec::new();
    let mut client = None;
    for directory in directories {
        let Ok(entries) = fs::read_dir(directory.join(authority)) else {
            continue;
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files {
            match file.extension().and_then(|end| end.to_str()) {
                Some("crt") => roots.extend(certificates(&file)?),
                Some("cert") => {
                    let key = private_key(&file.with_extension("key"))?;
                    client = Some(ClientCert::new_with_certs(&certificates(&file)?, key));
                }
                _ => {}
            }
        }
    }
    let roots = match roots.is_empty() {
        true => RootCerts::PlatformVerifier,
        false => RootCerts::from(roots),
    };
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(provider()?)
        .root_certs(roots)
        .client_cert(client)
        .disable_verification(insecure)
        .build())
}

fn items(file: &Path) -> Result<Vec<PemItem<'static>>, PullError> {
    let wrong = |reason: String| PullError::File {
        path: file.to_owned(),
        reason,
    };
    let length = fs::metadata(file)
        .map_err(|error| wrong(error.to_string()))?
        .len();
    if length > MAX_FILE_BYTES {
        return Err(wrong(format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    let pem = fs::read(file).map_err(|error| wrong(error.to_string()))?;
    let items: Result<Vec<_>, _> = parse_pem(&pem).collect();
    items.map_err(|_| wrong("it is not in PEM format".into()))
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, PullError> {
    let found: Vec<_> = items(file)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(PullError::File {
            path: file.to_owned(),
            reason: "it has no certificate".into(),
        });
    }
    Ok(found)
}

fn private_key(file: &Path) -> Result<PrivateKey<'static>, PullError> {
    let key = items(file)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    key.ok_or_else(|| PullError::File {
        path: file.to_owned(),
        reason: "it has no private key".into(),
    })
}
