//! Waiting for something to listen on a TCP port.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use exec_proto::{ErrorKind, ExitStatus, Failure};

use super::Stop;
use super::link::Link;
use super::workload::Workload;
use crate::sys;

/// The kernel's tables of TCP sockets, listening ones first.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// First and longest pause between two looks: a look costs some 50 µs.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(20);
/// Most that is read of a table: some seven thousand sockets.
const TABLE_LIMIT: usize = 1 << 20;
/// `TCP_LISTEN` of `net/tcp_states.h`, as the tables print it.
const LISTENING: &[u8] = b"0A";

/// What a piece of a table says about a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A socket listens on it, at this address if it is one.
    Listening(Option<IpAddr>),
    /// None does: the listening ones have all been seen.
    Nobody,
    /// None so far.
    NotYet,
}

/// Looks for a listening socket in the text of `/proc/net/tcp` or `tcp6`,
/// complete lines or not.
#[must_use]
pub fn look(table: &[u8], port: u16) -> Seen {
    for (local, state) in sockets(table) {
        if state != LISTENING {
            return Seen::Nobody;
        }
        if let Some(local) = at_port(local, port) {
            return Seen::Listening(address(local));
        }
    }
    Seen::NotYet
}

/// The local addresses and states of the complete lines of a table.
fn sockets(table: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    let lines = table.split_inclusive(|b| *b == b'\n');
    lines.filter_map(|line| {
        let line = line.strip_suffix(b"\n")?;
        let words = line.split(u8::is_ascii_whitespace);
        let mut words = words.filter(|word| !word.is_empty());
        let (number, local, state) = (words.next()?, words.next()?, words.nth(1)?);
        // The heading has no number.
        let is_socket = number.ends_with(b":") && number.first() != Some(&b's');
        let local = std::str::from_utf8(local).unwrap_or_default();
        is_socket.then_some((local, state))
    })
}

/// The address in front of a port, if it is this one.
fn at_port(local: &str, port: u16) -> Option<&str> {
    let (address, local_port) = local.rsplit_once(':')?;
    (u16::from_str_radix(local_port, 16) == Ok(port)).then_some(address)
}

