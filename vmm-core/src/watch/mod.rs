//! How a host says what changes in a shared directory, where that is not for `devices`,
//! which sees no C ABI of a host.

use std::fs::File;
use std::sync::Arc;

use devices::virtio::fs::DirectoryWatch;

#[cfg(any(target_os = "macos", test))]
mod changes;
#[cfg(target_os = "macos")]
mod fsevents;

/// The way of this host for an open directory; `None` if `devices` has one, or there is
/// none.
#[cfg(target_os = "macos")]
pub fn of(directory: &File) -> Option<Arc<dyn DirectoryWatch>> {
    let watch = fsevents::FsEvents::of(directory).ok()?;
    Some(Arc::new(watch))
}

/// The way of this host for an open directory; `None` if `devices` has one, or there is
/// none.
#[cfg(not(target_os = "macos"))]
pub fn of(_directory: &File) -> Option<Arc<dyn DirectoryWatch>> {
    None
}
