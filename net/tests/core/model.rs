//! What arrives equals what was sent, though the guest's own bridges lose, repeat and
//! reorder frames. The guest is smoltcp, another's TCP; the time is made.

use std::collections::VecDeque;
use std::time::Duration;

use smoltcp::iface::{Config as PeerConfig, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as PeerInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};
use supermachine_net::Addresses;

use crate::support::*;

/// Bytes that each side sends.
const BYTES: usize = 200_000;
/// Longest that it may take, in the made time.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

/// A bridge inside the guest: of a hundred frames it loses five, repeats five and
/// holds ten back behind others.
#[derive(Default)]
struct Bridge {
    held: VecDeque<Vec<u8>>,
}

impl Bridge {
    fn pass(&mut self, frames: impl Iterator<Item = Vec<u8>>, dice: &mut Dice) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for frame in frames {
            match dice.roll(100) {
                0..5 => {}
                5..10 => out.extend([frame.clone(), frame]),
                10..20 => self.held.push_back(frame),
                _ => out.push(frame),
            }
            if dice.roll(3) == 0 {
                out.extend(self.held.pop_front());
            }
        }
        // What is held back comes when nothing else does.
        if out.is_empty() {
            out.extend(self.held.pop_front());
        }
        out
    }
}

/// The guest's interface.
#[derive(Default)]
struct Wire {
    to_guest: VecDeque<Vec<u8>>,
    from_guest: Vec<Vec<u8>>,
}

struct Given(Vec<u8>);

impl RxToken for Given {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Place<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Place<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Given;
    type TxToken<'a> = Place<'a>;

    fn receive(&mut self, _: PeerInstant) -> Option<(Given, Place<'_>)> {
        let frame = self.to_guest.pop_front()?;
        Some((Given(frame), Place(&mut self.from_guest)))
    }

    fn transmit(&mut self, _: PeerInstant) -> Option<Place<'_>> {
        Some(Place(&mut self.from_guest))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut dice = Dice(seed);
    (0..bytes)
        .map(|_| u8::try_from(dice.roll(256)).unwrap())
        .collect()
}

#[test]
fn what_arrives_is_what_was_sent_over_a_bridge_that_loses_repeats_and_reorders() {
    let Addresses {
        guest_mac,
        guest,
        gateway,
        prefix,
        ..
    } = Addresses::default();
    let mut net = Net::new();
    let mut wire = Wire::default();
    let mac = HardwareAddress::Ethernet(EthernetAddress(guest_mac));
    let mut config = PeerConfig::new(mac);
    config.random_seed = 1;
    let mut interface = Interface::new(config, &mut wire, PeerInstant::ZERO);
    interface.update_ip_addrs(|addresses| {
        addresses.push(IpCidr::new(guest.into(), prefix)).unwrap();
    });
    interface
        .routes_mut()
        .add_default_ipv4_route(gateway)
        .unwrap();
    let buffer = || tcp::SocketBuffer::new(vec![0; 64 << 10]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    let remote = (IpAddress::from(*REMOTE.ip()), REMOTE.port());
    socket
        .connect(interface.context(), remote, GUEST_PORT)
        .unwrap();
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(socket);

    let (up, down) = (pattern(1, BYTES), pattern(2, BYTES));
    let (mut sent, mut got) = (0, Vec::new());
    let mut dice = Dice(42);
    let (mut out, mut back) = (Bridge::default(), Bridge::default());
    let mut passed = Duration::ZERO;
    let mut received = Vec::new();
    let mut has_ended = false;
    loop {
        assert!(passed < PATIENCE, "{sent} sent, {} got", got.len());
        let now = PeerInstant::from_micros(i64::try_from(passed.as_micros()).unwrap());
        interface.poll(now, &mut wire, &mut sockets);
        let socket = sockets.get_mut::<tcp::Socket>(handle);
        if sent < up.len() && socket.can_send() {
            sent += socket.send_slice(&up[sent..]).unwrap();
            if sent == up.len() {
                socket.close();
            }
        }
        while socket.can_recv() {
            socket
                .recv(|bytes| (bytes.len(), got.extend_from_slice(bytes)))
                .unwrap();
        }
        if sent == up.len() && !socket.may_recv() && got.len() == down.len() {
            has_ended = true;
        }
        let from_guest = std::mem::take(&mut wire.from_guest);
        for frame in out.pass(from_guest.into_iter(), &mut dice) {
            net.frame(&frame);
        }
        net.turn();
        if let Some(socket) = net.host.sockets.get_mut(&0) {
            if socket.outcome.is_none() {
                socket.outcome = Some(Ok(()));
                socket.incoming.extend(&down);
                socket.is_over = true;
                net.ready(0, true, true);
            }
            received.clone_from(&net.socket(0).sent);
        }
        let frames = std::mem::take(&mut net.host.frames);
        wire.to_guest
            .extend(back.pass(frames.into_iter(), &mut dice));
        if has_ended && (received.len() == up.len() || net.stack.flows() == 0) {
            break;
        }
        let step = Duration::from_millis(1);
        passed += step;
        net.pass(step);
    }
    assert!(got == down, "the guest got something else");
    assert!(received == up, "the host got something else");
    // The numbers of what was sent are kept until the guest has acknowledged them.
    assert!(net.stack.counters().frames > 0 && net.stack.buffered_bytes() <= 2 << 20);
}
