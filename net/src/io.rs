//! What the core needs from outside: a guest to give frames to, and sockets.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use crate::dns::Family;
use crate::record::{End, FlowRecord};

/// Names a connection of the core to its owner: the number of a place that is used
/// again once [`Io::close`] was called for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(
    /// Below the sum of [`Config::max_flows`](crate::Config::max_flows) and
    /// [`Config::max_datagram_flows`](crate::Config::max_datagram_flows).
    pub u32,
);

/// What a flow of the host's is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
    /// Echo requests, as whole ICMP messages, and the answers to them.
    Echo,
}

/// What is to be looked up of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Its addresses, as programs of the host are told.
    Addresses {
        /// The name.
        name: String,
        /// Of which family.
        family: Family,
    },
    /// Records of another type, by a question as it stands in a message: the answer
    /// is the message of the host's name server.
    Records(Vec<u8>),
}

/// Names a look-up until its answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(
    /// Used once.
    pub u64,
);

/// What the guest's driver takes over from whoever sends it frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums may be left to the receiver.
    pub checksum: bool,
    /// TCP over IPv4 may come in frames longer than a segment.
    pub segments_v4: bool,
    /// TCP over IPv6 may.
    pub segments_v6: bool,
}

/// A checksum that is left to the receiver: it holds the pseudo-header's sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where in the frame the summed bytes begin.
    pub start: u16,
    /// Where the checksum is, from there.
    pub offset: u16,
}

/// How a frame longer than a segment is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmentation {
    /// It is IPv6.
    pub is_v6: bool,
    /// Bytes of payload of each segment.
    pub segment_bytes: u16,
    /// Bytes of the frame before the payload.
    pub header_bytes: u16,
}

/// A frame for the guest: the header and then both parts of the payload.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// Ethernet, IP and transport header.
    pub header: &'a [u8],
    /// Where the payload is.
    pub payload: [&'a [u8]; 2],
    /// Set if the checksum is not complete.
    pub checksum: Option<PartialChecksum>,
    /// Set if it is longer than a segment.
    pub segmentation: Option<Segmentation>,
}

impl Frame<'_> {
    /// Bytes of all of it.
    pub fn bytes(&self) -> usize {
        let [first, second] = self.payload;
        self.header.len() + first.len() + second.len()
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("bytes", &self.bytes())
            .field("checksum", &self.checksum)
            .field("segmentation", &self.segmentation)
            .finish()
    }
}

/// How a socket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// What was sent still arrives.
    Orderly,
    /// The other end learns that the guest gave up.
    Reset,
}

impl Close {
    /// How the socket of a flow is closed that has ended so.
    pub(crate) fn after(end: End) -> Self {
        match end {
            End::Closed => Self::Orderly,
            _ => Self::Reset,
        }
    }
}

/// The two ends between which the core stands. Nothing here waits.
pub trait Io {
    /// What the guest takes over.
    fn offloads(&self) -> Offloads;

    /// Gives the guest a frame; false if it has no room for it now.
    fn give(&mut self, frame: &Frame<'_>) -> bool;

    /// Begins to connect a stream, or binds a socket for messages to an address.
    fn connect(&mut self, flow: FlowId, transport: Transport, to: SocketAddr) -> io::Result<()>;

    /// What became of a stream that was being connected: `NotConnected` if that is
    /// not known yet.
    fn connected(&mut self, flow: FlowId) -> io::Result<()>;

    /// Sends what fits of a stream, or one message; `FileTooLarge` for a message that is
    /// longer than the way takes.
    fn send(&mut self, flow: FlowId, bytes: &[u8]) -> io::Result<usize>;

    /// Receives what is there of a stream, or one message.
    fn receive(&mut self, flow: FlowId, room: &mut [IoSliceMut<'_>]) -> io::Result<usize>;

    /// Has somebody else serve a stream to the host of this name from here on, of which
    /// the guest has sent `begun`. Bytes go through this as before.
    ///
    /// # Errors
    /// `Unsupported` where there is nobody.
    fn hand_over(&mut self, flow: FlowId, name: &str, port: u16, begun: Vec<u8>) -> io::Result<()> {
        let _ = (flow, name, port, begun);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Adds to the record of a stream that was handed over what is known of its secrets;
    /// none if whoever serves it writes it down later.
    fn complete(&mut self, flow: FlowId, record: FlowRecord) -> Option<FlowRecord> {
        let _ = flow;
        Some(record)
    }

    /// Tells the other end that nothing more comes.
    fn finish_sending(&mut self, flow: FlowId);

    /// Ends a stream or datagram socket. The number is free then.
    fn close(&mut self, flow: FlowId, how: Close);

    /// Begins to look a name up, whose answer goes to
    /// [`Stack::answered`](crate::Stack::answered); false if there is too much to
    /// do already.
    fn look_up(&mut self, ticket: Ticket, query: Query) -> bool;

    /// Whether the host has a way to public IPv6 addresses now.
    fn has_ipv6(&mut self) -> bool;

    /// Whether an address is one of the host's own: what listens there hears the host
    /// itself, past whatever keeps others away.
    fn is_own(&mut self, address: IpAddr) -> bool;
}
