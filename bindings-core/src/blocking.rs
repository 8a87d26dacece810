//! Work that blocks, on threads that may.

use crate::{BindingError, Result};

/// Does it on a thread of tokio for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, supermachine::Error> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        // The runtime is shutting down.
        Err(_) => Err(BindingError::aborted()),
    }
}
