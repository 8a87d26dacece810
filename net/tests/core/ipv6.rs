//! IPv6: neighbours, routers, and what leaves over it.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr};

use supermachine_net::policy::Policy;
use supermachine_net::{Addresses, Config, Transport};

use crate::support::*;

const THERE: Ipv6Addr = Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, 0x1111);
const ON_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

fn mine() -> Ipv6Addr {
    Addresses::default().guest_v6
}

fn gateway() -> Ipv6Addr {
    Addresses::default().gateway_v6
}

fn solicitation(from: Ipv6Addr, target: Ipv6Addr, hops: u8) -> Vec<u8> {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    packet6(from, target, (58, hops), &message, 2)
}

#[test]
fn gateway_answers_neighbours_for_its_addresses_only() {
    let mut net = Net::new();
    for target in [gateway(), ON_LINK] {
        net.frame(&solicitation(mine(), target, 255));
        let frame = net.host.frames.pop_front().unwrap();
        assert_eq!(frame[21], 255, "routers left");
        let (protocol, from, to, message) = open6(&frame);
        assert_eq!((protocol, from, to), (58, target, mine()));
        assert_eq!(message[..2], [136, 0]);
        assert_eq!(message[4], 0xe0);
        assert_eq!(message[8..24], target.octets());
        assert_eq!(message[24..26], [2, 1]);
        assert_eq!(message[26..], Addresses::default().gateway_mac);
    }
    // Somebody who has no address yet and wants ours.
    net.frame(&solicitation(Ipv6Addr::UNSPECIFIED, gateway(), 255));
    let frame = net.host.frames.pop_front().unwrap();
    let (_, _, to, message) = open6(&frame);
    assert_eq!((to.to_string().as_str(), message[4]), ("ff02::1", 0xa0));
    for frame in [
        solicitation(mine(), gateway(), 254),
        solicitation(mine(), mine(), 255),
        solicitation(Ipv6Addr::UNSPECIFIED, mine(), 255),
        solicitation(THERE, gateway(), 255),
        solicitation(ON_LINK, gateway(), 255),
    ] {
        net.frame(&frame);
        assert!(net.host.frames.is_empty());
        for length in 0..frame.len() {
            net.frame(&frame[..length]);
        }
    }
}

#[test]
fn router_is_there_if_the_host_has_a_way_out() {
    let mut net = Net::new();
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
    let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let ask = packet6(
        link_local,
        all_routers,
        (58, 255),
        &[133, 0, 0, 0, 0, 0, 0, 0],
        2,
    );
    net.frame(&ask);
    assert!(net.host.frames.is_empty());
    net.host.has_ipv6 = true;
    net.frame(&ask);
    let frame = net.host.frames.pop_front().unwrap();
    let (_, from, to, message) = open6(&frame);
    assert_eq!((from, to), (ON_LINK, link_local));
    assert_eq!(message[..2], [134, 0]);
    assert!(message[6..8] > [0, 0][..], "it is a default router");
    let mut options = &message[16..];
    let mut kinds = Vec::new();
    while let [kind, words, ..] = *options {
        kinds.push(kind);
        options = &options[usize::from(words) * 8..];
    }
    assert_eq!(kinds, [1, 3, 25]);
}

#[test]
fn connections_and_datagrams_leave_over_ipv6() {
    let mut net = Net::new();
    let mut syn = vec![
        0x9c, 0x40, 1, 187, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff,
    ];
    syn.extend([0; 4]);
    net.frame(&packet6(mine(), THERE, (6, 64), &syn, 16));
    assert_eq!(net.socket(0).to, SocketAddr::from((THERE, 443)));
    net.socket(0).outcome = Some(Ok(()));
    net.ready(0, false, true);
    let frame = net.host.frames.pop_front().unwrap();
    let (protocol, from, to, segment) = open6(&frame);
    assert_eq!((protocol, from, to), (6, THERE, mine()));
    assert_eq!(segment[13], SYN | ACK);
    // Another address of the guest's network, as privacy extensions make them.
    let other = Ipv6Addr::new(0xfd53, 0x4d00, 0, 0, 7, 7, 7, 7);
    net.frame(&packet6(other, THERE, (6, 64), &syn, 16));
    assert_eq!(net.stack.flows(), 2);
    net.frame(&datagram(THERE.into(), 123, b"time"));
    assert_eq!(net.socket(10_000).sent_messages, [b"time"]);
    net.socket(10_000).messages.push_back(b"now".to_vec());
    net.ready(10_000, true, false);
    let frame = net.host.frames.pop_front().unwrap();
    let (protocol, _, _, bytes) = open6(&frame);
    assert_eq!((protocol, &bytes[8..]), (17, &b"now"[..]));
    // Over IPv6 a datagram has a checksum.
    let mut without = datagram(THERE.into(), 124, b"x");
    without[60..62].fill(0);
    net.frame(&without);
    assert_eq!(net.stack.datagram_flows(), 1);
    // A copy is told of both connections.
    let saved = net.stack.save();
    let mut copy = Net::new();
    copy.stack
        .restore(&saved, copy.now, &mut copy.host)
        .unwrap();
    copy.turn();
    let (protocol, from, _, segment) = open6(&copy.host.frames[0]);
    assert_eq!((protocol, from, segment[13] & RST), (6, THERE, RST));
}

