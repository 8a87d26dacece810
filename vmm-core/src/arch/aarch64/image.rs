//! The header of an arm64 kernel `Image` (Linux,
//! Documentation/arch/arm64/booting.rst §4).

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 64;
/// A kernel is loaded this far past a boundary of [`BASE_ALIGNMENT`] if it is
/// too old to say how far.
const LEGACY_TEXT_OFFSET: u64 = 0x8_0000;
/// Alignment of the address its offset counts from, in bytes.
pub const BASE_ALIGNMENT: u64 = 2 << 20;
const MAGIC: [u8; 4] = *b"ARM\x64";

/// Where and how large a kernel wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// Bytes from a 2 MiB boundary to the first byte of the image.
    pub text_offset: u64,
    /// Bytes of memory it takes, cleared data included; 0 if it is too old to
    /// say.
    pub image_bytes: u64,
}

/// Why a file is no kernel that can run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// It is shorter than a header.
    #[error("the file has {bytes} bytes, an arm64 Image has more than 64")]
    TooShort {
        /// Length of the file.
        bytes: u64,
    },
    /// It is something else, perhaps something known.
    #[error("the file is not an arm64 Image{}", kind.map_or("", Kind::hint))]
    NotAnImage {
        /// What it seems to be.
        kind: Option<Kind>,
    },
    /// It is for processors with the other byte order.
    #[error("the kernel is big-endian, guests here are little-endian")]
    BigEndian,
}

/// Files that are often given instead of an `Image`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `vmlinux`.
    Elf,
    /// `Image.gz`.
    Gzip,
    /// An x86 kernel.
    BzImage,
    /// A compressed kernel that unpacks itself under EFI.
    Zboot,
}

impl Kind {
    const fn hint(self) -> &'static str {
        match self {
            Self::Elf => " but an ELF file; use arch/arm64/boot/Image of the kernel build",
            Self::Gzip => " but gzip data; decompress it first",
            Self::BzImage => " but an x86 kernel",
            Self::Zboot => " but a compressed EFI kernel; use arch/arm64/boot/Image",
        }
    }
}

/// Reads the header from the start of a file of `file_bytes` bytes.
pub fn parse(header: &[u8], file_bytes: u64) -> Result<ImageHeader, ImageError> {
    let Some(header) = header.first_chunk::<HEADER_BYTES>() else {
        return Err(match kind(header) {
            None => ImageError::TooShort { bytes: file_bytes },
            kind => ImageError::NotAnImage { kind },
        });
    };
    if header[56..60] != MAGIC {
        return Err(ImageError::NotAnImage { kind: kind(header) });
    }
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let (text_offset, image_bytes, flags) = (word(8), word(16), word(24));
    if flags & 1 == 1 {
        return Err(ImageError::BigEndian);
    }
    Ok(ImageHeader {
        text_offset: if image_bytes == 0 {
            LEGACY_TEXT_OFFSET
        } else {
            text_offset
        },
        image_bytes,
    })
}

fn kind(start: &[u8]) -> Option<Kind> {
    if start.starts_with(b"\x7fELF") {
        Some(Kind::Elf)
    } else if start.starts_with(&[0x1f, 0x8b]) {
        Some(Kind::Gzip)
    } else if start.get(4..8) == Some(b"zimg") {
        Some(Kind::Zboot)
    } else if start.starts_with(b"MZ") {
        Some(Kind::BzImage)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text_offset: u64, image_bytes: u64, flags: u64) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[8..16].copy_from_slice(&text_offset.to_le_bytes());
        header[16..24].copy_from_slice(&image_bytes.to_le_bytes());
        header[24..32].copy_from_slice(&flags.to_le_bytes());
        header[56..60].copy_from_slice(&MAGIC);
        header
    }

    #[test]
    fn a_kernel_says_where_it_wants_to_be() {
        let image = parse(&header(0x1000, 0x200_0000, 0b1010), 64).unwrap();
        assert_eq!((image.text_offset, image.image_bytes), (0x1000, 0x200_0000));
    }

    #[test]
    fn a_kernel_too_old_to_say_gets_the_legacy_offset() {
        assert_eq!(parse(&header(0, 0, 0), 64).unwrap().text_offset, 0x8_0000);
    }

    #[test]
    fn files_that_are_no_kernel_are_named() {
        let named = |start: &[u8]| {
            let mut file = [0; HEADER_BYTES];
            file[..start.len()].copy_from_slice(start);
            parse(&file, 64).unwrap_err().to_string()
        };
        assert!(named(b"\x7fELF").contains("ELF"));
        assert!(named(b"\x1f\x8b").contains("gzip"));
        assert!(named(b"MZ").contains("x86"));
        assert!(named(b"MZ\0\0zimg").contains("compressed EFI"));
        assert_eq!(named(b"#!/bin/sh"), "the file is not an arm64 Image");
        assert_eq!(parse(b"", 0), Err(ImageError::TooShort { bytes: 0 }));
        assert_eq!(parse(&header(0, 1, 1), 64), Err(ImageError::BigEndian));
    }

    #[test]
    fn any_bytes_give_a_header_or_an_error() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..4096_usize {
            let mut bytes = header(0, 0, 0);
            for byte in &mut bytes[..56] {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                *byte = seed.to_le_bytes()[0];
            }
            let length = round % (HEADER_BYTES + 1);
            let parsed = parse(&bytes[..length], length as u64);
            assert_eq!(parsed.is_ok(), length == 64 && bytes[24] & 1 == 0);
        }
    }
}
