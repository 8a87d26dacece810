//! A shared directory of supermachine as a file system of fuse-backend-rs.
//!
//! Linux only; on other systems the library is empty.
#![cfg_attr(target_os = "linux", doc = include_str!("../README.md"))]
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod shared;

#[cfg(target_os = "linux")]
pub use shared::Shared;