#[test]
fn echo_over_ipv6_is_answered_by_the_gateway_and_passed_on_to_others() {
    let mut net = Net::new();
    for address in [gateway(), ON_LINK] {
        net.frame(&echo(address.into(), 5, b"abc"));
        let frame = net.host.frames.pop_front().unwrap();
        let (protocol, from, _, message) = open6(&frame);
        assert_eq!((protocol, from, &message[8..]), (58, address, &b"abc"[..]));
        assert_eq!(message[..2], [129, 0]);
    }
    net.frame(&echo(THERE.into(), 5, b"abc"));
    let socket = net.socket(10_000);
    assert_eq!(socket.transport, Transport::Echo);
    let mut reply = socket.sent_messages.remove(0);
    reply[0] = 129;
    reply[4] = 0xaa;
    socket.messages.push_back(reply);
    net.ready(10_000, true, false);
    let frame = net.host.frames.pop_front().unwrap();
    let (_, from, _, message) = open6(&frame);
    assert_eq!((from, &message[4..6]), (THERE, &[0, 5][..]));
    net.frame(&with_hops(echo(THERE.into(), 6, b"abc"), 1));
    let frame = net.host.frames.pop_front().unwrap();
    let (_, from, _, message) = open6(&frame);
    assert_eq!((from, &message[..2]), (gateway(), &[3, 0][..]));
}

#[test]
fn no_private_form_of_ipv6_is_reached() {
    let mut net = Net::of(Config::new(Policy::allow_all().host_port(80)));
    for private in [
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:10.0.0.1",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001::1",
        "fc00::1",
        "fd00:ec2::254",
        "fd53:4d00::9",
        "fe80::2",
        "ff02::1",
    ] {
        let to: Ipv6Addr = private.parse().unwrap();
        net.frame(&datagram(to.into(), 80, b"x"));
        net.frame(&echo(to.into(), 1, b""));
        let mut syn = vec![
            0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff,
        ];
        syn.extend([0; 4]);
        net.frame(&packet6(mine(), to, (6, 64), &syn, 16));
        let answers: Vec<Vec<u8>> = net.host.frames.drain(..).collect();
        let kinds: Vec<u8> = answers.iter().map(|frame| open6(frame).0).collect();
        let expected: &[u8] = if to.is_multicast() {
            &[6]
        } else {
            &[58, 58, 6]
        };
        assert_eq!(kinds, expected, "{private}");
    }
    assert!(net.host.sockets.is_empty());
    // The host's listed port is at the gateway's address of either family, and leads to
    // the host's loopback interface of the same.
    let mut syn = vec![
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff,
    ];
    syn.extend([0; 4]);
    net.frame(&packet6(mine(), gateway(), (6, 64), &syn, 16));
    assert_eq!(
        net.socket(0).to,
        SocketAddr::from((Ipv6Addr::LOCALHOST, 80))
    );
}

#[test]
fn connection_that_has_no_way_over_ipv6_fails_at_once() {
    let mut net = Net::new();
    net.host.connect_error = Some(ErrorKind::NetworkUnreachable);
    let mut syn = vec![
        0x9c, 0x40, 1, 187, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff,
    ];
    syn.extend([0; 4]);
    net.frame(&packet6(mine(), THERE, (6, 64), &syn, 16));
    let frame = net.host.frames.pop_front().unwrap();
    let (protocol, from, to, message) = open6(&frame);
    assert_eq!((protocol, from, to), (58, gateway(), mine()));
    assert_eq!(message[..2], [1, 0]);
    // It quotes the segment, so that the program's connect fails.
    assert_eq!(message[8 + 6], 6);
    assert_eq!(message[8 + 24..8 + 40], THERE.octets());
    assert_eq!(message[8 + 40..8 + 48], [0x9c, 0x40, 1, 187, 0, 0, 0, 1]);
}

#[test]
fn hosts_port_that_listens_on_the_other_family_only_refuses_at_once() {
    let policy = Policy::deny_all().host_port(80).host_udp_port(80);
    let mut net = Net::of(Config::new(policy));
    // As the driver says it, too, where the host has no IPv6 at all.
    net.host.connect_error = Some(ErrorKind::ConnectionRefused);
    let mut syn = vec![
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff,
    ];
    syn.extend([0; 4]);
    net.frame(&packet6(mine(), gateway(), (6, 64), &syn, 16));
    let frame = net.host.frames.pop_front().unwrap();
    let (protocol, from, _, segment) = open6(&frame);
    assert_eq!((protocol, from), (6, gateway()));
    assert_eq!(segment[13], RST | ACK);
    net.frame(&datagram(gateway().into(), 80, b"x"));
    let frame = net.host.frames.pop_front().unwrap();
    let (protocol, _, _, message) = open6(&frame);
    assert_eq!((protocol, &message[..2]), (58, &[1, 4][..]));
}