/// An address as the tables print it: words of 32 bits, each in hexadecimal digits
/// of a number whose bytes in memory are those of the address.
fn address(text: &str) -> Option<IpAddr> {
    let mut octets = [0; 16];
    let words = text.as_bytes().chunks(8);
    for (place, word) in octets.chunks_mut(4).zip(words) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        place.copy_from_slice(&word.to_ne_bytes());
    }
    match text.len() {
        8 => Some(Ipv4Addr::from(*octets.first_chunk()?).into()),
        32 => Some(Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

/// The address that a socket listens at on `port`, if there is one.
pub(super) fn listening_at(port: u16) -> Option<IpAddr> {
    let mut text = Vec::new();
    let mut tables = TABLES.iter().filter_map(|path| File::open(path).ok());
    tables.find_map(|table| match find(&table, port, &mut text) {
        Seen::Listening(address) => address,
        Seen::Nobody | Seen::NotYet => None,
    })
}

/// The address at which a socket for datagrams is bound to `port`, if there is one.
pub(super) fn datagrams_at(port: u16) -> Option<IpAddr> {
    ["/proc/net/udp", "/proc/net/udp6"].iter().find_map(|path| {
        let mut table = Vec::new();
        let limit = u64::try_from(TABLE_LIMIT).unwrap_or(u64::MAX);
        File::open(path)
            .and_then(|file| file.take(limit).read_to_end(&mut table))
            .ok()?;
        sockets(&table).find_map(|(local, _)| address(at_port(local, port)?))
    })
}

fn is_bound(table: &File, port: u16, text: &mut Vec<u8>) -> bool {
    matches!(find(table, port, text), Seen::Listening(_))
}

fn find(table: &File, port: u16, text: &mut Vec<u8>) -> Seen {
    text.clear();
    loop {
        let start = text.len();
        text.resize(start + 4096, 0);
        let rest = text.get_mut(start..).unwrap_or_default();
        // A table that cannot be read says nothing.
        let count = table.read_at(rest, start as u64).unwrap_or(0);
        text.truncate(start + count);
        match look(text, port) {
            Seen::NotYet if count != 0 && text.len() < TABLE_LIMIT => {}
            seen => return seen,
        }
    }
}

fn failure(kind: ErrorKind, message: String) -> Stop {
    Stop::Refused(Failure {
        kind,
        errno: 0,
        message,
    })
}

/// Waits until a socket listens on `port`, the workload ends, the host goes
/// away, or the time is up.
pub(super) fn wait(
    link: &Link<'_>,
    workload: &Workload,
    port: u16,
    timeout_ms: u64,
) -> Result<(), Stop> {
    let tables: Vec<File> = TABLES
        .iter()
        .filter_map(|path| File::open(path).ok())
        .collect();
    if tables.is_empty() {
        let message = "no table of TCP sockets in /proc/net".to_owned();
        return Err(failure(ErrorKind::Io, message));
    }
    let deadline = sys::monotonic_ns().saturating_add(timeout_ms.saturating_mul(1_000_000));
    let mut text = Vec::new();
    let mut pause = FIRST_PAUSE;
    loop {
        // The end first: what listened until then has been seen.
        let end = workload.end();
        if tables.iter().any(|table| is_bound(table, port, &mut text)) {
            return Ok(());
        }
        if let Some(status) = end {
            let how = match status {
                ExitStatus::Code(code) => format!("exited with status {code}"),
                ExitStatus::Signal(signal) => format!("was ended by signal {signal}"),
            };
            return Err(failure(
                ErrorKind::WorkloadEnded,
                format!("the workload {how} before anything listened on port {port}"),
            ));
        }
        let left = Duration::from_nanos(deadline.saturating_sub(sys::monotonic_ns()));
        if left.is_zero() {
            return Err(failure(
                ErrorKind::TimedOut,
                format!("nothing listened on port {port} within {timeout_ms} ms"),
            ));
        }
        let mut host = [super::watch(link.socket(), sys::POLLRDHUP)];
        sys::poll(&mut host, Some(pause.min(left)))?;
        if host[0].revents != 0 {
            return Err(Stop::Gone);
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue\n";
    const LISTENER: &str = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000\n";
    const PEER: &str = "   1: 0100007F:0050 0100007F:C350 01 00000000:00000000 00:00000000\n";
    const SIX: &str = "   0: 00000000000000000000000000000000:0050 \
                       00000000000000000000000000000000:0000 0A 00000000\n";

    #[test]
    fn listeners_are_told_from_connections() {
        let table = [HEADING, LISTENER, PEER].concat();
        let anywhere = Some(Ipv4Addr::UNSPECIFIED.into());
        assert_eq!(look(table.as_bytes(), 8080), Seen::Listening(anywhere));
        assert_eq!(look(table.as_bytes(), 80), Seen::Nobody);
        assert_eq!(look(HEADING.as_bytes(), 80), Seen::NotYet);
        let anywhere = Some(Ipv6Addr::UNSPECIFIED.into());
        assert_eq!(look(SIX.as_bytes(), 80), Seen::Listening(anywhere));
        let cut = &LISTENER[..20];
        assert_eq!(look(cut.as_bytes(), 8080), Seen::NotYet);
        assert_eq!(look(b"\n\n : : :\n", 80), Seen::NotYet);
    }

    #[test]
    fn own_listener_is_found_and_gone_when_closed() {
        let at = IpAddr::from([127, 0, 2, 3]);
        let listener = std::net::TcpListener::bind((at, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listening_at(port), Some(at));
        let table = File::open("/proc/net/tcp").unwrap();
        assert!(is_bound(&table, port, &mut Vec::new()));
        drop(listener);
        assert!(!is_bound(&table, port, &mut Vec::new()));
    }
}
