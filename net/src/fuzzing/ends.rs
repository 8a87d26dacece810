//! Both ends of the network, and what is known of what they say.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use super::REMOTE;
use crate::Addresses;
use crate::io::{Close, FlowId, Frame, Io, Offloads, Query, Ticket, Transport};
use crate::wire::ip::Arrived;
use crate::wire::tcp::{Segment, flag};
use crate::wire::{self, Ethernet};

/// The byte of the guest's stream with this sequence number.
pub(super) fn guest_byte(number: u32) -> u8 {
    number.wrapping_mul(0x9e37_79b1).to_be_bytes()[0]
}

/// The byte of the host's stream at this place.
fn host_byte(place: u32) -> u8 {
    place.wrapping_mul(0x85eb_ca6b).to_be_bytes()[0]
}

/// A socket of the host.
pub(super) struct Socket {
    pub(super) transport: Transport,
    /// Sequence number of the byte that the guest has to send next.
    pub(super) next: u32,
    pub(super) outcome: Option<bool>,
    pub(super) room: usize,
    pub(super) given: u32,
    pub(super) left: u32,
    pub(super) is_over: bool,
    pub(super) is_broken: bool,
    pub(super) is_finished: bool,
}

/// What the guest knows of one of its connections.
#[derive(Clone, Copy, Default)]
pub(super) struct Known {
    /// What its SYN had.
    pub(super) first: u32,
    /// What the answer to it had, and what is expected next.
    pub(super) theirs: Option<u32>,
    pub(super) expected: u32,
}

/// Both ends, and what is known of what they say.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) sockets: HashMap<FlowId, Socket>,
    pub(super) known: HashMap<(u16, u16), Known>,
    /// Sequence number of the segment that is being taken.
    pub(super) number: u32,
    pub(super) offloads: Offloads,
    pub(super) is_full: bool,
    pub(super) tickets: Vec<Ticket>,
}

impl Ends {
    fn socket(&mut self, flow: FlowId) -> io::Result<&mut Socket> {
        let socket = self.sockets.get_mut(&flow);
        socket.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// A frame that the guest is given is one that it can read, and its bytes are the
    /// host's.
    fn check(&mut self, bytes: &[u8], is_summed: bool) {
        let ethernet = Ethernet::read(bytes).expect("a frame");
        if ethernet.kind == wire::TYPE_ARP {
            return;
        }
        let packet = match Arrived::read(ethernet.kind, ethernet.payload).expect("a packet") {
            Arrived::Packet(packet) => packet,
            Arrived::Piece(_) => return assert!(ethernet.payload.len() <= 1500, "a piece"),
        };
        assert_eq!(packet.destination, Addresses::default().guest);
        if packet.protocol != wire::TCP {
            return;
        }
        if is_summed {
            let (from, to) = (packet.source, packet.destination);
            let mut sum =
                wire::checksum::Sum::pseudo_header(from, to, packet.protocol, packet.payload.len());
            sum.add(packet.payload);
            assert_eq!(sum.finish(), 0, "a checksum");
        }
        let segment = Segment::read(packet.payload).expect("a segment");
        let ports = (segment.destination_port, segment.source_port);
        let known = self.known.entry(ports).or_default();
        if segment.has(flag::SYN) {
            known.theirs = Some(segment.sequence);
            known.expected = segment.sequence.wrapping_add(1);
            return;
        }
        let Some(theirs) = known.theirs else {
            assert!(segment.payload.is_empty(), "data before an answer");
            return;
        };
        let begin = segment.sequence.wrapping_sub(theirs).wrapping_sub(1);
        // The resolver's answers are its own.
        let payload = match segment.source_port {
            53 => &[],
            _ => segment.payload,
        };
        for (place, byte) in (0_u32..).zip(payload) {
            let place = begin.wrapping_add(place);
            assert_eq!(*byte, host_byte(place), "byte {place} for the guest");
        }
        if segment.sequence == known.expected {
            known.expected = segment.sequence.wrapping_add(segment.length());
        }
    }
}

impl Io for Ends {
    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn give(&mut self, frame: &Frame<'_>) -> bool {
        if self.is_full {
            return false;
        }
        let [first, second] = frame.payload;
        let bytes = [frame.header, first, second].concat();
        assert!(frame.checksum.is_none() || self.offloads.checksum);
        assert!(frame.segmentation.is_none() || self.offloads.segments_v4);
        self.check(&bytes, frame.checksum.is_none());
        true
    }

    fn connect(&mut self, flow: FlowId, transport: Transport, to: SocketAddr) -> io::Result<()> {
        assert_eq!(to.ip(), IpAddr::V4(REMOTE), "nothing private is reached");
        let socket = Socket {
            transport,
            next: self.number.wrapping_add(1),
            outcome: None,
            room: 1 << 14,
            given: 0,
            left: 0,
            is_over: false,
            is_broken: false,
            is_finished: false,
        };
        assert!(self.sockets.insert(flow, socket).is_none(), "in use");
        Ok(())
    }

    fn connected(&mut self, flow: FlowId) -> io::Result<()> {
        match self.socket(flow)?.outcome {
            Some(true) => Ok(()),
            Some(false) => Err(io::ErrorKind::ConnectionRefused.into()),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn send(&mut self, flow: FlowId, bytes: &[u8]) -> io::Result<usize> {
        let socket = self.socket(flow)?;
        if socket.transport != Transport::Stream {
            return Ok(bytes.len());
        }
        assert!(!socket.is_finished, "sent after the end");
        if socket.is_broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let taken = bytes.len().min(socket.room);
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for byte in bytes.iter().take(taken) {
            assert_eq!(*byte, guest_byte(socket.next), "at {}", socket.next);
            socket.next = socket.next.wrapping_add(1);
        }
        socket.room -= taken;
        Ok(taken)
    }

    fn receive(&mut self, flow: FlowId, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let socket = self.socket(flow)?;
        if socket.is_broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let mut got = 0;
        for place in room.iter_mut().flat_map(|part| part.iter_mut()) {
            if socket.left == 0 {
                break;
            }
            *place = host_byte(socket.given);
            socket.given += 1;
            socket.left -= 1;
            got += 1;
        }
        // Messages do not end.
        match (got, socket.is_over && socket.transport == Transport::Stream) {
            (0, false) => Err(io::ErrorKind::WouldBlock.into()),
            (got, _) => Ok(got),
        }
    }

    fn finish_sending(&mut self, flow: FlowId) {
        if let Ok(socket) = self.socket(flow) {
            socket.is_finished = true;
        }
    }

    fn close(&mut self, flow: FlowId, _: Close) {
        assert!(self.sockets.remove(&flow).is_some(), "closed twice");
    }

    fn look_up(&mut self, ticket: Ticket, _: Query) -> bool {
        self.tickets.push(ticket);
        true
    }

    fn has_ipv6(&mut self) -> bool {
        true
    }

    fn is_own(&mut self, _: IpAddr) -> bool {
        false
    }
}
