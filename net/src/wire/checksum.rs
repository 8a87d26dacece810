//! The Internet checksum (RFC 1071).

use std::net::IpAddr;

/// A sum in progress. Pieces but the last have an even number of bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// The pseudo-header of TCP and UDP over IPv4 (RFC 9293, 3.1) or of anything
    /// over IPv6 (RFC 8200, 8.1).
    pub(crate) fn pseudo_header(
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        bytes: usize,
    ) -> Self {
        let mut sum = Self::default();
        for address in [source, destination] {
            match address {
                IpAddr::V4(address) => sum.add(&address.octets()),
                IpAddr::V6(address) => sum.add(&address.octets()),
            }
        }
        sum.0 += u64::from(protocol) + bytes as u64;
        sum
    }

    /// Adds bytes; an odd last one counts as if a zero followed.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            self.0 += u64::from(u32::from_be_bytes(*word));
        }
        let (halves, odd) = rest.as_chunks::<2>();
        for half in halves {
            self.0 += u64::from(u16::from_be_bytes(*half));
        }
        if let [last] = odd {
            self.0 += u64::from(*last) << 8;
        }
    }

    /// The sum of 16-bit words, not inverted.
    pub(crate) fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        u16::try_from(sum).unwrap_or(u16::MAX)
    }

    /// What goes into a header's checksum field.
    pub(crate) fn finish(self) -> u16 {
        !self.folded()
    }
}

/// The checksum of some bytes.
pub(crate) fn of(bytes: &[u8]) -> u16 {
    let mut sum = Sum::default();
    sum.add(bytes);
    sum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_rfc() {
        // RFC 1071, 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(of(&bytes), !0xddf2);
        assert_eq!(of(&[0xff, 0xff, 0x01]), !0x0100);
        assert_eq!(of(&[]), 0xffff);
    }
}
