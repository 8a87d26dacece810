//! Connections from the host to services of this machine.
//!
//! The host's connection becomes the service's: what comes on one goes out on the
//! other, as fast as that takes it, and each direction ends on its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use exec_proto::{ErrorKind, Failure, MAX_DATAGRAM_BYTES, Reply, Transport};

use super::failure::{bad_request, resources};
use super::link::Link;
use super::{Stop, listener};
use crate::sys;

/// Connections at once, each of which has a thread of the agent's: the rest are for
/// commands.
const MAX_OPEN: usize = 768;
/// How long a service may take to accept.
const ACCEPT_LIMIT: Duration = Duration::from_secs(10);
/// Pieces in one direction before the other has its turn.
const TURN: usize = 4;
/// Bytes in front of each datagram: its length.
const LENGTH_BYTES: usize = 2;

/// How many connections there are.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    open: AtomicUsize,
}

/// One of them.
struct Place<'a>(&'a Inbound);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Inbound {
    fn enter(&self) -> Result<Place<'_>, Failure> {
        let place = Place(self);
        if self.open.fetch_add(1, Ordering::SeqCst) < MAX_OPEN {
            return Ok(place);
        }
        Err(Failure {
            kind: ErrorKind::Busy,
            errno: 0,
            message: format!("{MAX_OPEN} connections to this machine are open"),
        })
    }

    /// Connects the host of `link` to a service, and serves both to their end.
    pub(super) fn serve(
        &self,
        link: &mut Link<'_>,
        transport: Transport,
        port: u16,
    ) -> Result<(), Stop> {
        let _place = self.enter()?;
        match transport {
            Transport::Tcp => {
                let service = connect(port)?;
                let waiting = accepted(link)?;
                let (host, input, output) = link.raw();
                let (mut inward, outward) = (Way::new(input), Way::new(output));
                inward.end = waiting;
                relay(host, service.as_fd(), inward, outward)?;
            }
            Transport::Udp => {
                let service = Datagrams::open(port).map_err(|e| resources(&e, "socket"))?;
                let waiting = accepted(link)?;
                let (host, input, output) = link.raw();
                let (mut inward, outward) = (Way::new(input), Way::new(output));
                inward.end = waiting;
                service.relay(host, inward, outward)?;
            }
        }
        Ok(())
    }
}

/// Tells the host that it is connected; how much of its bytes is there already, in
/// the input's room.
fn accepted(link: &mut Link<'_>) -> Result<usize, Stop> {
    link.queue(&Reply::Done);
    link.flush()?;
    let rest = link.parser.take_rest();
    let (_, input, _) = link.raw();
    let room = input.get_mut(..rest.len());
    let room = room.ok_or_else(|| bad_request("more than fits behind a call"))?;
    room.copy_from_slice(&rest);
    Ok(rest.len())
}

/// Connects to whatever address of this machine something listens at.
fn connect(port: u16) -> Result<TcpStream, Stop> {
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let call = |address: IpAddr| {
        let address = SocketAddr::new(address, port);
        TcpStream::connect_timeout(&address, ACCEPT_LIMIT)
    };
    let mut last = None;
    for address in loopback {
        match call(address) {
            Ok(service) => return ready(service),
            Err(error) => last = Some(error),
        }
        if last.as_ref().is_some_and(is_silent) {
            break;
        }
    }
    let elsewhere = listener::listening_at(port).filter(|address| !address.is_unspecified());
    if let Some(address) = elsewhere.filter(|address| !loopback.contains(address)) {
        match call(address) {
            Ok(service) => return ready(service),
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into());
    let (kind, how) = match is_silent(&error) {
        true => (ErrorKind::TimedOut, "what listens on it takes none"),
        false => (ErrorKind::Refused, "nothing listens on it"),
    };
    Err(Stop::Refused(Failure {
        kind,
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("no connection to port {port}: {how}"),
    }))
}

/// There is a service, which is busy: another address would not be better.
fn is_silent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
}

fn ready(service: TcpStream) -> Result<TcpStream, Stop> {
    service.set_nonblocking(true)?;
    // What is small is not held back to become larger: the host has done that.
    service.set_nodelay(true)?;
    Ok(service)
}

/// One direction.
struct Way<'a> {
    room: &'a mut [u8],
    start: usize,
    end: usize,
    /// Nothing more comes.
    ended: bool,
    /// That was passed on.
    shut: bool,
}

