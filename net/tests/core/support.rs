//! A guest made of single segments, and a host made of what the test says.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use supermachine_net::policy::Policy;
use supermachine_net::{
    Addresses, Close, Config, FlowId, Frame, Io, Offloads, Query, Stack, Ticket, Transport,
};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
/// Where the guest of a test connects to, unless it says otherwise.
pub const REMOTE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(9, 9, 9, 9), 80);
pub const GUEST_PORT: u16 = 40_000;
/// Sequence number of the guest's SYN: the wrap comes soon.
pub const GUEST_FIRST: u32 = u32::MAX - 1000;

/// A socket of the host.
#[derive(Debug)]
pub struct Socket {
    pub to: SocketAddr,
    pub transport: Transport,
    /// Messages that it has to read, and those that it was sent.
    pub messages: VecDeque<Vec<u8>>,
    pub sent_messages: Vec<Vec<u8>>,
    /// `None` until the connection is made or fails.
    pub outcome: Option<Result<(), ErrorKind>>,
    /// What it was sent.
    pub sent: Vec<u8>,
    /// How much more it takes.
    pub room: usize,
    /// What it has to read, and what comes after.
    pub incoming: VecDeque<u8>,
    pub is_over: bool,
    pub error: Option<ErrorKind>,
    pub send_error: Option<ErrorKind>,
    pub is_finished: bool,
    /// How often it was read.
    pub reads: usize,
}

/// The host, and the guest's room for frames.
#[derive(Default)]
pub struct Host {
    pub sockets: BTreeMap<u32, Socket>,
    pub closed: Vec<(SocketAddr, Close)>,
    /// What the one that was closed last was sent.
    pub last_sent: Vec<u8>,
    pub connect_error: Option<ErrorKind>,
    /// Connections are there at once.
    pub offloads: Offloads,
    pub frames: VecDeque<Vec<u8>>,
    pub is_full: bool,
    pub look_ups: Vec<(Ticket, String)>,
    pub questions: Vec<(Ticket, Vec<u8>)>,
    pub has_ipv6: bool,
    pub own: Vec<IpAddr>,
    /// Nobody takes connections over.
    pub keeps_all: bool,
    /// Those that somebody took over: flow, name, port, and what was sent.
    pub handed: Vec<(u32, String, u16, Vec<u8>)>,
}

impl Host {
    fn socket(&mut self, flow: FlowId) -> io::Result<&mut Socket> {
        self.sockets
            .get_mut(&flow.0)
            .ok_or_else(|| ErrorKind::BrokenPipe.into())
    }
}

impl Io for Host {
    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn give(&mut self, frame: &Frame<'_>) -> bool {
        if !self.is_full {
            let [first, second] = frame.payload;
            let bytes = [frame.header, first, second].concat();
            assert_eq!(bytes.len(), frame.bytes());
            self.frames.push_back(bytes);
        }
        !self.is_full
    }

    fn connect(&mut self, flow: FlowId, transport: Transport, to: SocketAddr) -> io::Result<()> {
        if let Some(error) = self.connect_error {
            return Err(error.into());
        }
        let socket = Socket {
            to,
            transport,
            messages: VecDeque::new(),
            sent_messages: Vec::new(),
            outcome: None,
            sent: Vec::new(),
            room: usize::MAX,
            incoming: VecDeque::new(),
            is_over: false,
            error: None,
            send_error: None,
            is_finished: false,
            reads: 0,
        };
        let before = self.sockets.insert(flow.0, socket);
        assert!(before.is_none(), "the number is not free");
        Ok(())
    }

    fn connected(&mut self, flow: FlowId) -> io::Result<()> {
        match self.socket(flow)?.outcome {
            None => Err(ErrorKind::NotConnected.into()),
            Some(outcome) => outcome.map_err(Into::into),
        }
    }

