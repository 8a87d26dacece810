//! The header of an arm64 Linux `Image`.

/// Length of the header, bytes (Linux Documentation/arch/arm64/booting.rst,
/// section 4).
const HEADER_BYTES: usize = 64;
/// `ARM\x64` at byte 56.
const MAGIC: [u8; 4] = *b"ARM\x64";

/// What an arm64 `Image` says about itself in its first 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// Offset of the image from a 2 MiB boundary, bytes.
    pub text_offset: u64,
    /// Memory the kernel needs from its start, BSS included, bytes.
    pub image_size: u64,
    /// Page size of the kernel, bytes; `None` if the header leaves it open.
    pub page_bytes: Option<u32>,
}

impl ImageHeader {
    /// Reads the header, or says what is wrong with it.
    ///
    /// # Errors
    /// A phrase fit for an error message.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let header = bytes
            .first_chunk::<HEADER_BYTES>()
            .ok_or("it is shorter than an arm64 image header")?;
        if header[56..60] != MAGIC {
            return Err("it has no arm64 image header");
        }
        let word = |at: usize| {
            let mut value = [0; 8];
            value.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(value)
        };
        let flags = word(24);
        if flags & 1 != 0 {
            return Err("it is built big-endian");
        }
        let image_size = word(16);
        if image_size == 0 {
            return Err("it does not say how much memory it needs");
        }
        let page_bytes = match (flags >> 1) & 3 {
            1 => Some(4 << 10),
            2 => Some(16 << 10),
            3 => Some(64 << 10),
            _ => None,
        };
        Ok(Self {
            text_offset: word(8),
            image_size,
            page_bytes,
        })
    }
}

#[cfg(test)]
pub(crate) fn sample() -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[16..24].copy_from_slice(&0x80_0000_u64.to_le_bytes());
    bytes[24..32].copy_from_slice(&0b1010_u64.to_le_bytes());
    bytes[56..60].copy_from_slice(&MAGIC);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_are_read() {
        let header = ImageHeader::parse(&sample()).unwrap();
        assert_eq!(header.image_size, 0x80_0000);
        assert_eq!(header.text_offset, 0);
        assert_eq!(header.page_bytes, Some(4096));
    }

    #[test]
    fn truncated_foreign_and_big_endian_images_are_refused() {
        let whole = sample();
        for length in 0..whole.len() {
            assert!(ImageHeader::parse(&whole[..length]).is_err());
        }
        assert!(ImageHeader::parse(&[0x7f; 4096]).is_err());
        let mut big = sample();
        big[24] |= 1;
        assert!(ImageHeader::parse(&big).is_err());
        let mut empty = sample();
        empty[16..24].fill(0);
        assert!(ImageHeader::parse(&empty).is_err());
    }
}
