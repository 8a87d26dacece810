//! Ports of the host that lead to the guest.

use crate::{Error, Vm};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// `[IP:][HOST]:GUEST[/PROTOCOL]`, or the guest's port alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    host: SocketAddr,
    guest: u16,
    is_udp: bool,
}

/// Reads one.
pub fn publish(text: &str) -> Result<Publish, String> {
    let (ports, is_udp) = protocol(text)?;
    let (host, guest) = match ports.rsplit_once(':') {
        Some((host, guest)) => (host, guest),
        None => ("", ports),
    };
    let (address, port) = match host.rsplit_once(':') {
        Some((address, port)) => (self::address(address)?, port),
        None => (Ipv4Addr::LOCALHOST.into(), host),
    };
    let port = match port {
        "" => 0,
        port => number(port)?,
    };
    match number(guest)? {
        0 => Err("the guest has no port 0".into()),
        guest => Ok(Publish {
            host: (address, port).into(),
            guest,
            is_udp,
        }),
    }
}

/// What stands before `/tcp` or `/udp`, and whether it is UDP; TCP if nothing is said.
pub fn protocol(text: &str) -> Result<(&str, bool), String> {
    match text.rsplit_once('/') {
        Some((before, "udp")) => Ok((before, true)),
        Some((before, "tcp")) => Ok((before, false)),
        Some((_, other)) => Err(format!("`{other}` is neither tcp nor udp")),
        None => Ok((text, false)),
    }
}

/// An address of the host; of IPv6 in brackets.
fn address(text: &str) -> Result<IpAddr, String> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = match inner {
        Some(inner) => inner.parse().map(IpAddr::V6),
        None => text.parse().map(IpAddr::V4),
    };
    address.map_err(|_| format!("`{text}` is no address of this host, like 0.0.0.0 or [::1]"))
}

fn number(text: &str) -> Result<u16, String> {
    let is_number = text.bytes().all(|digit| digit.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number);
    number.ok_or_else(|| format!("`{text}` is no port: give one number, and -p for each"))
}

/// Opens them for as long as the machine runs.
pub fn open(vm: &Vm, ports: &[Publish]) -> Result<(), Error> {
    for port in ports {
        match port.is_udp {
            true => vm.expose_udp_at(port.host, port.guest)?.keep(),
            false => vm.expose_tcp_at(port.host, port.guest)?.keep(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, u16, bool) {
        let port = publish(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        (port.host.to_string(), port.guest, port.is_udp)
    }

    #[test]
    fn ports_are_read_as_docker_writes_them_and_stay_on_this_host() {
        for (text, host, guest, is_udp) in [
            ("8080:80", "127.0.0.1:8080", 80, false),
            ("8080:80/tcp", "127.0.0.1:8080", 80, false),
            ("53:53/udp", "127.0.0.1:53", 53, true),
            ("0.0.0.0:1:2", "0.0.0.0:1", 2, false),
            ("[::1]:1:2/udp", "[::1]:1", 2, true),
            ("127.0.0.1::80", "127.0.0.1:0", 80, false),
            (":80", "127.0.0.1:0", 80, false),
            ("80", "127.0.0.1:0", 80, false),
        ] {
            assert_eq!(read(text), (host.to_owned(), guest, is_udp), "{text}");
        }
        for bad in [
            "",
            ":",
            "a:80",
            "80:a",
            "80:0",
            "65536:1",
            "1:2/sctp",
            "1:2:3",
            "::1:1:2",
            "8000-8001:80",
            "+1:2",
            "localhost:1:2",
            "[127.0.0.1]:1:2",
            "1:2/",
        ] {
            assert!(publish(bad).is_err(), "{bad}");
        }
    }
}
