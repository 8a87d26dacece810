//! How a host says what changes in a shared directory, where that is not for `devices`,
//! which sees no C ABI of a host.

#[cfg(any(target_os = "macos", test))]
mod changes;
#[cfg(target_os = "macos")]
mod fsevents;
#[cfg(target_os = "macos")]
pub use fsevents::of;

#[cfg(not(target_os = "macos"))]
mod unwatched;
#[cfg(not(target_os = "macos"))]
pub use unwatched::of;
