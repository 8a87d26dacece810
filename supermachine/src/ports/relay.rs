//! Bytes between a client of the host and a service of the guest.

use super::open::Sign;
use crate::host;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Bytes moved at once, in each direction.
const ROOM_BYTES: usize = 64 * 1024;
/// Pieces in one direction before the other has its turn.
const TURN: usize = 4;

/// A client of the host.
#[derive(Debug)]
pub enum Client {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Client {
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // What is small is not held back to become larger: the guest has done that.
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    pub fn unix(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::Unix(stream))
    }

    /// Closes it so that the client does not take that for an end in good order, where
    /// there is such a thing.
    pub fn reset(self) {
        if let Self::Tcp(stream) = &self {
            let at_once = Some(Duration::ZERO);
            // One that is gone needs none.
            let _ = rustix::net::sockopt::set_socket_linger(stream, at_once);
        }
    }
}

/// One side of a relay.
trait Side {
    fn take(&self, room: &mut [u8]) -> io::Result<usize>;
    fn give(&self, bytes: &[u8]) -> io::Result<usize>;
    fn end(&self) -> io::Result<()>;
    fn fd(&self) -> BorrowedFd<'_>;
}

impl Side for Client {
    fn take(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => { stream }.read(room),
            Self::Unix(stream) => { stream }.read(room),
        }
    }

    fn give(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => { stream }.write(bytes),
            Self::Unix(stream) => { stream }.write(bytes),
        }
    }

    fn end(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Side for UnixStream {
    fn take(&self, room: &mut [u8]) -> io::Result<usize> {
        { self }.read(room)
    }

    fn give(&self, bytes: &[u8]) -> io::Result<usize> {
        { self }.write(bytes)
    }

    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Empty until something comes.
    room: Vec<u8>,
    start: usize,
    end: usize,
    /// Nothing more comes.
    ended: bool,
    /// That was passed on.
    shut: bool,
}

impl Way {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Moves what can be moved without waiting.
    fn pump(&mut self, from: &impl Side, to: &impl Side) -> io::Result<()> {
        for _ in 0..TURN {
            while !self.is_empty() {
                match would_block(to.give(&self.room[self.start..self.end]))? {
                    Some(count) => self.start += count,
                    None => return Ok(()),
                }
            }
            if self.ended {
                break;
            }
            self.room.resize(ROOM_BYTES, 0);
            (self.start, self.end) = (0, 0);
            match would_block(from.take(&mut self.room))? {
                Some(0) => self.ended = true,
                Some(count) => self.end = count,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Passes the end on, once all that came before it is through.
    fn pass_end(&mut self, to: &impl Side) -> io::Result<()> {
        if self.ended && self.is_empty() && !self.shut {
            to.end()?;
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

/// What to wait for at a side from which `from` comes and to which `to` goes. Nothing
/// is waited for, not even its end, while what it sent is not through.
fn interest(from: &Way, to: &Way) -> Option<PollFlags> {
    let mut events = PollFlags::empty();
    events.set(PollFlags::IN, from.is_empty() && !from.ended);
    events.set(PollFlags::OUT, !to.is_empty());
    (!events.is_empty() || from.shut).then_some(events)
}

/// Serves a client and a service until both directions have ended, one of them is gone,
/// or the sign is given.
pub fn relay(client: Client, service: &UnixStream, waiting: Vec<u8>, severed: &Sign) {
    if move_all(&client, service, waiting, severed).is_err() {
        client.reset();
    }
}

/// As [`relay`]. An error is an end that is not one in good order.
fn move_all(
    client: &Client,
    service: &UnixStream,
    waiting: Vec<u8>,
    severed: &Sign,
) -> io::Result<()> {
    let mut inward = Way::default();
    let mut outward = Way {
        end: waiting.len(),
        room: waiting,
        ..Way::default()
    };
    loop {
        outward.pump(service, client)?;
        let is_through = outward.ended && outward.is_empty() && !outward.shut;
        if is_through && !inward.shut && host::is_hung_up(service.fd()) {
            // The service did not end its stream, it is gone.
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        outward.pass_end(client)?;
        inward.pump(client, service)?;
        inward.pass_end(service)?;
        if inward.shut && outward.shut {
            return Ok(());
        }
        let sides = [
            (client.fd(), interest(&inward, &outward)),
            (service.fd(), interest(&outward, &inward)),
        ];
        let watched = sides.iter().filter_map(|(fd, events)| {
            let events = (*events)?;
            Some((events, PollFd::from_borrowed_fd(*fd, events)))
        });
        let (events, mut fds): (Vec<PollFlags>, Vec<PollFd<'_>>) = watched.unzip();
        fds.push(severed.watch());
        if let Err(error) = poll(&mut fds, None)
            && error != rustix::io::Errno::INTR
        {
            return Err(error.into());
        }
        if fds.last().is_some_and(|sign| !sign.revents().is_empty()) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        // Of one that was asked for nothing it is the end.
        let mut asked = events.iter().zip(&fds);
        if asked.any(|(events, fd)| events.is_empty() && !fd.revents().is_empty()) {
            return Ok(());
        }
    }
}
