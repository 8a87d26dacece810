//! What a network is to be.

use std::net::Ipv4Addr;

use crate::policy::Policy;
use crate::wire::Mac;

/// Addresses of both ends. They are the same in every machine, since each has a
/// network of its own: a copy of a machine needs no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The guest's interface.
    pub guest_mac: Mac,
    /// What the guest sends everything to.
    pub gateway_mac: Mac,
    /// The guest's address.
    pub guest: Ipv4Addr,
    /// The gateway's address, where the resolver is, too.
    pub gateway: Ipv4Addr,
    /// Bits that both addresses have in common.
    pub prefix: u8,
}

impl Default for Addresses {
    /// Locally administered MAC addresses, and a private network that is neither
    /// of the two that offices and container engines take.
    fn default() -> Self {
        Self {
            guest_mac: [0x02, 0x53, 0x4d, 0, 0, 2],
            gateway_mac: [0x02, 0x53, 0x4d, 0, 0, 1],
            guest: Ipv4Addr::new(192, 168, 127, 2),
            gateway: Ipv4Addr::new(192, 168, 127, 1),
            prefix: 24,
        }
    }
}

/// What a network is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who is who.
    pub addresses: Addresses,
    /// What the guest may reach.
    pub policy: Policy,
    /// The name of the gateway, under which listed ports of the host are.
    pub host_name: String,
    /// Most connections at a time.
    pub max_flows: usize,
    /// Most of them that are not established yet. One destination gets a quarter,
    /// so that one which does not answer leaves the others theirs.
    pub max_half_open: usize,
    /// Most bytes that wait in either direction, of all connections.
    pub max_buffered_bytes: usize,
}

impl Config {
    /// A network for a guest that may reach what `policy` says.
    pub fn new(policy: Policy) -> Self {
        Self {
            addresses: Addresses::default(),
            policy,
            host_name: "host.supermachine.internal".to_owned(),
            max_flows: 10_000,
            max_half_open: 512,
            max_buffered_bytes: 256 << 20,
        }
    }
}
