//! The file system device of this workspace for other people's monitors: a back end of
//! vhost-user that serves a directory of the host.
//!
//! [`Front`] answers a client's messages and hands its rings to the device, and
//! [`serve`] drives one over a connection. The program of this package listens, and
//! gives each client a process of its own.
//!
//! Linux only; on other systems the library is empty.
#![cfg_attr(target_os = "linux", doc = include_str!("../README.md"))]
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod confine;
#[cfg(target_os = "linux")]
mod connection;
#[cfg(target_os = "linux")]
pub mod daemon;
#[cfg(target_os = "linux")]
mod front;
#[cfg(all(target_os = "linux", any(test, feature = "fuzzing")))]
pub mod fuzzing;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
pub mod options;
#[cfg(target_os = "linux")]
mod ring;

#[cfg(target_os = "linux")]
pub use connection::{ServeError, serve};
#[cfg(target_os = "linux")]
pub use front::Front;
