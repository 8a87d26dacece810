//! Networks, and the addresses that lead to what is not public.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::PolicyError;

/// A network of addresses: `192.0.2.0/24`, `2001:db8::/32`, or a single one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "String", try_from = "String"))]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// An address as a number whose first bit is that of the address.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX
        .checked_shl(128_u32.saturating_sub(prefix.into()))
        .unwrap_or(0)
}

impl Cidr {
    const fn v4(octets: [u8; 4], prefix: u8) -> Self {
        let [a, b, c, d] = octets;
        Self {
            address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            prefix,
        }
    }

    const fn v6(a: u16, b: u16, c: u16, f: u16, prefix: u8) -> Self {
        Self {
            address: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, f, 0, 0)),
            prefix,
        }
    }

    /// Whether the address is in it. IPv4 addresses in IPv6 form are IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && (bits(address) ^ bits(self.address)) & mask(self.prefix) == 0
    }

    /// Whether it is this address alone.
    pub(crate) fn is_only(&self, address: IpAddr) -> bool {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        self.prefix == whole && self.address == address
    }

    /// Whether all of it is in networks that are refused unless they are listed.
    pub fn is_special(&self) -> bool {
        let around =
            |network: &Cidr| network.prefix <= self.prefix && network.contains(self.address);
        SPECIAL.iter().any(around)
    }
}

impl FromStr for Cidr {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let bad = || PolicyError::Network(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => {
                let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
                let prefix = prefix.parse::<u8>().ok().filter(|_| is_number);
                (address, Some(prefix.ok_or_else(bad)?))
            }
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        // Bits behind the prefix mean that something else was meant.
        if prefix > longest || bits(address) & !mask(prefix) != 0 {
            return Err(bad());
        }
        Ok(Self { address, prefix })
    }
}

impl TryFrom<String> for Cidr {
    type Error = PolicyError;

    fn try_from(text: String) -> Result<Self, PolicyError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(network: Cidr) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Networks that no general rule opens, of IANA's special-purpose registries:
/// private, loopback, link-local, shared, benchmarking, multicast, reserved, and
/// IPv6 forms of IPv4 addresses. A cloud's metadata is at link-local addresses,
/// unique local ones, or at the one single address here.
const SPECIAL: &[Cidr] = &[
    Cidr::v4([0, 0, 0, 0], 8),
    Cidr::v4([10, 0, 0, 0], 8),
    Cidr::v4([100, 64, 0, 0], 10),
    Cidr::v4([127, 0, 0, 0], 8),
    Cidr::v4([168, 63, 129, 16], 32),
    Cidr::v4([169, 254, 0, 0], 16),
    Cidr::v4([172, 16, 0, 0], 12),
    Cidr::v4([192, 0, 0, 0], 24),
    Cidr::v4([192, 168, 0, 0], 16),
    Cidr::v4([198, 18, 0, 0], 15),
    Cidr::v4([224, 0, 0, 0], 4),
    Cidr::v4([240, 0, 0, 0], 4),
    // The unspecified, loopback, and IPv4-compatible ones (RFC 4291, 2.5).
    Cidr::v6(0, 0, 0, 0, 96),
    // IPv4-mapped (RFC 4291, 2.5.5.2) and IPv4-translated (RFC 7915).
    Cidr::v6(0, 0, 0, 0xffff, 96),
    Cidr {
        address: IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0)),
        prefix: 96,
    },
    // Translation to IPv4 (RFC 6052, RFC 8215), Teredo, 6to4.
    Cidr::v6(0x64, 0xff9b, 0, 0, 96),
    Cidr::v6(0x64, 0xff9b, 1, 0, 48),
    Cidr::v6(0x2001, 0, 0, 0, 32),
    Cidr::v6(0x2002, 0, 0, 0, 16),
    // Unique local, link-local, the former site-local, multicast.
    Cidr::v6(0xfc00, 0, 0, 0, 7),
    Cidr::v6(0xfe80, 0, 0, 0, 10),
    Cidr::v6(0xfec0, 0, 0, 0, 10),
    Cidr::v6(0xff00, 0, 0, 0, 8),
];

/// Whether an address is refused unless its network is listed.
pub fn is_special(address: IpAddr) -> bool {
    SPECIAL.iter().any(|network| network.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_public_are_known_in_every_form() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.0.1",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "198.18.0.1",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(is_special(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.0.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.0.1",
            "2606:4700::1",
            "2001:4860:4860::8888",
        ] {
            assert!(!is_special(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn networks_are_read_strictly() {
        for good in ["10.0.0.0/8", "10.1.2.3/32", "::/0", "2001:db8::/32"] {
            assert_eq!(good.parse::<Cidr>().unwrap().to_string(), good);
        }
        assert_eq!(
            "10.1.2.3".parse::<Cidr>().unwrap().to_string(),
            "10.1.2.3/32"
        );
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::/129",
            "10.0.0.0/+8",
            "10/8",
            "a/8",
            "10.0.0.0/",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        let network: Cidr = "10.2.0.0/16".parse().unwrap();
        assert!(network.is_special() && network.contains([10, 2, 3, 4].into()));
        assert!(!network.contains([10, 3, 0, 0].into()));
        assert!(!"0.0.0.0/0".parse::<Cidr>().unwrap().is_special());
        assert!(!"8.0.0.0/6".parse::<Cidr>().unwrap().is_special());
    }
}
