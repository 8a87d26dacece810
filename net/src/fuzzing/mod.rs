//! Fuzz logic as a plain function over bytes, for fuzzers and for replay under
//! `cargo test`. It panics when an invariant breaks.
//!
//! The input is a list of operations: segments of a few connections in any order, lost,
//! repeated, overlapping, with numbers, lengths and checksums that lie; what the host's
//! sockets do; time that passes; snapshots. Every byte of the guest's is a function of
//! its sequence number, and every byte of the host's one of its place, so that whatever
//! arrives at either end is known to be right or wrong.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::io::{FlowId, Offloads};
use crate::pen::Pen;
use crate::policy::Policy;
use crate::wire::build::{self, Link, TcpOut};
use crate::wire::ip::IPV4_BYTES;
use crate::wire::tcp::flag;
use crate::{Addresses, Answer, Config, Counters, Stack, wire};

mod ends;
mod shown;

use ends::{Ends, guest_byte};
pub use shown::fuzz_shown;

/// Operations of one run; longer inputs are cut.
const MAX_OPS: usize = 512;
/// Connections that segments are of.
const PORTS: u16 = 3;
/// What may wait, of all connections: little, so that it is reached.
const MAX_BUFFERED_BYTES: usize = 96 << 10;
const REMOTE: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);

/// The input, taken apart from its front; zeroes after its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn u8(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }
}

/// The guest writes to the gateway as the gateway does to it.
fn guest_link() -> Link {
    let addresses = Addresses::default();
    Link {
        guest: addresses.gateway_mac,
        gateway: addresses.guest_mac,
    }
}

/// A segment of one of the connections, mostly one that fits.
fn segment(input: &mut Input<'_>, ends: &mut Ends) -> Vec<u8> {
    let port = 1 + u16::from(input.u8()) % PORTS;
    let shape = input.u8();
    let remote = match shape & 0x80 {
        0 => 80,
        _ => 53,
    };
    let known = ends.known.entry((port, remote)).or_default();
    let flags = [
        flag::SYN,
        flag::ACK,
        flag::ACK,
        flag::ACK | flag::PSH,
        flag::ACK | flag::FIN,
        flag::RST,
        flag::ACK,
        input.u8(),
    ][usize::from(shape & 7)];
    if flags == flag::SYN && shape & 0x40 == 0 {
        known.first = input.u32();
    }
    // Where in the stream: near its beginning, where everything happens.
    let offset = match shape >> 3 & 3 {
        0 => u32::from(input.u8()),
        1 => u32::from(input.u16()),
        2 => input.u32(),
        _ => 0,
    };
    let is_syn = flags & flag::SYN != 0;
    let sequence = known
        .first
        .wrapping_add(if is_syn { 0 } else { 1 + offset });
    let length = match input.u8() {
        long @ 0xf0.. => usize::from(long & 15) * 97,
        short => usize::from(short),
    };
    let payload: Vec<u8> = (0_u32..)
        .take(if is_syn { 0 } else { length })
        .map(|place| guest_byte(sequence.wrapping_add(place)))
        .collect();
    let behind = match shape & 0x20 {
        0 => 0,
        _ => u32::from(input.u16()),
    };
    let addresses = Addresses::default();
    let out = TcpOut {
        from: (addresses.guest, port).into(),
        to: (REMOTE, remote).into(),
        sequence,
        acknowledged: known.expected.wrapping_sub(behind),
        flags,
        window: input.u16(),
        options: if is_syn {
            &[2, 4, 5, 0xb4, 1, 3, 3, 4]
        } else {
            &[]
        },
        payload: [&payload, &[]],
        segment_bytes: u16::MAX,
    };
    let mut pen = Pen::default();
    build::tcp(&mut pen, guest_link(), &out);
    pen.0
}

/// Something else than a segment: a datagram, a question, an echo request.
fn datagram(input: &mut Input<'_>) -> Vec<u8> {
    let addresses = Addresses::default();
    let kind = input.u8();
    let payload: Vec<u8> = (0..input.u8()).map(|_| input.u8()).collect();
    let mut pen = Pen::default();
    let guest = (addresses.guest, 1000 + u16::from(kind >> 2)).into();
    let (to, port) = match kind & 3 {
        0 => (REMOTE, 53),
        1 => (REMOTE, 123),
        2 => (addresses.gateway, 67),
        _ => (Ipv4Addr::new(10, 0, 0, 1), 80),
    };
    build::udp(&mut pen, guest_link(), guest, (to, port).into(), &payload);
    pen.0
}

/// The guest sends a frame.
fn pass(stack: &mut Stack, frame: &[u8], now: Instant, ends: &mut Ends) {
    let number = wire::be32(frame, wire::ETHERNET_BYTES + IPV4_BYTES + 4);
    ends.number = number.unwrap_or(0);
    stack.frame(frame, false, now, ends);
}

/// Whatever a guest sends and a host does, nothing is passed on that was not sent, in
/// its place and once, nothing private is reached, and what waits is bounded.
///
/// # Panics
/// When that is not so.
pub fn fuzz_frames(data: &[u8]) {
    run(data);
}

