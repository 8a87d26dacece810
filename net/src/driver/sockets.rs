//! The host's sockets, by flow.

use std::io::{self, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::net::sockopt;

use super::{Port, Shared};
use crate::dns::Family;
use crate::io::{Close, FlowId, Frame, Io, Offloads, Ticket};

/// How long a connection is silent before the host asks whether the other end is
/// still there: those that died while the host slept end then.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// The sockets of a guest's flows.
#[derive(Default)]
pub(super) struct Sockets {
    streams: Vec<Option<TcpStream>>,
    registry: Option<Registry>,
}

impl Sockets {
    pub(super) fn watch(&mut self, registry: Registry) {
        self.registry = Some(registry);
    }

    fn stream(&mut self, flow: FlowId) -> io::Result<&mut TcpStream> {
        let place = self.streams.get_mut(flow.0 as usize);
        place
            .and_then(Option::as_mut)
            .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
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

    fn connect(&mut self, flow: FlowId, to: SocketAddr) -> io::Result<()> {
        let Some(registry) = &self.sockets.registry else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut stream = TcpStream::connect(to)?;
        // What the guest sends small, it wants sent small.
        let _ = stream.set_nodelay(true);
        let _ = sockopt::set_socket_keepalive(&stream, true);
        let _ = sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE);
        let token = Token(flow.0 as usize);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let place = flow.0 as usize;
        if self.sockets.streams.len() <= place {
            self.sockets.streams.resize_with(place + 1, || None);
        }
        self.sockets.streams[place] = Some(stream);
        Ok(())
    }

    fn connected(&mut self, flow: FlowId) -> io::Result<()> {
        let stream = self.sockets.stream(flow)?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        stream.peer_addr().map(drop)
    }

    fn send(&mut self, flow: FlowId, bytes: &[u8]) -> io::Result<usize> {
        self.sockets.stream(flow)?.write(bytes)
    }

    fn receive(&mut self, flow: FlowId, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.sockets.stream(flow)?.read_vectored(room)
    }

    fn finish_sending(&mut self, flow: FlowId) {
        if let Ok(stream) = self.sockets.stream(flow) {
            // One that is gone already is noticed when it is read.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, flow: FlowId, how: Close) {
        let place = self.sockets.streams.get_mut(flow.0 as usize);
        let Some(mut stream) = place.and_then(Option::take) else {
            return;
        };
        if let Some(registry) = &self.sockets.registry {
            let _ = registry.deregister(&mut stream);
        }
        if how == Close::Reset {
            let _ = sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
        }
    }

    fn look_up(&mut self, ticket: Ticket, name: &str, family: Family) -> bool {
        self.shared.resolver.ask(self.shared, ticket, name, family)
    }
}
