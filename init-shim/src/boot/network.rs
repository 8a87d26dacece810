//! The interface that leads to the host: its address, its gateway, its way out.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::net::Ipv4Addr;

use crate::sys::{interface_index, route_request};

/// What the kernel calls the first Ethernet interface.
const INTERFACE: &CStr = c"eth0";

/// Requests and attributes of rtnetlink (`linux/rtnetlink.h`, `linux/if_addr.h`,
/// `linux/neighbour.h`).
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const NEW_NEIGHBOUR: u16 = 28;
const CREATE_OR_REPLACE: u16 = 0x0500;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const BROADCAST: u16 = 4;
const ROUTE_INTERFACE: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const NEIGHBOUR_ADDRESS: u16 = 1;
const NEIGHBOUR_MAC: u16 = 2;
const UP: u32 = 1;
const MAIN_TABLE: u8 = 254;
const BY_BOOT: u8 = 3;
const UNICAST: u8 = 1;
const PERMANENT: u16 = 0x80;
const INET: u8 = 2;

/// What an interface has: `sm.net=ADDRESS/PREFIX,GATEWAY,MAC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// The machine's address.
    pub address: Ipv4Addr,
    /// Bits that it has in common with its neighbours.
    pub prefix: u8,
    /// Where everything else goes.
    pub gateway: Ipv4Addr,
    /// The gateway's MAC address: it never changes, and is not asked for.
    pub gateway_mac: [u8; 6],
}

impl Interface {
    /// Reads the value of `sm.net`.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(',');
        let (address, prefix) = parts.next()?.split_once('/')?;
        let gateway = parts.next()?.parse().ok()?;
        let mut gateway_mac = [0; 6];
        let mut octets = parts.next()?.split(':');
        for octet in &mut gateway_mac {
            *octet = u8::from_str_radix(octets.next()?, 16).ok()?;
        }
        let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        let is_all = octets.next().is_none() && parts.next().is_none();
        is_all.then_some(Self {
            address: address.parse().ok()?,
            prefix,
            gateway,
            gateway_mac,
        })
    }

    fn broadcast(&self) -> Ipv4Addr {
        let host = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        Ipv4Addr::from(u32::from(self.address) | host)
    }

    /// Brings the interface up.
    pub(super) fn set_up(&self) -> io::Result<()> {
        // It speaks IPv4; what else the kernel would say unasked nobody hears.
        let _ = fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1");
        let index = interface_index(INTERFACE)?;
        let number = index.to_ne_bytes();
        let mut link = vec![0; 4];
        link.extend(number);
        link.extend(UP.to_ne_bytes());
        link.extend(UP.to_ne_bytes());
        route_request(NEW_LINK, 0, &link)?;

        let mut address = vec![INET, self.prefix, 0, 0];
        address.extend(number);
        attribute(&mut address, LOCAL, &self.address.octets());
        attribute(&mut address, ADDRESS, &self.address.octets());
        attribute(&mut address, BROADCAST, &self.broadcast().octets());
        route_request(NEW_ADDRESS, CREATE_OR_REPLACE, &address)?;

        let mut neighbour = vec![INET, 0, 0, 0];
        neighbour.extend(number);
        neighbour.extend(PERMANENT.to_ne_bytes());
        neighbour.extend([0, 0]);
        attribute(&mut neighbour, NEIGHBOUR_ADDRESS, &self.gateway.octets());
        attribute(&mut neighbour, NEIGHBOUR_MAC, &self.gateway_mac);
        route_request(NEW_NEIGHBOUR, CREATE_OR_REPLACE, &neighbour)?;

        let mut route = vec![INET, 0, 0, 0, MAIN_TABLE, BY_BOOT, 0, UNICAST];
        route.extend([0; 4]);
        attribute(&mut route, ROUTE_GATEWAY, &self.gateway.octets());
        attribute(&mut route, ROUTE_INTERFACE, &number);
        route_request(NEW_ROUTE, CREATE_OR_REPLACE, &route)
    }
}

/// Adds an attribute (`struct rtattr`): its length, its kind, its value, and what
/// makes it whole words.
fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(0);
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_is_read_whole_or_not_at_all() {
        let good = "192.168.127.2/24,192.168.127.1,02:53:4d:00:00:01";
        let read = Interface::parse(good).unwrap();
        assert_eq!(read.address, Ipv4Addr::new(192, 168, 127, 2));
        assert_eq!(read.broadcast(), Ipv4Addr::new(192, 168, 127, 255));
        assert_eq!(read.gateway_mac, [2, 0x53, 0x4d, 0, 0, 1]);
        for bad in [
            "",
            "192.168.127.2",
            "192.168.127.2/33,192.168.127.1,02:53:4d:00:00:01",
            "192.168.127.2/24,192.168.127.1",
            "192.168.127.2/24,192.168.127.1,02:53:4d:00:00",
            "192.168.127.2/24,192.168.127.1,02:53:4d:00:00:01:02",
            "192.168.127.2/24,192.168.127.1,02:53:4d:00:00:01,x",
            "fe80::1/24,192.168.127.1,02:53:4d:00:00:01",
        ] {
            assert_eq!(Interface::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn attributes_are_whole_words() {
        let mut out = Vec::new();
        attribute(&mut out, 2, &[1, 2, 3, 4, 5, 6]);
        assert_eq!(out.len(), 12);
        assert_eq!(out[..2], 10_u16.to_ne_bytes());
    }
}
