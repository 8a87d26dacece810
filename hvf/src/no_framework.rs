use crate::error::HvfError;
use crate::sys::{Api, VmConfig};

/// The table of the system's own framework. Here there is none.
pub fn system_api() -> Result<Api, HvfError> {
    Err(HvfError::Unavailable {
        reason: "this is not macOS on Apple silicon",
    })
}

/// The Mac that this runs on, in a line. Here there is none.
pub fn host_description() -> String {
    format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH)
}

/// No table that there is here has machines with smaller units than others.
pub(crate) fn set_small_granule(_api: &Api, _config: VmConfig) -> Option<Result<(), HvfError>> {
    None
}