    fn send(&mut self, flow: FlowId, bytes: &[u8]) -> io::Result<usize> {
        let socket = self.socket(flow)?;
        assert!(!socket.is_finished, "sent after the end");
        if let Some(error) = socket.send_error {
            return Err(error.into());
        }
        if socket.transport != Transport::Stream {
            socket.sent_messages.push(bytes.to_vec());
            return Ok(bytes.len());
        }
        let taken = bytes.len().min(socket.room);
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        socket.room -= taken;
        socket.sent.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn receive(&mut self, flow: FlowId, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let socket = self.socket(flow)?;
        socket.reads += 1;
        if let Some(message) = socket.messages.pop_front() {
            room[0][..message.len()].copy_from_slice(&message);
            return Ok(message.len());
        }
        let mut got = 0;
        for part in room {
            for place in part.iter_mut() {
                match socket.incoming.pop_front() {
                    Some(byte) => *place = byte,
                    None => break,
                }
                got += 1;
            }
        }
        match (got, socket.error, socket.is_over) {
            (0, Some(error), _) => Err(error.into()),
            (0, None, false) => Err(ErrorKind::WouldBlock.into()),
            (got, ..) => Ok(got),
        }
    }

    fn hand_over(&mut self, flow: FlowId, name: &str, port: u16, begun: Vec<u8>) -> io::Result<()> {
        if self.keeps_all {
            return Err(ErrorKind::Unsupported.into());
        }
        self.handed.push((flow.0, name.to_owned(), port, begun));
        Ok(())
    }

    fn finish_sending(&mut self, flow: FlowId) {
        if let Ok(socket) = self.socket(flow) {
            socket.is_finished = true;
        }
    }

    fn close(&mut self, flow: FlowId, how: Close) {
        let socket = self.sockets.remove(&flow.0).expect("it was open");
        self.closed.push((socket.to, how));
        self.last_sent = socket.sent;
    }

    fn look_up(&mut self, ticket: Ticket, query: Query) -> bool {
        match query {
            Query::Addresses { name, .. } => self.look_ups.push((ticket, name)),
            Query::Records(asked) => self.questions.push((ticket, asked)),
        }
        true
    }

    fn has_ipv6(&mut self) -> bool {
        self.has_ipv6
    }

    fn is_own(&mut self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }
}

/// A segment, as the guest sends and gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    pub remote: SocketAddrV4,
    pub guest_port: u16,
    pub sequence: u32,
    pub acknowledged: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Tcp {
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// The Internet checksum of some pieces, each of whole words but for the last.
pub fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for word in pieces.concat().chunks(2) {
        let low = word.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([word[0], low]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap()
}

/// An IPv4 packet from the guest, in a frame.
pub fn packet(to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let Addresses {
        guest_mac,
        gateway_mac,
        guest,
        ..
    } = Addresses::default();
    let total = u16::try_from(20 + payload.len()).unwrap();
    let mut header = vec![0x45, 0];
    header.extend(total.to_be_bytes());
    header.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(guest.octets());
    header.extend(to.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&gateway_mac[..], &guest_mac, &[8, 0], &header, payload].concat()
}

/// The pseudo-header of a payload between the guest and `remote`.
pub fn pseudo(remote: Ipv4Addr, protocol: u8, bytes: usize) -> Vec<u8> {
    let guest = Addresses::default().guest;
    let mut out = [guest.octets(), remote.octets()].concat();
    out.extend([0, protocol]);
    out.extend(u16::try_from(bytes).unwrap().to_be_bytes());
    out
}

/// An IPv6 packet in a frame from the guest, with the checksum of its payload put at
/// `sum_at`.
pub fn packet6(
    from: Ipv6Addr,
    to: Ipv6Addr,
    (protocol, hops): (u8, u8),
    payload: &[u8],
    sum_at: usize,
) -> Vec<u8> {
    let Addresses {
        guest_mac,
        gateway_mac,
        ..
    } = Addresses::default();
    let mut payload = payload.to_vec();
    payload[sum_at..sum_at + 2].fill(0);
    let sum = checksum(&[&pseudo6(from, to, protocol, payload.len()), &payload]);
    payload[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    let length = u16::try_from(payload.len()).unwrap();
    let mut frame = [
        &gateway_mac[..],
        &guest_mac,
        &[0x86, 0xdd],
        &[0x60, 0, 0, 0],
    ]
    .concat();
    frame.extend(length.to_be_bytes());
    frame.extend([protocol, hops]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(payload);
    frame
}

fn pseudo6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, bytes: usize) -> Vec<u8> {
    let mut out = [from.octets(), to.octets()].concat();
    out.extend(u32::try_from(bytes).unwrap().to_be_bytes());
    out.extend([0, 0, 0, protocol]);
    out
}

/// The protocol, the ends and the payload of an IPv6 packet for the guest, whose
/// checksum is looked at.
pub fn open6(frame: &[u8]) -> (u8, Ipv6Addr, Ipv6Addr, &[u8]) {
    assert_eq!(frame[..6], Addresses::default().guest_mac);
    assert_eq!(frame[12..14], [0x86, 0xdd]);
    let ip = &frame[14..];
    assert_eq!(ip[0] >> 4, 6);
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
    let payload = &ip[40..];
    assert_eq!(
        usize::from(u16::from_be_bytes([ip[4], ip[5]])),
        payload.len()
    );
    let (from, to) = (address(8), address(24));
    let sum = checksum(&[&pseudo6(from, to, ip[6], payload.len()), payload]);
    assert_eq!(sum, 0, "checksum");
    (ip[6], from, to, payload)
}

/// A datagram of the guest's, from port 5353.
pub fn datagram(to: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = 5353_u16.to_be_bytes().to_vec();
    out.extend(port.to_be_bytes());
    out.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    out.extend([0, 0]);
    out.extend(payload);
    match to {
        IpAddr::V4(to) => {
            let sum = checksum(&[&pseudo(to, 17, out.len()), &out]);
            out[6..8].copy_from_slice(&sum.to_be_bytes());
            packet(to, 17, &out)
        }
        IpAddr::V6(to) => packet6(Addresses::default().guest_v6, to, (17, 64), &out, 6),
    }
}

/// An echo request of the guest's.
pub fn echo(to: IpAddr, number: u16, data: &[u8]) -> Vec<u8> {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let [high, low] = number.to_be_bytes();
    let mut out = vec![kind, 0, 0, 0, high, low, 0, 1];
    out.extend(data);
    match to {
        IpAddr::V4(to) => {
            let sum = checksum(&[&out]);
            out[2..4].copy_from_slice(&sum.to_be_bytes());
            packet(to, 1, &out)
        }
        IpAddr::V6(to) => packet6(Addresses::default().guest_v6, to, (58, 64), &out, 2),
    }
}

/// A frame with another number of routers that it may pass.
pub fn with_hops(mut frame: Vec<u8>, hops: u8) -> Vec<u8> {
    if frame[12..14] == [0x86, 0xdd] {
        frame[21] = hops;
        return frame;
    }
    frame[22] = hops;
    frame[24..26].fill(0);
    let sum = checksum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The frame of a segment from the guest.
pub fn frame_of(tcp: &Tcp) -> Vec<u8> {
    let mut out = tcp.guest_port.to_be_bytes().to_vec();
    out.extend(tcp.remote.port().to_be_bytes());
    out.extend(tcp.sequence.to_be_bytes());
    out.extend(tcp.acknowledged.to_be_bytes());
    out.push(u8::try_from((20 + tcp.options.len()) * 4).unwrap());
    out.push(tcp.flags);
    out.extend(tcp.window.to_be_bytes());
    out.extend([0; 4]);
    out.extend(&tcp.options);
    out.extend(&tcp.payload);
    let sum = checksum(&[&pseudo(*tcp.remote.ip(), 6, out.len()), &out]);
    out[16..18].copy_from_slice(&sum.to_be_bytes());
    packet(*tcp.remote.ip(), 6, &out)
}

/// The payload of a packet for the guest, its protocol, and who sent it.
pub fn open(frame: &[u8]) -> (u8, Ipv4Addr, &[u8]) {
    let Addresses {
        guest_mac,
        gateway_mac,
        guest,
        ..
    } = Addresses::default();
    assert_eq!(frame[..6], guest_mac);
    assert_eq!(frame[6..12], gateway_mac);
    assert_eq!(frame[12..14], [8, 0]);
    let ip = &frame[14..];
    assert_eq!(checksum(&[&ip[..20]]), 0);
    assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), ip.len());
    assert_eq!(ip[16..20], guest.octets());
    let source: [u8; 4] = ip[12..16].try_into().unwrap();
    (ip[9], source.into(), &ip[20..])
}

/// A frame for the guest as a segment, with its checksum looked at unless it was
/// left to the guest.
pub fn segment_of(frame: &[u8], is_summed: bool) -> Tcp {
    let (protocol, source, bytes) = open(frame);
    assert_eq!(protocol, 6, "not TCP: {frame:x?}");
    if is_summed {
        let sum = checksum(&[&pseudo(source, 6, bytes.len()), bytes]);
        assert_eq!(sum, 0, "checksum of {bytes:x?}");
    }
    let be16 = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let be32 = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let header = usize::from(bytes[12] >> 4) * 4;
    Tcp {
        remote: SocketAddrV4::new(source, be16(0)),
        guest_port: be16(2),
        sequence: be32(4),
        acknowledged: be32(8),
        flags: bytes[13],
        window: be16(14),
        options: bytes[20..header].to_vec(),
        payload: bytes[header..].to_vec(),
    }
}

/// A network with its guest and its host.
pub struct Net {
    pub stack: Stack,
    pub host: Host,
    pub now: Instant,
}

impl Net {
    pub fn new() -> Self {
        let mut config = Config::new(Policy::allow_all());
        config.has_ipv6 = true;
        Self::of(config)
    }

    pub fn of(config: Config) -> Self {
        Self {
            stack: Stack::new(config),
            host: Host::default(),
            now: Instant::now(),
        }
    }

    /// The guest sends a frame, and others have no turn yet.
    pub fn frame(&mut self, frame: &[u8]) {
        self.stack.frame(frame, false, self.now, &mut self.host);
    }

    pub fn turn(&mut self) {
        while self.stack.turn(self.now, &mut self.host) {}
    }

    pub fn send(&mut self, tcp: &Tcp) {
        self.frame(&frame_of(tcp));
        self.turn();
    }

    /// What the guest was given since the last look.
    pub fn given(&mut self) -> Vec<Tcp> {
        let is_summed = !self.host.offloads.checksum;
        let frames = std::mem::take(&mut self.host.frames);
        frames
            .iter()
            .map(|frame| segment_of(frame, is_summed))
            .collect()
    }

    /// The one segment that the guest was given.
    pub fn one(&mut self) -> Tcp {
        let mut given = self.given();
        assert_eq!(given.len(), 1, "{given:x?}");
        given.remove(0)
    }

    pub fn nothing(&mut self) {
        assert_eq!(self.given(), []);
    }

    pub fn ready(&mut self, flow: u32, readable: bool, writable: bool) {
        let (now, host) = (self.now, &mut self.host);
        self.stack
            .ready(FlowId(flow), readable, writable, now, host);
        self.turn();
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.turn();
    }

    pub fn socket(&mut self, flow: u32) -> &mut Socket {
        self.host.sockets.get_mut(&flow).expect("it is open")
    }

    /// Makes a connection from `port`, which gets this number.
    pub fn connect(&mut self, port: u16, flow: u32) -> Peer {
        let mut peer = Peer::new(port);
        self.send(&peer.syn());
        self.socket(flow).outcome = Some(Ok(()));
        self.ready(flow, false, true);
        let answer = self.one();
        assert!(answer.has(SYN | ACK), "{answer:x?}");
        peer.hear(&answer);
        let ack = peer.segment(ACK, b"");
        self.send(&ack);
        self.nothing();
        peer
    }
}

/// The guest's end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub port: u16,
    pub remote: SocketAddrV4,
    /// What it sends next, and what it waits for.
    pub next: u32,
    pub expected: u32,
    pub window: u16,
}

impl Peer {
    pub fn new(port: u16) -> Self {
        Self {
            port,
            remote: REMOTE,
            next: GUEST_FIRST,
            expected: 0,
            window: 0xffff,
        }
    }

    /// A SYN with the options of Linux.
    pub fn syn(&mut self) -> Tcp {
        let syn = Tcp {
            options: vec![2, 4, 5, 0xb4, 1, 3, 3, 7],
            acknowledged: 0,
            ..self.segment(SYN, b"")
        };
        self.next = GUEST_FIRST.wrapping_add(1);
        syn
    }

    /// The next segment, which it takes to be received.
    pub fn segment(&mut self, flags: u8, payload: &[u8]) -> Tcp {
        let tcp = Tcp {
            remote: self.remote,
            guest_port: self.port,
            sequence: self.next,
            acknowledged: self.expected,
            flags,
            window: self.window,
            options: Vec::new(),
            payload: payload.to_vec(),
        };
        let bytes = u32::try_from(payload.len()).unwrap();
        self.next = self.next.wrapping_add(bytes + u32::from(flags & FIN));
        tcp
    }

    /// Takes what is the next.
    pub fn hear(&mut self, tcp: &Tcp) {
        let bytes = u32::try_from(tcp.payload.len()).unwrap();
        let control = u32::from(tcp.flags & (FIN | SYN) != 0);
        if tcp.has(SYN) || tcp.sequence == self.expected {
            self.expected = tcp.sequence.wrapping_add(bytes + control);
        }
    }
}
