//! Ports that take datagrams.
//!
//! Each sender is a connection to the agent of its own, with a thread that passes its
//! datagrams on and the answers back.

use super::Way;
use super::open::{Connection, Open, Sign, spawn};
use super::streams::{taken, timespec};
use crate::Error;
use crate::error::with_causes;
use crate::limits::DATAGRAM_REST;
use exec_proto::{MAX_DATAGRAM_BYTES, Printable, Transport};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, PoisonError, RwLock};
use tracing::debug;

/// Senders at a time; the one that came first goes for another.
const MAX_SENDERS: usize = 256;
/// Datagrams taken before the port looks at its end.
const TURN: usize = 64;
/// Bytes in front of each datagram on a connection: its length.
const LENGTH_BYTES: usize = 2;
/// Room for a datagram of any length.
const ROOM_BYTES: usize = LENGTH_BYTES + MAX_DATAGRAM_BYTES;

/// A port, and which it is.
pub fn bind(address: SocketAddr) -> Result<(UdpSocket, SocketAddr), Error> {
    let bind = || {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        let bound = socket.local_addr()?;
        Ok((socket, bound))
    };
    bind().map_err(taken(address))
}

/// Passes a socket's datagrams on to a service.
pub fn serve(way: Way, socket: UdpSocket, shown: String) -> Result<Open, Error> {
    let ports = way.ports.clone();
    let severed = ports.severed()?;
    let answers = socket.try_clone();
    let answers = answers.map_err(Error::system("share a socket"))?;
    let mut port = Port {
        way: Arc::new(way),
        socket,
        answers: Arc::new(RwLock::new(Some(answers))),
        senders: HashMap::new(),
        order: VecDeque::new(),
        severed,
    };
    ports.open(shown, move |stop| {
        port.take(&stop);
        // The port is free as soon as it is stopped.
        *port.answers.write().unwrap_or_else(PoisonError::into_inner) = None;
    })
}

/// For answers, as long as the port is open.
type Answers = Arc<RwLock<Option<UdpSocket>>>;

struct Port {
    way: Arc<Way>,
    socket: UdpSocket,
    answers: Answers,
    senders: HashMap<SocketAddr, Sender>,
    /// In the order in which they came.
    order: VecDeque<SocketAddr>,
    severed: Sign,
}

/// Somebody who sends; its thread ends with it.
struct Sender {
    datagrams: UnixDatagram,
    _end: UnixStream,
}

impl Port {
    fn take(&mut self, stop: &Sign) {
        let mut room = vec![0; MAX_DATAGRAM_BYTES];
        loop {
            let mut fds = [stop.watch(), PollFd::new(&self.socket, PollFlags::IN)];
            // Interrupted, it looks again.
            let _ = poll(&mut fds, None);
            if !fds[0].revents().is_empty() {
                return;
            }
            for _ in 0..TURN {
                match self.socket.recv_from(&mut room) {
                    Ok((count, from)) => self.pass(from, &room[..count]),
                    // Also that nobody took an answer.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(_) => break,
                }
            }
        }
    }

    /// Gives a datagram to its sender's thread. What there is no room for is lost.
    fn pass(&mut self, from: SocketAddr, datagram: &[u8]) {
        if let Some(sender) = self.senders.get(&from) {
            match sender.datagrams.send(datagram) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.forget(from),
                _ => return,
            }
        }
        match self.welcome(from) {
            Ok(sender) => {
                let _ = sender.datagrams.send(datagram);
                self.senders.insert(from, sender);
                self.order.push_back(from);
            }
            Err(error) => debug!(%error, "no place for a sender of datagrams"),
        }
    }

    fn forget(&mut self, sender: SocketAddr) {
        self.senders.remove(&sender);
        self.order.retain(|known| *known != sender);
    }

    fn welcome(&mut self, from: SocketAddr) -> io::Result<Sender> {
        if self.senders.len() >= MAX_SENDERS
            && let Some(first) = self.order.front().copied()
        {
            self.forget(first);
        }
        let place = self.way.ports.enter();
        let place = place.ok_or_else(|| io::Error::other("as many connections as there may be"))?;
        let (datagrams, theirs) = UnixDatagram::pair()?;
        datagrams.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        // Where a datagram of this length is more than is usual.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&datagrams, 4 * ROOM_BYTES);
        let (end, ended) = UnixStream::pair()?;
        let line = Line {
            way: self.way.clone(),
            answers: self.answers.clone(),
            from,
            datagrams: theirs,
            ended,
            severed: self.severed.clone(),
        };
        spawn(move || line.run(place))?;
        Ok(Sender {
            datagrams,
            _end: end,
        })
    }
}

/// What a sender's thread has.
struct Line {
    way: Arc<Way>,
    answers: Answers,
    from: SocketAddr,
    datagrams: UnixDatagram,
    ended: UnixStream,
    severed: Sign,
}

impl Line {
    fn run(&self, _place: Connection) {
        let port = self.way.guest_port;
        match self.way.door.dial(Transport::Udp, port) {
            // It ends when its connection does, or has been silent.
            Ok((service, waiting)) => drop(self.relay(&service, waiting)),
            Err(error) => {
                let error = with_causes(&error);
                debug!(port, error = %Printable::line(&error), "not connected");
            }
        }
    }

    fn relay(&self, service: &UnixStream, mut answers: Vec<u8>) -> io::Result<()> {
        let mut request = vec![0; ROOM_BYTES];
        let (mut start, mut end) = (0, 0);
        let mut room = vec![0; ROOM_BYTES];
        loop {
            self.answer(&mut answers)?;
            while start < end {
                match (&*service).write(&request[start..end]) {
                    Ok(count) => start += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            let is_sent = start == end;
            let (takes, sends) = match is_sent {
                true => (PollFlags::IN, PollFlags::IN),
                false => (PollFlags::empty(), PollFlags::IN | PollFlags::OUT),
            };
            let mut fds = [
                PollFd::new(service, sends),
                PollFd::new(&self.ended, PollFlags::IN),
                self.severed.watch(),
                PollFd::new(&self.datagrams, takes),
            ];
            let quiet = timespec(DATAGRAM_REST);
            match poll(&mut fds, Some(&quiet)) {
                Ok(0) => return Ok(()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let over = fds[1..3].iter().any(|fd| !fd.revents().is_empty());
            if over {
                return Ok(());
            }
            if fds[0].revents().intersects(!PollFlags::OUT) {
                match (&*service).read(&mut room) {
                    Ok(0) => return Ok(()),
                    Ok(count) => answers.extend_from_slice(&room[..count]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            if is_sent && let Ok(count) = self.datagrams.recv(&mut request[LENGTH_BYTES..]) {
                let length = u16::try_from(count).map_err(|_| io::ErrorKind::InvalidData)?;
                request[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
                (start, end) = (0, LENGTH_BYTES + count);
            }
        }
    }

    /// Sends the answers that are whole. What the host does not take is lost.
    fn answer(&self, answers: &mut Vec<u8>) -> io::Result<()> {
        let mut taken = 0;
        while let Some(length) = answers[taken..].first_chunk::<LENGTH_BYTES>() {
            let length = usize::from(u16::from_le_bytes(*length));
            if length > MAX_DATAGRAM_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let begin = taken + LENGTH_BYTES;
            let Some(datagram) = answers.get(begin..begin + length) else {
                break;
            };
            let socket = self.answers.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(socket) = &*socket {
                let _ = socket.send_to(datagram, self.from);
            }
            taken = begin + length;
        }
        answers.drain(..taken);
        Ok(())
    }
}
