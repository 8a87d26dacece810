//! Whom hosts of secrets are known by.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// Whether this is a certificate that something can be known by.
pub(crate) fn check_root(der: &[u8]) -> Option<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(der.to_vec())).ok()
}

/// How to connect to a host that is known by these certificates, or if there are none by
/// those of the system; none if there is nobody to know it by.
pub(crate) fn config_for<'a>(
    certificates: impl IntoIterator<Item = &'a [u8]>,
) -> Option<Arc<ClientConfig>> {
    let provider = crate::provider::provider().ok()?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(CertificateDer::from(certificate.to_vec())).ok()?;
    }
    let builder = match roots.is_empty() {
        true => builder.with_platform_verifier().ok()?,
        false => builder.with_root_certificates(roots),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A session that is resumed would be one whose host was verified earlier, and by less.
    config.resumption = rustls::client::Resumption::disabled();
    Some(Arc::new(config))
}
