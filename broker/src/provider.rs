//! The cryptography.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

use crate::BrokerError;

/// graviola's, made once, where the processor has what it asserts to have.
pub(crate) fn provider() -> Result<Arc<CryptoProvider>, BrokerError> {
    static PROVIDER: OnceLock<Option<Arc<CryptoProvider>>> = OnceLock::new();
    let made = PROVIDER.get_or_init(|| {
        let can = graviola::util::is_cpu_supported();
        can.then(|| Arc::new(rustls_graviola::default_provider()))
    });
    made.clone().ok_or(BrokerError::Processor)
}
