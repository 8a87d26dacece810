use crate::error::HvfError;
use crate::sys::Api;

/// The table of the system's own framework. Here there is none.
pub fn system_api() -> Result<Api, HvfError> {
    Err(HvfError::Unavailable {
        reason: "this is not macOS on Apple silicon",
    })
}
