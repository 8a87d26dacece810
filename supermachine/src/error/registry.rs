//! What a caller can do about a registry that does not give an image.

use super::ErrorKind;
use super::cause::Cause;
#[cfg(feature = "pull")]
use super::cause::Part;
#[cfg(feature = "pull")]
use oci_pull::PullError;

#[cfg(feature = "pull")]
pub(super) fn of_registry(cause: &Cause) -> ErrorKind {
    match cause.part() {
        Part::Registry(
            PullError::NotHere { .. } | PullError::NotFound { .. } | PullError::NotInEngine { .. },
        ) => ErrorKind::NotFound,
        Part::Registry(PullError::LoginNeeded { .. } | PullError::Denied { .. }) => {
            ErrorKind::Configuration
        }
        Part::Registry(PullError::Unverified { .. }) => ErrorKind::Image,
        Part::Registry(PullError::TooBusy { .. }) => ErrorKind::Busy,
        Part::Registry(PullError::Cancelled) => ErrorKind::Ended,
        Part::Registry(error) if error.is_transient() => ErrorKind::Busy,
        _ => ErrorKind::Host,
    }
}

#[cfg(not(feature = "pull"))]
pub(super) fn of_registry(_: &Cause) -> ErrorKind {
    ErrorKind::Host
}