fn run(data: &[u8]) -> Counters {
    let mut input = Input(data);
    let mut config = Config::new(Policy::allow_all());
    config.max_buffered_bytes = MAX_BUFFERED_BYTES;
    config.max_flows = 8;
    config.max_datagram_flows = 4;
    let mut stack = Stack::new(config);
    stack.keep_records(16);
    let mut ends = Ends::default();
    let mut now = Instant::now();
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut saved = Vec::new();
    for _ in 0..MAX_OPS {
        if input.0.is_empty() {
            break;
        }
        let operation = input.u8();
        match operation & 15 {
            0..=5 => frames.push(segment(&mut input, &mut ends)),
            6 => frames.push(datagram(&mut input)),
            7 => {
                // A lie somewhere in the frame.
                let mut frame = segment(&mut input, &mut ends);
                let place = usize::from(input.u16()) % frame.len();
                frame[place] ^= input.u8() | 1;
                pass(&mut stack, &frame, now, &mut ends);
            }
            8 => {
                let flow = FlowId(u32::from(input.u8()) % 12);
                if let Some(socket) = ends.sockets.get_mut(&flow) {
                    let what = input.u8();
                    socket.outcome = socket.outcome.or(Some(what & 7 != 0));
                    socket.room = socket.room.max(usize::from(input.u16()));
                    if !socket.is_over {
                        socket.left += u32::from(input.u16());
                    }
                    socket.is_over |= what & 0x18 == 0x18;
                    socket.is_broken |= what & 0xe0 == 0xe0;
                }
                stack.ready(flow, true, true, now, &mut ends);
            }
            9 => ends.is_full = !ends.is_full,
            10 => {
                let is_on = input.u8() & 1 != 0;
                ends.offloads = Offloads {
                    checksum: is_on,
                    segments_v4: is_on,
                    segments_v6: is_on,
                };
            }
            11 => now += Duration::from_millis(input.u16().into()),
            12 => saved = stack.save(),
            13 if operation & 0xf0 == 0 => {
                stack
                    .restore(&saved, now, &mut ends)
                    .expect("it was saved here");
                assert!(ends.sockets.is_empty() && stack.flows() == 0);
                assert_eq!(stack.buffered_bytes(), 0);
            }
            14 => {
                // Those that wait come in another order, or twice.
                frames.reverse();
                if let Some(frame) = frames.first().cloned() {
                    frames.push(frame);
                }
            }
            _ => {
                for ticket in std::mem::take(&mut ends.tickets) {
                    let answer = Answer::Message(vec![operation; 40]);
                    stack.answered(ticket, &answer, now, &mut ends);
                }
            }
        }
        if operation & 0x10 == 0 {
            for frame in std::mem::take(&mut frames) {
                pass(&mut stack, &frame, now, &mut ends);
            }
        }
        let mut turns = 0;
        while stack.turn(now, &mut ends) {
            turns += 1;
            assert!(turns < 10_000, "it never comes to rest");
        }
        assert!(stack.buffered_bytes() <= MAX_BUFFERED_BYTES);
        assert!(stack.flows() <= 8 && stack.datagram_flows() <= 4);
        stack.take_records();
    }
    // What it has when it ends, a copy can be told of.
    let state = stack.save();
    stack
        .restore(&state, now, &mut ends)
        .expect("it was saved here");
    assert!(ends.sockets.is_empty(), "every socket was closed");
    stack.counters()
}

/// Numbers below what is asked for, the same each time.
#[cfg(test)]
fn rolls() -> impl FnMut(usize) -> usize {
    let mut state = 0x5eed_u64;
    move |sides| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % sides
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A whole conversation: a SYN, its answer, data both ways, and the ends.
    const TALK: &[&[u8]] = &[
        // A SYN, with its number.
        &[0, 1, 0x18, 0, 0, 0, 0, 9, 0, 255, 255],
        // The host connects, and has something to say.
        &[8, 0, 1, 0, 64, 0, 4],
        // Data, and more of it.
        &[0, 1, 0x19, 0, 100, 255, 255],
        &[0, 1, 1, 0, 100, 50, 255, 255],
        // The host has finished, and so has the guest, who then has all.
        &[8, 0, 0x19, 0, 64, 0, 0],
        &[0, 1, 4, 0, 150, 0, 255, 255],
        &[0, 1, 1, 0, 151, 0, 255, 255],
    ];

    #[test]
    fn conversations_and_what_becomes_of_them_keep_the_promises() {
        let talk = TALK.concat();
        let counters = run(&talk);
        // It is one, or what follows tries nothing.
        assert_eq!((counters.sent_bytes, counters.received_bytes), (150, 1024));
        fuzz_frames(&[]);
        let mut roll = rolls();
        for _ in 0..600 {
            let mut input: Vec<u8> = Vec::new();
            for _ in 0..1 + roll(6) {
                match roll(3) {
                    0 => input.extend(&talk),
                    1 => {
                        let from = roll(TALK.len());
                        input.extend(TALK[from..].concat());
                    }
                    _ => input.extend((0..roll(200)).map(|_| u8::try_from(roll(256)).unwrap())),
                }
            }
            for _ in 0..roll(20) {
                let place = roll(input.len().max(1));
                if let Some(byte) = input.get_mut(place) {
                    *byte ^= 1 << roll(8);
                }
            }
            fuzz_frames(&input);
        }
    }
}
