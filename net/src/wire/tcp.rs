//! TCP segments (RFC 9293).

use super::{be16, be32};

/// Bytes of a header without options.
pub(crate) const HEADER_BYTES: usize = 20;
/// Highest shift of a window (RFC 7323, 2.3).
pub(crate) const MAX_SCALE: u8 = 14;

/// Control bits (RFC 9293, 3.1).
pub(crate) mod flag {
    pub(crate) const FIN: u8 = 1;
    pub(crate) const SYN: u8 = 2;
    pub(crate) const RST: u8 = 4;
    pub(crate) const PSH: u8 = 8;
    pub(crate) const ACK: u8 = 16;
}

/// A segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment<'a> {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledged: u32,
    pub(crate) flags: u8,
    /// As it stands there, not scaled.
    pub(crate) window: u16,
    pub(crate) options: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// What a SYN says about its sender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SynOptions {
    pub(crate) max_segment: Option<u16>,
    /// Present if both sides may scale their windows.
    pub(crate) scale: Option<u8>,
}

impl<'a> Segment<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<HEADER_BYTES>()?;
        let header_bytes = usize::from(fixed[12] >> 4) * 4;
        Some(Self {
            source_port: be16(fixed, 0)?,
            destination_port: be16(fixed, 2)?,
            sequence: be32(fixed, 4)?,
            acknowledged: be32(fixed, 8)?,
            flags: fixed[13],
            window: be16(fixed, 14)?,
            options: bytes.get(HEADER_BYTES..header_bytes)?,
            payload: bytes.get(header_bytes..)?,
        })
    }

    pub(crate) fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// How far it moves the sequence number.
    pub(crate) fn length(&self) -> u32 {
        let control = u32::from(self.has(flag::SYN)) + u32::from(self.has(flag::FIN));
        // A packet has at most 65,535 bytes.
        u32::try_from(self.payload.len()).unwrap_or(0) + control
    }

    /// The options of a SYN; what is malformed ends them.
    pub(crate) fn syn_options(&self) -> SynOptions {
        let mut options = SynOptions::default();
        let mut rest = self.options;
        while let [kind, tail @ ..] = rest {
            match (kind, tail) {
                (0, _) => break,
                (1, _) => rest = tail,
                (_, [length, ..]) if usize::from(*length) >= 2 => {
                    let Some((option, next)) = rest.split_at_checked(usize::from(*length)) else {
                        break;
                    };
                    match option {
                        [2, 4, high, low] => {
                            options.max_segment = Some(u16::from_be_bytes([*high, *low]));
                        }
                        [3, 3, scale] => options.scale = Some((*scale).min(MAX_SCALE)),
                        _ => {}
                    }
                    rest = next;
                }
                _ => break,
            }
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_syn_are_read_up_to_the_first_malformed_one() {
        let read = |options: &[u8]| {
            let mut bytes = vec![0; HEADER_BYTES];
            bytes[12] = u8::try_from((HEADER_BYTES + options.len()) / 4 * 16).unwrap();
            bytes.extend(options);
            Segment::read(&bytes).unwrap().syn_options()
        };
        let both = SynOptions {
            max_segment: Some(1460),
            scale: Some(7),
        };
        assert_eq!(read(&[2, 4, 5, 0xb4, 1, 3, 3, 7]), both);
        let first = SynOptions {
            scale: None,
            ..both
        };
        assert_eq!(read(&[2, 4, 5, 0xb4, 0, 3, 3, 7]), first);
        assert_eq!(read(&[2, 4, 5, 0xb4, 4, 0, 3, 3]), first);
        assert_eq!(read(&[2, 4, 5, 0xb4, 4, 9, 3, 3]), first);
        assert_eq!(read(&[3, 3, 99, 1]).scale, Some(MAX_SCALE));
        assert_eq!(read(&[2, 5, 5, 0xb4]), SynOptions::default());
    }

    #[test]
    fn headers_longer_than_the_segment_are_refused() {
        let mut bytes = [0; HEADER_BYTES];
        for offset in [0, 4, 6, 15] {
            bytes[12] = offset << 4;
            assert!(Segment::read(&bytes).is_none(), "{offset}");
        }
        bytes[12] = 5 << 4;
        assert!(Segment::read(&bytes).is_some());
        assert!(Segment::read(&bytes[1..]).is_none());
    }
}
