//! The hello of a TLS client, for the name of the server in it (RFC 8446, 4.1.2; RFC
//! 6066, 3).

use super::{Shown, name};

/// The record that hellos come in.
pub(super) const HANDSHAKE: u8 = 22;
/// Bytes in front of a record's content.
const RECORD_HEADER: usize = 5;
/// Most bytes of a record's content (RFC 8446, 5.1).
const MAX_RECORD_BYTES: usize = 16 << 10;
/// Most records that a hello is split over.
const MAX_RECORDS: usize = 64;
/// Bytes in front of a handshake message.
const MESSAGE_HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;
/// Version and random number, in front of what varies.
const FIXED_BYTES: usize = 34;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

pub(super) fn read(bytes: &[u8]) -> Shown {
    let mut message = Vec::new();
    let mut at = 0;
    for _ in 0..MAX_RECORDS {
        let Some(header) = bytes.get(at..at + RECORD_HEADER) else {
            return Shown::More(at + RECORD_HEADER);
        };
        let &[kind, major, _, high, low] = header else {
            return Shown::Unclear;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind != HANDSHAKE || major != 3 || !(1..=MAX_RECORD_BYTES).contains(&length) {
            return Shown::Unclear;
        }
        at += RECORD_HEADER;
        let Some(content) = bytes.get(at..at + length) else {
            return Shown::More(at + length);
        };
        at += length;
        message.extend_from_slice(content);
        let Some(&[kind, a, b, c]) = message.first_chunk::<MESSAGE_HEADER>() else {
            continue;
        };
        if kind != CLIENT_HELLO {
            return Shown::Unclear;
        }
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        let body = message.get(MESSAGE_HEADER..).unwrap_or_default();
        match body.get(..length) {
            Some(hello) => {
                return match server_name(hello) {
                    Some(name) => Shown::Tls(name),
                    None => Shown::Unclear,
                };
            }
            // It would be longer than what is looked at.
            None if length > super::MAX_SHOWN_BYTES => return Shown::Unclear,
            None => {}
        }
    }
    Shown::Unclear
}

/// Takes a vector with a length of one byte in front.
fn short<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first()?;
    let (content, after) = after.split_at_checked(usize::from(*length))?;
    *rest = after;
    Some(content)
}

/// Takes a vector with a length of two bytes in front.
fn long<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(rest)?;
    let (content, after) = rest.split_at_checked(usize::from(length))?;
    *rest = after;
    Some(content)
}

fn number(rest: &mut &[u8]) -> Option<u16> {
    let (number, after) = rest.split_first_chunk::<2>()?;
    *rest = after;
    Some(u16::from_be_bytes(*number))
}

/// The name in a hello, if it has one; none if it is no hello.
fn server_name(hello: &[u8]) -> Option<Option<String>> {
    let (_, mut rest) = hello.split_at_checked(FIXED_BYTES)?;
    let _session = short(&mut rest)?;
    let _suites = long(&mut rest)?;
    let _compression = short(&mut rest)?;
    if rest.is_empty() {
        return Some(None);
    }
    let mut extensions = long(&mut rest).filter(|_| rest.is_empty())?;
    let mut found = None;
    while !extensions.is_empty() {
        let kind = number(&mut extensions)?;
        let content = long(&mut extensions)?;
        if kind == SERVER_NAME && found.replace(content).is_some() {
            return None;
        }
    }
    match found {
        None => Some(None),
        Some(content) => host_name(content).map(Some),
    }
}

/// The only name of a list.
fn host_name(mut content: &[u8]) -> Option<String> {
    let mut list = long(&mut content).filter(|_| content.is_empty())?;
    let (kind, rest) = list.split_first()?;
    list = rest;
    let text = long(&mut list).filter(|_| list.is_empty() && *kind == HOST_NAME)?;
    name(std::str::from_utf8(text).ok()?).filter(|name| crate::policy::is_name(name))
}
