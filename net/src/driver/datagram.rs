//! Sockets for datagrams to one address, of which the host's loopback interface has two.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};

use super::reach::without_ipv6;

/// Longest message that is kept for another address: questions for names and such. All
/// exchanges together keep 2 MiB.
const MAX_KEPT_BYTES: usize = 4 << 10;

/// A socket that is connected to one address.
pub(super) struct Datagram {
    socket: UdpSocket,
    /// Until something is heard from there.
    unheard: Option<Unheard>,
}

/// Where else somebody may listen, if nobody does here.
struct Unheard {
    other: SocketAddr,
    /// The first message. Who refuses it has not had it.
    first: Option<Vec<u8>>,
}

impl Datagram {
    /// Connects a socket to an address, and goes to `other` if that refuses what is sent.
    pub(super) fn connect(
        to: SocketAddr,
        other: Option<SocketAddr>,
        (registry, token): (&Registry, Token),
    ) -> io::Result<Self> {
        let (mut socket, other) = match (open(to), other) {
            (Err(error), Some(other)) if is_refusal(&error) => (open(other)?, None),
            (socket, other) => (socket?, other),
        };
        registry.register(&mut socket, token, Interest::READABLE)?;
        let unheard = other.map(|other| Unheard { other, first: None });
        Ok(Self { socket, unheard })
    }

    pub(super) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.socket)
    }

    /// Sends a message. An error may be that of one before.
    pub(super) fn send(
        &mut self,
        message: &[u8],
        watched: Option<(&Registry, Token)>,
    ) -> io::Result<usize> {
        match self.socket.send(message) {
            Err(error) if is_refusal(&error) => {
                self.turn_to_other(error, watched)?;
                self.socket.send(message)
            }
            sent => {
                if let Some(unheard) = &mut self.unheard
                    && sent.is_ok()
                    && message.len() <= MAX_KEPT_BYTES
                {
                    unheard.first.get_or_insert_with(|| message.to_vec());
                }
                sent
            }
        }
    }

    pub(super) fn receive(
        &mut self,
        room: &mut [u8],
        watched: Option<(&Registry, Token)>,
    ) -> io::Result<usize> {
        match self.socket.recv(room) {
            Err(error) if is_refusal(&error) => {
                self.turn_to_other(error, watched)?;
                Err(io::ErrorKind::WouldBlock.into())
            }
            Ok(bytes) => {
                self.unheard = None;
                Ok(bytes)
            }
            failed => failed,
        }
    }

    /// Goes to the other address after a refusal, with the message that was refused. The
    /// refusal is the caller's if there is no other.
    fn turn_to_other(
        &mut self,
        refusal: io::Error,
        watched: Option<(&Registry, Token)>,
    ) -> io::Result<()> {
        let (Some(unheard), Some((registry, token))) = (self.unheard.take(), watched) else {
            return Err(refusal);
        };
        let Ok(mut socket) = open(unheard.other) else {
            return Err(refusal);
        };
        registry.deregister(&mut self.socket)?;
        registry.register(&mut socket, token, Interest::READABLE)?;
        self.socket = socket;
        if let Some(first) = unheard.first {
            self.socket.send(&first)?;
        }
        Ok(())
    }
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

fn open(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let told = |error| without_ipv6(error, to);
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).map_err(told)?;
    socket.connect(to).map_err(told)?;
    Ok(socket)
}
