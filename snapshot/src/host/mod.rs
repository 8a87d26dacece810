//! What each operating system does its own way.

#[cfg(target_vendor = "apple")]
mod apple;
#[cfg(not(target_vendor = "apple"))]
mod other;

#[cfg(target_vendor = "apple")]
pub(crate) use apple::{DISCARD, present_pages, read_ahead};
#[cfg(not(target_vendor = "apple"))]
pub(crate) use other::{DISCARD, present_pages, read_ahead};
