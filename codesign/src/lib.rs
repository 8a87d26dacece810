#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

mod blob;
mod directory;
mod entitlements;
mod error;
mod file;
mod identity;
mod image;
mod sign;
mod signature;

pub use entitlements::{Entitlements, HYPERVISOR};
pub use error::Error;
pub use file::{entitle, sign_file};
pub use identity::Identity;
pub use sign::sign;
pub use signature::Signature;
