//! Names: the guest's questions and the answers it gets.

pub(crate) mod message;

use std::net::IpAddr;

/// Which addresses of a name are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What became of a look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The name's addresses; none if it has other things.
    Addresses(Vec<IpAddr>),
    /// A message of a name server's, whose question is the one that was asked.
    Message(Vec<u8>),
    /// There is no such name.
    NoName,
    /// Nobody knows now.
    Failed,
}
