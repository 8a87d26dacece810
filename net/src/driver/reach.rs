//! What this host reaches, and how that is told.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The host's loopback address of the other family. A service of the host listens on one of
/// them or on both, and a guest's program does not know on which: many take the first
/// address of a name, and no other.
pub(super) fn other_loopback(to: SocketAddr) -> Option<SocketAddr> {
    let other: IpAddr = match to.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Ipv4Addr::LOCALHOST.into(),
        _ => return None,
    };
    Some((other, to.port()).into())
}

/// Any address and any port of this host, of the same family as `address`.
pub(super) fn any_like(address: IpAddr) -> SocketAddr {
    match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// What a guest is to be told of a host that has no IPv6, or not this of it: a socket of
/// that family cannot be made there, or has no address, which otherwise means that no
/// port is free.
pub(super) fn without_ipv6(error: io::Error, to: SocketAddr) -> io::Error {
    use io::ErrorKind as Kind;
    match (to.ip(), error.kind()) {
        (_, Kind::ConnectionRefused | Kind::NetworkUnreachable | Kind::HostUnreachable)
        | (IpAddr::V4(_), _) => error,
        (address, _) if has_way_to(address) => error,
        (address, _) if address.is_loopback() => Kind::ConnectionRefused.into(),
        _ => Kind::NetworkUnreachable.into(),
    }
}

/// Whether the host would send to this address from that address itself. Nothing is
/// sent.
pub(super) fn is_own(address: IpAddr) -> bool {
    let from = std::net::UdpSocket::bind(any_like(address)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address)
}

/// Whether the host would know where to send something for this address. Nothing is
/// sent.
pub(super) fn has_way_to(address: IpAddr) -> bool {
    let any = any_like(address);
    std::net::UdpSocket::bind(any).is_ok_and(|socket| socket.connect((address, 9)).is_ok())
}
