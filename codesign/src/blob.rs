//! The parts of a signature, each with a magic number and a length in front
//! (`cs_blobs.h` of xnu): all numbers are big-endian.

use crate::Error;

/// Several blobs with an index.
pub const SUPER_BLOB: u32 = 0xfade_0cc0;
/// What is signed, as hashes.
pub const CODE_DIRECTORY: u32 = 0xfade_0c02;
/// What the system must find to take the signature for good.
pub const REQUIREMENTS: u32 = 0xfade_0c01;
/// Entitlements as XML.
pub const ENTITLEMENTS: u32 = 0xfade_7171;
/// Entitlements as DER.
pub const DER_ENTITLEMENTS: u32 = 0xfade_7172;
/// A certificate's signature, or nothing.
pub const WRAPPER: u32 = 0xfade_0b01;

/// Which part a blob of the index is: special slots of the code directory have the same
/// numbers.
pub const CODE_DIRECTORY_SLOT: u32 = 0;
pub const REQUIREMENTS_SLOT: u32 = 2;
pub const ENTITLEMENTS_SLOT: u32 = 5;
pub const DER_ENTITLEMENTS_SLOT: u32 = 7;
pub const WRAPPER_SLOT: u32 = 0x1_0000;

/// Most entries of an index that are read: Apple's tool writes ten at the most.
const MAX_ENTRIES: u32 = 64;

/// Magic number and length.
pub const HEADER_BYTES: usize = 8;

/// A blob.
pub fn blob(magic: u32, contents: &[u8]) -> Vec<u8> {
    let length = contents.len().saturating_add(HEADER_BYTES);
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(magic.to_be_bytes());
    // Contents come from bounded property lists and hashes of at most 4 GiB.
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(contents);
    bytes
}

/// Blobs by slot, with their index.
pub fn super_blob(parts: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut index = Vec::new();
    let mut rest: Vec<u8> = Vec::new();
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    index.extend(count.to_be_bytes());
    let first = HEADER_BYTES + 4 + 8 * parts.len();
    for (slot, bytes) in parts {
        let offset = u32::try_from(first + rest.len()).unwrap_or(u32::MAX);
        index.extend(slot.to_be_bytes());
        index.extend(offset.to_be_bytes());
        rest.extend(bytes);
    }
    index.extend(rest);
    blob(SUPER_BLOB, &index)
}

/// The 32-bit number at an offset.
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    four.try_into().ok().map(u32::from_be_bytes)
}

/// The blob that begins at an offset, with its header.
pub fn blob_at(bytes: &[u8], at: usize, magic: u32) -> Result<&[u8], Error> {
    let rest = bytes
        .get(at..)
        .ok_or(Error::BadSignature("a part begins behind its end"))?;
    if word(rest, 0) != Some(magic) {
        return Err(Error::BadSignature("a part has another magic number"));
    }
    let length = word(rest, 4).and_then(|length| usize::try_from(length).ok());
    length
        .filter(|&length| length >= HEADER_BYTES)
        .and_then(|length| rest.get(..length))
        .ok_or(Error::BadSignature("a part is longer than the signature"))
}

/// Slots and offsets of a super blob.
pub fn index(bytes: &[u8]) -> Result<Vec<(u32, usize)>, Error> {
    let count = word(bytes, HEADER_BYTES).filter(|&count| count <= MAX_ENTRIES);
    let count = count.ok_or(Error::BadSignature("its index is too long"))?;
    let entry = |number: u32| {
        let at = usize::try_from(number)
            .ok()?
            .checked_mul(8)?
            .checked_add(12)?;
        let offset = word(bytes, at.checked_add(4)?)?;
        Some((word(bytes, at)?, usize::try_from(offset).ok()?))
    };
    (0..count)
        .map(|number| entry(number).ok_or(Error::BadSignature("its index is cut off")))
        .collect()
}
