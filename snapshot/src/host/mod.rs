//! What each operating system does its own way.

#[cfg(target_vendor = "apple")]
mod apple;
#[cfg(not(target_vendor = "apple"))]
mod other;

#[cfg(target_vendor = "apple")]
pub(crate) use apple::{DISCARD, each_present_page, read_ahead};
#[cfg(not(target_vendor = "apple"))]
pub(crate) use other::{DISCARD, each_present_page, read_ahead};
