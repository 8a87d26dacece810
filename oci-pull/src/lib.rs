//! Pulls OCI images from registries, for [`supermachine_oci_bake`] to make layers of.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod auth;
mod authority;
mod blob;
mod challenge;
mod config;
mod credentials;
mod date;
mod engine;
mod error;
mod helper;
mod host;
mod key;
mod login;
mod network;
mod proxy;
mod registry;
mod secret;
mod session;
mod status;
mod tls;
mod verify;
mod watch;

pub use config::ClientConfig;
pub use credentials::Credentials;
pub use engine::ContainerEngine;
pub use error::PullError;
pub use key::VerifyKey;
pub use login::Login;
pub use proxy::Proxies;
pub use registry::{Client, PullPolicy, RemoteImage};
pub use secret::Secret;
pub use session::{Kept, login, logout};
