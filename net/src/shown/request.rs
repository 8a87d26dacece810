//! The first request of an HTTP/1 client, for the hosts that it names (RFC 9112, 3.2).

use super::{Shown, name};

/// What ends a head.
const END: &[u8] = b"\r\n\r\n";
/// What the first line of a request ends in, but for a number.
const VERSION: &[u8] = b" HTTP/";
/// Longest method: what is longer is another protocol's.
const MAX_METHOD_BYTES: usize = 24;

pub(super) fn read(bytes: &[u8], known: usize) -> Shown {
    let word = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-');
    let method = word.count();
    match bytes.get(method) {
        _ if method > MAX_METHOD_BYTES => return Shown::Other,
        None => return Shown::More(bytes.len() + 1),
        Some(b' ') => {}
        Some(_) => return Shown::Other,
    }
    let Some(line) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Shown::More(bytes.len() + 1);
    };
    // Words of mail and others, whose servers wait for no empty line.
    let line = bytes.get(..line).unwrap_or_default();
    if !line.windows(VERSION.len()).any(|window| window == VERSION) {
        return Shown::Other;
    }
    let from = known.saturating_sub(END.len() - 1);
    let fresh = bytes.get(from..).unwrap_or_default();
    let end = fresh.windows(END.len()).position(|window| window == END);
    let Some(head) = end.and_then(|at| bytes.get(..from + at)) else {
        // Some servers take other ends of lines.
        return match has_bare_end(bytes) {
            true => Shown::Unclear,
            false => Shown::More(bytes.len() + 1),
        };
    };
    match has_bare_end(head) {
        true => Shown::Unclear,
        false => hosts(head).map_or(Shown::Unclear, Shown::Http),
    }
}

/// Whether there is an end of a line that only some readers see.
fn has_bare_end(bytes: &[u8]) -> bool {
    let mut before = 0;
    bytes.iter().enumerate().any(|(at, byte)| {
        let last = std::mem::replace(&mut before, *byte);
        match byte {
            b'\n' => last != b'\r',
            b'\r' => bytes.get(at + 1).is_some_and(|next| *next != b'\n'),
            _ => false,
        }
    })
}

/// The names of the hosts that a request is for; addresses are none.
fn hosts(head: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") {
        return None;
    }
    let mut named = Vec::new();
    if method == "CONNECT" {
        named.push(target);
    } else if !target.starts_with('/') && target != "*" {
        let (_, rest) = target.split_once("://")?;
        named.push(rest.split(['/', '?']).next()?);
    }
    for line in lines {
        // A line that goes on the one before (obsolete), or a name with a space behind.
        let (field, value) = line.split_once(':')?;
        if field.is_empty() || field.contains([' ', '\t']) {
            return None;
        }
        if field.eq_ignore_ascii_case("host") {
            named.push(value.trim_matches([' ', '\t']));
        }
    }
    let hosts: Option<Vec<String>> = named.into_iter().map(host).filter(keep).collect();
    hosts
}

fn keep(host: &Option<String>) -> bool {
    host.as_deref() != Some("")
}

/// A host without its port, or an empty text for an address; none for what is neither.
fn host(text: &str) -> Option<String> {
    let has_user = text.contains('@');
    let without_port = match text.rsplit_once(':') {
        Some((before, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => before,
        _ => text,
    };
    match name(without_port) {
        None => Some(String::new()),
        Some(name) => (!has_user && crate::policy::is_name(&name)).then_some(name),
    }
}
