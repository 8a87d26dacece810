//! The guest's resolver.

use std::net::{IpAddr, Ipv4Addr};

use supermachine_net::policy::{Policy, Ports, Rule, Target, Verdict};
use supermachine_net::{Addresses, Answer, Config};

use crate::support::*;

/// A question for a name's IPv4 addresses, to any server.
pub fn ask(name: &str, kind: u16, server: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    datagram(server, 53, &message)
}

fn datagram(to: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = 5353_u16.to_be_bytes().to_vec();
    out.extend(port.to_be_bytes());
    out.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    out.extend([0, 0]);
    out.extend(payload);
    let sum = checksum(&[&pseudo(to, 17, out.len()), &out]);
    out[6..8].copy_from_slice(&sum.to_be_bytes());
    packet(to, 17, &out)
}

/// The code, the addresses and the server of the one answer.
fn answer(net: &mut Net) -> (u8, Vec<Ipv4Addr>, Ipv4Addr) {
    assert_eq!(net.host.frames.len(), 1);
    let frame = net.host.frames.pop_front().unwrap();
    let (protocol, from, bytes) = open(&frame);
    assert_eq!((protocol, &bytes[..4]), (17, &[0, 53, 0x14, 0xe9][..]));
    assert_eq!(checksum(&[&pseudo(from, 17, bytes.len()), bytes]), 0);
    let message = &bytes[8..];
    assert_eq!(message[..2], [0xab, 0xcd]);
    let count = usize::from(message[7]);
    let records = &message[message.len() - 16 * count..];
    let addresses = records.chunks(16).map(|record| {
        let octets: [u8; 4] = record[12..].try_into().unwrap();
        octets.into()
    });
    (message[3] & 15, addresses.collect(), from)
}

const GOOD: u8 = 0;
const NO_NAME: u8 = 3;
const REFUSED: u8 = 5;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);

#[test]
fn every_server_is_ours_and_asks_the_host() {
    let mut net = Net::new();
    net.frame(&ask("Example.com", 1, ELSEWHERE));
    assert!(net.host.frames.is_empty());
    let (ticket, name) = net.host.look_ups.remove(0);
    assert_eq!(name, "example.com");
    let found = Answer::Addresses(vec![[9, 9, 9, 9].into(), [9, 9, 9, 8].into()]);
    net.stack.answered(ticket, &found, net.now, &mut net.host);
    let (code, addresses, from) = answer(&mut net);
    assert_eq!(
        (code, from),
        (GOOD, ELSEWHERE),
        "in the name of whom it asked"
    );
    assert_eq!(
        addresses,
        [Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(9, 9, 9, 8)]
    );
    net.stack.answered(ticket, &found, net.now, &mut net.host);
    assert!(net.host.frames.is_empty(), "once");
    net.frame(&ask("none.example.com", 1, ELSEWHERE));
    let (ticket, _) = net.host.look_ups.remove(0);
    net.stack
        .answered(ticket, &Answer::NoName, net.now, &mut net.host);
    assert_eq!(answer(&mut net).0, NO_NAME);
}

#[test]
fn host_has_a_name_and_listed_ports() {
    let mut net = Net::of(Config::new(Policy::deny_all().host_port(8080)));
    let gateway = Addresses::default().gateway;
    net.frame(&ask("host.supermachine.internal", 1, gateway));
    assert_eq!(answer(&mut net), (GOOD, vec![gateway], gateway));
    for (port, listed) in [(8080, true), (8081, false), (22, false)] {
        let mut peer = Peer::new(port);
        peer.remote = std::net::SocketAddrV4::new(gateway, port);
        let syn = peer.syn();
        net.send(&syn);
        match listed {
            true => {
                let to = net.socket(0).to;
                assert_eq!(to, (Ipv4Addr::LOCALHOST, port).into());
            }
            false => assert!(net.one().has(RST)),
        }
    }
    assert_eq!(net.host.sockets.len(), 1);
}

#[test]
fn names_that_no_rule_allows_are_not_asked_for() {
    let policy = Policy::deny_all().rule(Rule {
        verdict: Verdict::Allow,
        target: Target::Host("*.example.com".parse().unwrap()),
        ports: Ports::from(80),
        protocol: None,
    });
    let mut net = Net::of(Config::new(policy));
    net.frame(&ask("secret-data.evil.org", 1, ELSEWHERE));
    assert_eq!(answer(&mut net).0, REFUSED);
    assert!(net.host.look_ups.is_empty());
    let reach = |net: &mut Net| {
        let syn = Peer::new(GUEST_PORT).syn();
        net.send(&syn);
        let reached = !net.host.sockets.is_empty();
        net.host.frames.clear();
        reached
    };
    assert!(!reach(&mut net), "it was told no name for it yet");
    net.frame(&ask("www.example.com", 1, ELSEWHERE));
    let (ticket, _) = net.host.look_ups.remove(0);
    let found = Answer::Addresses(vec![IpAddr::V4(*REMOTE.ip())]);
    net.stack.answered(ticket, &found, net.now, &mut net.host);
    assert_eq!(answer(&mut net).0, GOOD);
    assert!(reach(&mut net));
}

#[test]
fn guests_are_told_of_no_ipv6_and_no_hints() {
    let mut net = Net::new();
    for kind in [28, 64, 65] {
        net.frame(&ask("example.com", kind, ELSEWHERE));
        assert_eq!(answer(&mut net), (GOOD, vec![], ELSEWHERE));
    }
    assert!(net.host.look_ups.is_empty());
}

#[test]
fn questions_under_way_are_bounded() {
    let mut net = Net::new();
    for _ in 0..1000 {
        net.frame(&ask("slow.example.com", 1, ELSEWHERE));
    }
    assert_eq!(net.host.look_ups.len(), 256);
    assert_eq!(net.host.frames.len(), 1000 - 256, "the others fail at once");
}

#[test]
fn servers_behind_tls_are_refused() {
    let mut net = Net::new();
    for port in [53, 853] {
        let mut peer = Peer::new(port);
        peer.remote = std::net::SocketAddrV4::new(ELSEWHERE, port);
        let syn = peer.syn();
        net.send(&syn);
        assert!(net.one().has(RST), "{port}");
    }
    net.frame(&datagram(ELSEWHERE, 853, b"quic"));
    let frame = net.host.frames.pop_front().unwrap();
    assert_eq!(open(&frame).2[..2], [3, 13]);
}
