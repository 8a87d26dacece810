//! The 512-byte header block (POSIX.1 pax, "ustar Interchange Format", and
//! the GNU variant).

use std::ops::Range;

/// Header and data are padded to this many bytes.
pub(super) const BLOCK: u64 = 512;

/// One header block.
pub(super) struct Header<'a>(pub(super) &'a [u8; 512]);

/// Field positions.
const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPEFLAG: usize = 156;
const LINKNAME: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const DEVMAJOR: Range<usize> = 329..337;
const DEVMINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;

impl Header<'_> {
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Compares the stored sum with the sum over the block, the checksum
    /// field counted as spaces. Old archivers summed signed bytes.
    pub(super) fn checksum_matches(&self) -> bool {
        let Some(stored) = number(&self.0[CHECKSUM]) else {
            return false;
        };
        let mut unsigned = 0i64;
        let mut signed = 0i64;
        for (at, byte) in self.0.iter().enumerate() {
            let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(i8::from_ne_bytes([byte]));
        }
        stored == unsigned || stored == signed
    }

    pub(super) fn typeflag(&self) -> u8 {
        self.0[TYPEFLAG]
    }

    /// The name, with the ustar prefix where the format has one.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[NAME]);
        let prefix = text(&self.0[PREFIX]);
        if &self.0[MAGIC] != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(super) fn link_name(&self) -> Vec<u8> {
        text(&self.0[LINKNAME]).to_vec()
    }

    pub(super) fn mode(&self) -> Option<i64> {
        number(&self.0[MODE])
    }

    pub(super) fn uid(&self) -> Option<i64> {
        number(&self.0[UID])
    }

    pub(super) fn gid(&self) -> Option<i64> {
        number(&self.0[GID])
    }

    pub(super) fn size(&self) -> Option<i64> {
        number(&self.0[SIZE])
    }

    pub(super) fn mtime(&self) -> Option<i64> {
        number(&self.0[MTIME])
    }

    pub(super) fn device(&self) -> Option<(i64, i64)> {
        Some((number(&self.0[DEVMAJOR])?, number(&self.0[DEVMINOR])?))
    }
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// A numeric field: octal between optional spaces and a space or NUL, or
/// GNU's base-256 when the top bit is set. Empty means zero.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let is_pad = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !is_pad(byte));
    let Some(start) = start else { return Some(0) };
    let mut value = 0i64;
    for (at, byte) in field[start..].iter().enumerate() {
        match byte {
            b'0'..=b'7' => {
                value = value.checked_mul(8)?.checked_add(i64::from(byte - b'0'))?;
            }
            byte if is_pad(byte) => {
                return field[start + at..].iter().all(is_pad).then_some(value);
            }
            _ => return None,
        }
    }
    Some(value)
}

/// Two's complement, big-endian, the top bit being the format marker.
fn base_256(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    let negative = first & 0x40 != 0;
    let mut value = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
    for byte in rest {
        value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
    }
    i64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_fields_allow_padding_on_both_sides() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777"), Some(0o77_777_777));
    }

    #[test]
    fn rubbish_in_a_number_is_no_number() {
        for bad in [
            &b"0000649\0"[..],
            b"-000001\0",
            b"64 4\0\0\0\0",
            b"0x1\0\0\0\0\0",
        ] {
            assert_eq!(number(bad), None);
        }
    }

    #[test]
    fn base_256_covers_large_and_negative_values() {
        assert_eq!(
            number(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
            Some(0xffff_ffff)
        );
        assert_eq!(number(&[0xff; 8]), Some(-1));
        let mut huge = [0xff; 12];
        huge[0] = 0xbf;
        assert_eq!(number(&huge), None);
    }
}
