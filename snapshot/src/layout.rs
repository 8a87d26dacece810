//! Names of generations, of the pointer to one, and of what is not finished.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

pub(crate) const POINTER: &str = "current";
/// Digits of a generation's name.
const DIGITS: usize = 10;
/// Bytes of the pointer: a name, a space, its CRC32C in hex digits, a line's end.
pub(crate) const POINTER_BYTES: usize = DIGITS + 1 + 8 + 1;

pub(crate) fn generation_name(number: u64) -> String {
    format!("{number:0DIGITS$}")
}

pub(crate) fn generation_number(name: &OsStr) -> Option<u64> {
    let name = name.to_str()?;
    let digits = name.len() == DIGITS && name.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| name.parse().ok())?
}

/// What the pointer to a generation holds. There is one spelling, so that every
/// changed byte is found.
pub(crate) fn pointer_to(number: u64) -> String {
    let name = generation_name(number);
    format!("{name} {:08x}\n", crc32c::crc32c(name.as_bytes()))
}

/// The generation that a pointer with this content names.
pub(crate) fn pointed_to(text: &[u8]) -> Option<u64> {
    let number = generation_number(OsStr::from_bytes(text.get(..DIGITS)?))?;
    (pointer_to(number).as_bytes() == text).then_some(number)
}

/// A name of this crate's own for what is not finished; `stem` tells what it
/// will be.
pub(crate) fn temporary_name(stem: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(stem);
    format!(".{stem}.{}.{random:016x}.tmp", std::process::id())
}

/// The process in a name made by [`temporary_name`].
pub(crate) fn temporary_owner(name: &OsStr) -> Option<u32> {
    let inner = name.to_str()?.strip_prefix('.')?.strip_suffix(".tmp")?;
    let mut parts = inner.split('.');
    let (stem, pid, random) = (parts.next()?, parts.next()?, parts.next()?);
    let known = stem == POINTER || generation_number(OsStr::new(stem)).is_some();
    let hex = random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    (known && hex && parts.next().is_none()).then(|| pid.parse().ok())?
}
