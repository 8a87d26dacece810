//! What a network is to be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// The guest's IPv6 address. It may use others of its network.
    pub guest_v6: Ipv6Addr,
    /// The gateway's IPv6 address.
    pub gateway_v6: Ipv6Addr,
    /// Bits that both IPv6 addresses have in common.
    pub prefix_v6: u8,
}

/// The gateway's address on its link, from which it advertises itself.
pub(crate) const GATEWAY_ON_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

impl Addresses {
    /// Whether this is one of the guest's.
    pub(crate) fn is_guest(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address == self.guest,
            IpAddr::V6(address) => {
                let mask = u128::MAX
                    .checked_shl(128_u32.saturating_sub(self.prefix_v6.into()))
                    .unwrap_or(0);
                let differs = (address.to_bits() ^ self.guest_v6.to_bits()) & mask;
                differs == 0 && address != self.gateway_v6
            }
        }
    }

    /// Whether this is one of the gateway's.
    pub(crate) fn is_gateway(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address == self.gateway,
            IpAddr::V6(address) => address == self.gateway_v6 || address == GATEWAY_ON_LINK,
        }
    }

    /// The gateway's address of the same family.
    pub(crate) fn gateway_like(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(_) => self.gateway.into(),
            IpAddr::V6(_) => self.gateway_v6.into(),
        }
    }
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
            guest_v6: Ipv6Addr::new(0xfd53, 0x4d00, 0, 0, 0, 0, 0, 2),
            gateway_v6: Ipv6Addr::new(0xfd53, 0x4d00, 0, 0, 0, 0, 0, 1),
            prefix_v6: 64,
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
    /// Hosts whose TLS somebody else serves, by name and port.
    pub brokered: Vec<(String, u16)>,
    /// Names of secrets, and what the guest has in the place of their values: where that
    /// leaves as it is, in clear text, the record of the connection says so.
    pub placeholders: Vec<(String, Vec<u8>)>,
    /// The guest has an IPv6 address, so that it is told those of names.
    pub has_ipv6: bool,
    /// Most connections at a time.
    pub max_flows: usize,
    /// Most of them that are not established yet. One destination gets a quarter,
    /// so that one which does not answer leaves the others theirs.
    pub max_half_open: usize,
    /// Most exchanges of datagrams and echo requests at a time: the one that was
    /// silent longest makes room.
    pub max_datagram_flows: usize,
    /// Most bytes that wait in either direction, of all connections.
    pub max_buffered_bytes: usize,
}

impl Config {
    /// Whether somebody else serves the TLS of this host.
    pub(crate) fn is_brokered(&self, name: &str, port: u16) -> bool {
        let mut brokered = self.brokered.iter();
        brokered.any(|(known, at)| known == name && *at == port)
    }

    /// A network for a guest that may reach what `policy` says.
    pub fn new(policy: Policy) -> Self {
        Self {
            addresses: Addresses::default(),
            policy,
            host_name: "host.supermachine.internal".to_owned(),
            brokered: Vec::new(),
            placeholders: Vec::new(),
            has_ipv6: false,
            max_flows: 10_000,
            max_half_open: 512,
            max_datagram_flows: 512,
            max_buffered_bytes: 256 << 20,
        }
    }
}
