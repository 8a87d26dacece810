//! The interface that leads to the host: its address, its gateway, its way out.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
const INET6: u8 = 10;
/// An address that nobody is asked about first: nobody else is there.
const NO_DETECTION: u8 = 2;

/// Settings of IPv6, below `net/ipv6/conf/eth0`, before the interface is up: it has
/// what it is given here, and looks for no routers and makes itself no addresses.
const SETTINGS_V6: [(&str, &str); 4] = [
    ("accept_ra", "0"),
    ("addr_gen_mode", "1"),
    ("accept_dad", "0"),
    ("router_solicitations", "0"),
];

/// What an interface has: `sm.net=ADDRESS/PREFIX,GATEWAY,MAC`, and then
/// `,ADDRESS/PREFIX,GATEWAY` of IPv6 if it has that.
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
    /// The same for IPv6.
    pub v6: Option<InterfaceV6>,
}

/// What an interface has of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceV6 {
    /// The machine's address.
    pub address: Ipv6Addr,
    /// Bits that it has in common with its neighbours.
    pub prefix: u8,
    /// Where everything else goes.
    pub gateway: Ipv6Addr,
}

impl InterfaceV6 {
    fn parse(address: &str, gateway: &str) -> Option<Self> {
        let (address, prefix) = address.split_once('/')?;
        Some(Self {
            address: address.parse().ok()?,
            prefix: prefix.parse().ok().filter(|prefix| *prefix <= 128)?,
            gateway: gateway.parse().ok()?,
        })
    }
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
        let v6 = match parts.next() {
            Some(address) => Some(InterfaceV6::parse(address, parts.next()?)?),
            None => None,
        };
        let is_all = octets.next().is_none() && parts.next().is_none();
        is_all.then_some(Self {
            address: address.parse().ok()?,
            prefix,
            gateway,
            gateway_mac,
            v6,
        })
    }

    /// The gateway, at its addresses.
    pub(super) fn gateways(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v6 = self.v6.map(|v6| v6.gateway.into());
        std::iter::once(self.gateway.into()).chain(v6)
    }

    fn broadcast(&self) -> Ipv4Addr {
        let host = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        Ipv4Addr::from(u32::from(self.address) | host)
    }

    /// Brings the interface up.
    pub(super) fn set_up(&self) -> io::Result<()> {
        // A kernel without IPv6 has none of these.
        let set = |name: &str, value: &str| {
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/eth0/{name}"), value);
        };
        match self.v6 {
            Some(_) => SETTINGS_V6
                .iter()
                .for_each(|(name, value)| set(name, value)),
            // What the kernel would say unasked nobody hears.
            None => set("disable_ipv6", "1"),
        }
        let index = interface_index(INTERFACE)?;
        let number = index.to_ne_bytes();
        let mut link = vec![0; 4];
        link.extend(number);
        link.extend(UP.to_ne_bytes());
        link.extend(UP.to_ne_bytes());
        route_request(NEW_LINK, 0, &link)?;

        let address = self.address.into();
        self.configure(number, (address, self.prefix), self.gateway.into())?;
        if let Some(v6) = self.v6 {
            // A machine whose kernel has no IPv6 does without.
            let _ = self.configure(number, (v6.address.into(), v6.prefix), v6.gateway.into());
        }
        Ok(())
    }

    /// Sets an address, the gateway's, and the way out through it.
    fn configure(
        &self,
        number: [u8; 4],
        (address, prefix): (IpAddr, u8),
        gateway: IpAddr,
    ) -> io::Result<()> {
        let (family, flags) = match address {
            IpAddr::V4(_) => (INET, 0),
            IpAddr::V6(_) => (INET6, NO_DETECTION),
        };
        let mut message = vec![family, prefix, flags, 0];
        message.extend(number);
        attribute(&mut message, LOCAL, &octets(address));
        attribute(&mut message, ADDRESS, &octets(address));
        if family == INET {
            attribute(&mut message, BROADCAST, &self.broadcast().octets());
        }
        route_request(NEW_ADDRESS, CREATE_OR_REPLACE, &message)?;

        let mut neighbour = vec![family, 0, 0, 0];
        neighbour.extend(number);
        neighbour.extend(PERMANENT.to_ne_bytes());
        neighbour.extend([0, 0]);
        attribute(&mut neighbour, NEIGHBOUR_ADDRESS, &octets(gateway));
        attribute(&mut neighbour, NEIGHBOUR_MAC, &self.gateway_mac);
        route_request(NEW_NEIGHBOUR, CREATE_OR_REPLACE, &neighbour)?;

        let mut route = vec![family, 0, 0, 0, MAIN_TABLE, BY_BOOT, 0, UNICAST];
        route.extend([0; 4]);
        attribute(&mut route, ROUTE_GATEWAY, &octets(gateway));
        attribute(&mut route, ROUTE_INTERFACE, &number);
        route_request(NEW_ROUTE, CREATE_OR_REPLACE, &route)
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
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
        assert_eq!(read.v6, None);
        let both = Interface::parse(&format!("{good},fd53:4d00::2/64,fd53:4d00::1")).unwrap();
        let v6 = both.v6.unwrap();
        assert_eq!(v6.address, "fd53:4d00::2".parse::<Ipv6Addr>().unwrap());
        assert_eq!(v6.gateway, "fd53:4d00::1".parse::<Ipv6Addr>().unwrap());
        assert_eq!((v6.prefix, Interface { v6: None, ..both }), (64, read));
        for bad in [
            "",
            "192.168.127.2",
            "192.168.127.2/33,192.168.127.1,02:53:4d:00:00:01",
            "192.168.127.2/24,192.168.127.1",
            "192.168.127.2/24,192.168.127.1,02:53:4d:00:00",
            "192.168.127.2/24,192.168.127.1,02:53:4d:00:00:01:02",
            "192.168.127.2/24,192.168.127.1,02:53:4d:00:00:01,x",
            "192.168.127.2/24,192.168.127.1,02:53:4d:00:00:01,fd53::2/64",
            "192.168.127.2/24,192.168.127.1,02:53:4d:00:00:01,fd53::2,fd53::1",
            "192.168.127.2/24,192.168.127.1,02:53:4d:00:00:01,fd53::2/129,fd53::1",
            "192.168.127.2/24,192.168.127.1,02:53:4d:00:00:01,fd53::2/64,1.2.3.4",
            "192.168.127.2/24,192.168.127.1,02:53:4d:00:00:01,fd53::2/64,fd53::1,x",
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
