//! Sockets for datagrams to one address, of which the host's loopback interface has two.

use std::io;
use std::net::SocketAddr;

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};

use super::reach::{any_like, without_ipv6};

/// Longest message that is kept for another address: questions for names and such. All
/// exchanges together keep 2 MiB.
const MAX_KEPT_BYTES: usize = 4 << 10;

/// Who hears of a socket's events, and by which token.
pub(super) type Watched<'a> = (&'a Registry, Token);

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
        (registry, token): Watched<'_>,
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
    pub(super) fn send(&mut self, message: &[u8], watched: Watched<'_>) -> io::Result<usize> {
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

    pub(super) fn receive(&mut self, room: &mut [u8], watched: Watched<'_>) -> io::Result<usize> {
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
        (registry, token): Watched<'_>,
    ) -> io::Result<()> {
        let Some(unheard) = self.unheard.take() else {
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
    let told = |error| without_ipv6(error, to);
    let socket = UdpSocket::bind(any_like(to.ip())).map_err(told)?;
    socket.connect(to).map_err(told)?;
    Ok(socket)
}
