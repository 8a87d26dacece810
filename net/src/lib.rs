//! A virtual machine's network on sockets of its host: frames in, connections out.
//!
//! [`Stack`] is the gateway that a guest sends everything to. It makes each of the
//! guest's connections one of the host, after asking the [`policy`]. It has no
//! sockets, threads or clock: those come in through [`Io`]. With the feature
//! `driver`, `driver::Network` serves a guest with sockets of this host, on a thread
//! that starts with the first frame.
#![forbid(unsafe_code)]

mod config;
mod dns;
#[cfg(feature = "driver")]
pub mod driver;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod io;
#[cfg(any(test, feature = "fuzzing"))]
mod pen;
pub mod policy;
mod rate;
mod record;
mod shown;
mod stack;
mod tcp;
mod wire;

pub use config::{Addresses, Config};
pub use dns::{Answer, Family};
pub use io::{
    Close, FlowId, Frame, Io, Offloads, PartialChecksum, Query, Segmentation, Ticket, Transport,
};
pub use record::{End, FlowRecord, SecretsUse};
pub use stack::{BadState, Counters, Stack};
pub use wire::Mac;

/// Compiles the README's example.
#[cfg(all(doctest, feature = "driver"))]
#[doc = include_str!("../README.md")]
struct Readme;