impl<'a> Way<'a> {
    fn new(room: &'a mut [u8]) -> Self {
        Self {
            room,
            start: 0,
            end: 0,
            ended: false,
            shut: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn waiting(&self) -> &[u8] {
        self.room.get(self.start..self.end).unwrap_or_default()
    }

    /// Moves what can be moved without waiting.
    fn pump(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
        for _ in 0..TURN {
            while !self.is_empty() {
                match would_block(sys::send(to, self.waiting()))? {
                    Some(count) => self.start += count,
                    None => return Ok(()),
                }
            }
            if self.ended {
                break;
            }
            (self.start, self.end) = (0, 0);
            match would_block(sys::receive(from, self.room, false))? {
                Some(0) => self.ended = true,
                Some(count) => self.end = count,
                None => return Ok(()),
            }
        }
        if self.ended && self.is_empty() && !self.shut {
            sys::shutdown_write(to);
            self.shut = true;
        }
        Ok(())
    }
}

/// What a call did, if it did not have to wait.
fn would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}

/// What to wait for at a socket from which `from` comes and to which `to` goes.
/// Nothing is waited for, not even its end, while what it sent is not through.
fn interest(socket: BorrowedFd<'_>, from: &Way<'_>, to: &Way<'_>) -> Option<sys::Watch> {
    let input = if from.is_empty() && !from.ended {
        sys::POLLIN
    } else {
        0
    };
    let output = if to.is_empty() { 0 } else { sys::POLLOUT };
    let events = input | output;
    (events != 0 || from.shut).then(|| super::watch(socket, events))
}

/// Serves two sockets until both directions have ended, or one socket is broken.
fn relay(
    host: BorrowedFd<'_>,
    service: BorrowedFd<'_>,
    mut inward: Way<'_>,
    mut outward: Way<'_>,
) -> io::Result<()> {
    loop {
        inward.pump(host, service)?;
        outward.pump(service, host)?;
        if inward.shut && outward.shut {
            return Ok(());
        }
        let watched = [
            interest(host, &inward, &outward),
            interest(service, &outward, &inward),
        ];
        let mut watches: Vec<sys::Watch> = watched.into_iter().flatten().collect();
        sys::poll(&mut watches, None)?;
        // Of one that was asked for nothing it is the end.
        if watches.iter().any(|w| w.events == 0 && w.revents != 0) {
            return Ok(());
        }
    }
}

/// A service of datagrams.
struct Datagrams {
    port: u16,
    socket: UdpSocket,
}

impl Datagrams {
    /// Calls what is bound to the port, at whatever address of this machine.
    fn open(port: u16) -> io::Result<Self> {
        let (address, any): (IpAddr, IpAddr) = match listener::datagrams_at(port) {
            Some(IpAddr::V6(address)) if address.is_unspecified() => {
                (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into())
            }
            Some(IpAddr::V6(address)) => (address.into(), Ipv6Addr::UNSPECIFIED.into()),
            Some(IpAddr::V4(address)) if !address.is_unspecified() => {
                (address.into(), Ipv4Addr::UNSPECIFIED.into())
            }
            _ => (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into()),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, port))?;
        socket.set_nonblocking(true)?;
        Ok(Self { port, socket })
    }

    /// Sends a datagram. What cannot be sent is lost, as on any network.
    fn send(&mut self, datagram: &[u8]) {
        let sent = self.socket.send(datagram);
        if sent.is_err_and(|error| self.has_moved(&error)) {
            let _ = self.socket.send(datagram);
        }
    }

    /// Whether an error says that nobody was there, and somebody may be now.
    fn has_moved(&mut self, error: &io::Error) -> bool {
        if error.kind() != io::ErrorKind::ConnectionRefused {
            return false;
        }
        let moved = Self::open(self.port).map(|found| self.socket = found.socket);
        moved.is_ok()
    }

    fn relay(
        mut self,
        host: BorrowedFd<'_>,
        mut inward: Way<'_>,
        mut outward: Way<'_>,
    ) -> io::Result<()> {
        loop {
            self.pass_in(&mut inward)?;
            if inward.ended {
                return Ok(());
            }
            self.pass_out(host, &mut outward)?;
            let output = if outward.is_empty() { 0 } else { sys::POLLOUT };
            let input = if outward.is_empty() { sys::POLLIN } else { 0 };
            let mut watches = [
                super::watch(host, sys::POLLIN | output),
                super::watch(self.socket.as_fd(), input),
            ];
            sys::poll(&mut watches, None)?;
            if watches[0].revents & !sys::POLLOUT != 0 {
                let room = inward.room.get_mut(inward.end..).unwrap_or_default();
                match would_block(sys::receive(host, room, false))? {
                    Some(0) => inward.ended = true,
                    Some(count) => inward.end += count,
                    None => {}
                }
            }
        }
    }

    /// Sends the datagrams that are whole, and moves the rest to the front.
    fn pass_in(&mut self, inward: &mut Way<'_>) -> io::Result<()> {
        while let Some(length) = inward.waiting().first_chunk::<LENGTH_BYTES>() {
            let length = usize::from(u16::from_le_bytes(*length));
            if length > MAX_DATAGRAM_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let whole = inward.waiting().get(LENGTH_BYTES..LENGTH_BYTES + length);
            let Some(datagram) = whole else { break };
            self.send(datagram);
            inward.start += LENGTH_BYTES + length;
        }
        inward.room.copy_within(inward.start..inward.end, 0);
        (inward.start, inward.end) = (0, inward.end - inward.start);
        Ok(())
    }

    /// Takes answers, one after the other as the host takes them.
    fn pass_out(&mut self, host: BorrowedFd<'_>, outward: &mut Way<'_>) -> io::Result<()> {
        for _ in 0..TURN {
            while !outward.is_empty() {
                match would_block(sys::send(host, outward.waiting()))? {
                    Some(count) => outward.start += count,
                    None => return Ok(()),
                }
            }
            (outward.start, outward.end) = (0, 0);
            let Some(room) = outward.room.get_mut(LENGTH_BYTES..) else {
                return Ok(());
            };
            let count = match self.socket.recv(room) {
                Ok(count) => count,
                // Also that nobody took the last one.
                Err(error) => {
                    self.has_moved(&error);
                    return Ok(());
                }
            };
            let length = u16::try_from(count).map_err(|_| io::ErrorKind::InvalidData)?;
            if let Some(place) = outward.room.first_chunk_mut::<LENGTH_BYTES>() {
                *place = length.to_le_bytes();
            }
            outward.end = LENGTH_BYTES + count;
        }
        Ok(())
    }
}
