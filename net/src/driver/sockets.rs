//! The host's sockets, by flow.

use std::io::{self, IoSliceMut, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::net::sockopt;

use super::broker::{self, Handed, Outcome, Slot};
use super::datagram::{Datagram, Watched};
use super::echo::Echo;
use super::reach::{has_way_to, is_own, other_loopback, without_ipv6};
use super::{Port, Shared};
use crate::io::{Close, FlowId, Frame, Io, Offloads, Query, Ticket, Transport};
use crate::record::FlowRecord;

/// How long a connection is silent before the host asks whether the other end is
/// still there: those that died while the host slept end then.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// A socket of a flow.
enum Socket {
    /// With where else it is looked for if it is refused.
    Stream(TcpStream, Option<SocketAddr>),
    Datagram(Datagram),
    Echo(Echo),
    /// A connection that somebody else serves.
    Handed(UnixStream, Slot),
}

/// The sockets of a guest's flows.
#[derive(Default)]
pub(super) struct Sockets {
    streams: Vec<Option<Socket>>,
    registry: Option<Registry>,
}

impl Sockets {
    pub(super) fn watch(&mut self, registry: Registry) {
        self.registry = Some(registry);
    }

    fn get(&mut self, flow: FlowId) -> io::Result<&mut Socket> {
        let place = self.streams.get_mut(flow.0 as usize);
        place
            .and_then(Option::as_mut)
            .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// A flow's socket, and what another in its place is watched by.
    fn watched(&mut self, flow: FlowId) -> io::Result<(&mut Socket, Watched<'_>)> {
        let place = self.streams.get_mut(flow.0 as usize);
        match (place.and_then(Option::as_mut), &self.registry) {
            (Some(socket), Some(registry)) => Ok((socket, (registry, Token(flow.0 as usize)))),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Begins to connect a stream, and looks for it at `other` if it is refused.
    fn begin(&mut self, flow: FlowId, to: SocketAddr, other: Option<SocketAddr>) -> io::Result<()> {
        let connect = |to| TcpStream::connect(to).map_err(|error| without_ipv6(error, to));
        // Some hosts know at once that it is refused.
        let (mut stream, other) = match (connect(to), other) {
            (Err(error), Some(other)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                (connect(other)?, None)
            }
            (stream, other) => (stream?, other),
        };
        // What the guest sends small, it wants sent small.
        let _ = stream.set_nodelay(true);
        let _ = sockopt::set_socket_keepalive(&stream, true);
        let _ = sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE);
        let Some(registry) = &self.registry else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let token = Token(flow.0 as usize);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.put(flow, Socket::Stream(stream, other));
        Ok(())
    }

    /// What became of a stream that was being connected.
    fn connected(&mut self, flow: FlowId) -> io::Result<()> {
        let Socket::Stream(stream, other) = self.get(flow)? else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let Some(error) = stream.take_error()? else {
            return stream.peer_addr().map(drop);
        };
        match other.take() {
            Some(other) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.remove(flow);
                self.begin(flow, other, None)?;
                Err(io::ErrorKind::NotConnected.into())
            }
            _ => Err(error),
        }
    }

    /// Takes a flow's socket out, and watches it no more.
    fn remove(&mut self, flow: FlowId) -> Option<Socket> {
        let place = self.streams.get_mut(flow.0 as usize);
        let mut socket = place.and_then(Option::take)?;
        if let Some(registry) = &self.registry {
            let _ = match &mut socket {
                Socket::Stream(stream, _) => registry.deregister(stream),
                Socket::Datagram(socket) => socket.deregister(registry),
                Socket::Echo(socket) => registry.deregister(socket),
                Socket::Handed(stream, _) => registry.deregister(stream),
            };
        }
        Some(socket)
    }

    fn put(&mut self, flow: FlowId, socket: Socket) {
        let place = flow.0 as usize;
        if self.streams.len() <= place {
            self.streams.resize_with(place + 1, || None);
        }
        self.streams[place] = Some(socket);
    }
}

/// Both sides of the core: sockets, and the guest unless it is not to be touched.
pub(super) struct Both<'a> {
    sockets: &'a mut Sockets,
    shared: &'a Arc<Shared>,
    port: Option<&'a dyn Port>,
    offloads: Offloads,
}

impl<'a> Both<'a> {
    pub(super) fn new(
        sockets: &'a mut Sockets,
        shared: &'a Arc<Shared>,
        port: &'a dyn Port,
    ) -> Self {
        Self {
            sockets,
            shared,
            port: Some(port),
            offloads: port.offloads(),
        }
    }

    pub(super) fn without_guest(sockets: &'a mut Sockets, shared: &'a Arc<Shared>) -> Self {
        Self {
            sockets,
            shared,
            port: None,
            offloads: Offloads::default(),
        }
    }
}

impl Io for Both<'_> {
    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn give(&mut self, frame: &Frame<'_>) -> bool {
        self.port.is_some_and(|port| port.give(frame))
    }

    fn connect(&mut self, flow: FlowId, transport: Transport, to: SocketAddr) -> io::Result<()> {
        let Some(registry) = &self.sockets.registry else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let token = Token(flow.0 as usize);
        let socket = match transport {
            Transport::Stream => return self.sockets.begin(flow, to, other_loopback(to)),
            Transport::Datagram => {
                let watched = (registry, token);
                Socket::Datagram(Datagram::connect(to, other_loopback(to), watched)?)
            }
            Transport::Echo => {
                let socket = Echo::connect(to.ip());
                let mut socket = socket.map_err(|error| without_ipv6(error, to))?;
                registry.register(&mut socket, token, Interest::READABLE)?;
                Socket::Echo(socket)
            }
        };
        self.sockets.put(flow, socket);
        Ok(())
    }

    fn connected(&mut self, flow: FlowId) -> io::Result<()> {
        self.sockets.connected(flow)
    }

    fn send(&mut self, flow: FlowId, bytes: &[u8]) -> io::Result<usize> {
        let (socket, watched) = self.sockets.watched(flow)?;
        match socket {
            Socket::Stream(stream, _) => stream.write(bytes),
            Socket::Handed(stream, _) => stream.write(bytes),
            Socket::Datagram(socket) => socket.send(bytes, watched).map_err(too_long),
            Socket::Echo(socket) => socket.send(bytes).map_err(too_long),
        }
    }

    fn receive(&mut self, flow: FlowId, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let (socket, watched) = self.sockets.watched(flow)?;
        match (socket, room) {
            (Socket::Stream(stream, _), room) => stream.read_vectored(room),
            (Socket::Handed(stream, slot), room) => match stream.read_vectored(room) {
                // Its end is told by what was said of it.
                Ok(0) if broker::is_refused(slot) => Err(io::ErrorKind::ConnectionReset.into()),
                read => read,
            },
            (Socket::Datagram(socket), [room, ..]) => socket.receive(room, watched),
            (Socket::Echo(socket), [room, ..]) => socket.receive(room),
            (_, []) => Ok(0),
        }
    }

    fn hand_over(&mut self, flow: FlowId, name: &str, port: u16, begun: Vec<u8>) -> io::Result<()> {
        let (Some(registry), Some(broker)) = (&self.sockets.registry, self.shared.broker.get())
        else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let (own, guest) = std::os::unix::net::UnixStream::pair()?;
        own.set_nonblocking(true)?;
        let mut own = UnixStream::from_std(own);
        let (outcome, slot) = Outcome::new(self.shared.log.clone());
        let place = self.sockets.streams.get_mut(flow.0 as usize);
        let Some(Socket::Stream(mut host, _)) = place.and_then(Option::take) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        registry.deregister(&mut host)?;
        let token = Token(flow.0 as usize);
        registry.register(&mut own, token, Interest::READABLE | Interest::WRITABLE)?;
        self.sockets.put(flow, Socket::Handed(own, slot));
        broker.take(Handed {
            guest,
            host: OwnedFd::from(host).into(),
            name: name.to_owned(),
            port,
            begun,
            outcome,
        });
        Ok(())
    }

    fn complete(&mut self, flow: FlowId, record: FlowRecord) -> Option<FlowRecord> {
        match self.sockets.get(flow) {
            Ok(Socket::Handed(_, slot)) => broker::complete(slot, record),
            _ => Some(record),
        }
    }

    fn finish_sending(&mut self, flow: FlowId) {
        // One that is gone already is noticed when it is read.
        let _ = match self.sockets.get(flow) {
            Ok(Socket::Stream(stream, _)) => stream.shutdown(Shutdown::Write),
            Ok(Socket::Handed(stream, _)) => stream.shutdown(Shutdown::Write),
            _ => Ok(()),
        };
    }

    fn close(&mut self, flow: FlowId, how: Close) {
        let Some(socket) = self.sockets.remove(flow) else {
            return;
        };
        if let (Socket::Stream(stream, _), Close::Reset) = (&socket, how) {
            let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
    }

    fn look_up(&mut self, ticket: Ticket, query: Query) -> bool {
        self.shared.resolver.ask(self.shared, ticket, query)
    }

    fn has_ipv6(&mut self) -> bool {
        has_way_to(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
    }

    fn is_own(&mut self, address: IpAddr) -> bool {
        is_own(address)
    }
}

/// The error of a message, by which one that is too long is told from others.
fn too_long(error: io::Error) -> io::Error {
    match rustix::io::Errno::from_io_error(&error) {
        Some(rustix::io::Errno::MSGSIZE) => io::ErrorKind::FileTooLarge.into(),
        _ => error,
    }
}
