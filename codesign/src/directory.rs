//! The code directory: what is signed, as hashes of pages and of the signature's other
//! parts.

use crate::Error;
use crate::blob::{CODE_DIRECTORY, HEADER_BYTES, blob, word};
use sha2::{Digest, Sha256};

/// With the place of the executable segment; macOS 10.14 and later want it.
const VERSION: u32 = 0x2_0400;
/// Bytes of a directory of that version before its identifier.
const FIXED_BYTES: usize = 88;
/// There is no certificate.
const FLAG_ADHOC: u32 = 2;
/// The hash is SHA-256.
const HASH_SHA256: u8 = 2;
pub const HASH_BYTES: usize = 32;
/// The same as a directory says it.
const HASH_SIZE: u8 = 32;
const PAGE_SHIFT: u8 = 12;
const PAGE_BYTES: usize = 1 << PAGE_SHIFT;
/// The segment with the code belongs to a program, not a library.
const EXECUTABLE_MAIN: u64 = 1;
/// Special slots that are written: all to that of the entitlements in DER.
const SPECIAL_SLOTS: usize = 7;

/// What a code directory says of a file.
pub struct Directory<'a> {
    pub identifier: &'a str,
    /// Offset and length of the segment with the code.
    pub text: (u64, u64),
    pub is_program: bool,
    /// Slots of other parts, and those parts.
    pub parts: &'a [(u32, Vec<u8>)],
}

/// Bytes that a directory for a file takes.
pub fn length(identifier: &str, signed_bytes: usize) -> usize {
    let slots = SPECIAL_SLOTS + signed_bytes.div_ceil(PAGE_BYTES);
    FIXED_BYTES + identifier.len() + 1 + slots * HASH_BYTES
}

impl Directory<'_> {
    /// The directory of a file, all of which is given but the signature.
    pub fn of(&self, signed: &[u8]) -> Result<Vec<u8>, Error> {
        let long = |length: usize| u32::try_from(length).map_err(|_| Error::TooLong);
        let pages = signed.len().div_ceil(PAGE_BYTES);
        let hashes = FIXED_BYTES + self.identifier.len() + 1 + SPECIAL_SLOTS * HASH_BYTES;
        let mut bytes = Vec::with_capacity(length(self.identifier, signed.len()));
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend(FLAG_ADHOC.to_be_bytes());
        bytes.extend(long(hashes)?.to_be_bytes());
        bytes.extend(long(FIXED_BYTES)?.to_be_bytes());
        bytes.extend(long(SPECIAL_SLOTS)?.to_be_bytes());
        bytes.extend(long(pages)?.to_be_bytes());
        bytes.extend(long(signed.len())?.to_be_bytes());
        // Length and kind of the hashes, no platform, and the size of a page.
        bytes.extend([HASH_SIZE, HASH_SHA256, 0, PAGE_SHIFT]);
        // Spare, no scatter table, no team, spare, and no length of more than 32 bits.
        bytes.extend([0; 4 * 4 + 8]);
        bytes.extend(self.text.0.to_be_bytes());
        bytes.extend(self.text.1.to_be_bytes());
        let kind = if self.is_program { EXECUTABLE_MAIN } else { 0 };
        bytes.extend(kind.to_be_bytes());
        bytes.extend(self.identifier.as_bytes());
        bytes.push(0);
        // They are counted backwards from the first page.
        for slot in (1..=SPECIAL_SLOTS).rev() {
            let of_slot = |(number, _): &&(u32, _)| usize::try_from(*number) == Ok(slot);
            match self.parts.iter().find(of_slot) {
                Some((_, part)) => bytes.extend(Sha256::digest(part)),
                None => bytes.extend([0; HASH_BYTES]),
            }
        }
        for page in signed.chunks(PAGE_BYTES) {
            bytes.extend(Sha256::digest(page));
        }
        Ok(blob(CODE_DIRECTORY, &bytes))
    }
}

/// Compares a directory with what it is of: the file without its signature, and the
/// signature's other parts by slot.
pub fn verify(directory: &[u8], signed: &[u8], parts: &[(u32, &[u8])]) -> Result<(), Error> {
    let size = |at: usize| {
        let number = word(directory, at).and_then(|number| usize::try_from(number).ok());
        number.ok_or(Error::BadSignature("its code directory is cut off"))
    };
    let (hashes, special, pages, limit) = (size(16)?, size(24)?, size(28)?, size(32)?);
    if directory.get(36..38) != Some(&[HASH_SIZE, HASH_SHA256])
        || directory.get(39) != Some(&PAGE_SHIFT)
    {
        return Err(Error::BadSignature(
            "its hashes are not SHA-256 of pages of 4 KiB",
        ));
    }
    if limit != signed.len() || pages != limit.div_ceil(PAGE_BYTES) {
        return Err(Error::Mismatch("the length of the file".into()));
    }
    let hash_at = |at: Option<usize>| {
        let at = at.filter(|&at| at >= HEADER_BYTES);
        at.and_then(|at| directory.get(at..at.checked_add(HASH_BYTES)?))
            .ok_or(Error::BadSignature("a hash is behind its end"))
    };
    for (slot, part) in parts {
        let slot = usize::try_from(*slot).unwrap_or(usize::MAX);
        if slot > special {
            return Err(Error::BadSignature("a part is not in its code directory"));
        }
        let back = slot.checked_mul(HASH_BYTES);
        let hash = hash_at(back.and_then(|back| hashes.checked_sub(back)))?;
        if hash != Sha256::digest(part).as_slice() {
            return Err(Error::Mismatch(format!("part {slot} of the signature")));
        }
    }
    for (number, page) in signed.chunks(PAGE_BYTES).enumerate() {
        let on = number.checked_mul(HASH_BYTES);
        let hash = hash_at(on.and_then(|on| hashes.checked_add(on)))?;
        if hash != Sha256::digest(page).as_slice() {
            return Err(Error::Mismatch(format!("page {number} of the file")));
        }
    }
    Ok(())
}

/// The identifier in a directory.
pub fn identifier(directory: &[u8]) -> Option<&str> {
    let at = usize::try_from(word(directory, 20)?).ok()?;
    let rest = directory.get(at..)?;
    let end = rest.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(rest.get(..end)?).ok()
}
