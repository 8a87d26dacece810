//! Puts secrets into requests of a virtual machine on their way out, so that the machine
//! never has them.
//!
//! The guest has a placeholder for each [`Secret`], and trusts an [`Authority`] that was
//! made for one start of it. A [`Broker`] ends its TLS connections to a secret's hosts,
//! connects on after verifying the host, and puts the value in the placeholder's place in
//! headers of requests, and nowhere else.
#![forbid(unsafe_code)]

mod authority;
mod error;
mod find;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod http;
mod keep;
mod pipe;
mod provider;
mod secret;
mod serve;
mod session;
mod trust;
mod value;

pub use authority::Authority;
pub use error::BrokerError;
pub use http::Malformed;
pub use keep::{Orders, check};
pub use secret::{Host, Secret};
pub use serve::{Broker, Connection};
pub use session::{Refusal, Report};
pub use value::Value;

/// Most secrets of a machine.
pub const MAX_SECRETS: usize = 64;

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
