//! The guest's resolver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use supermachine_net::policy::{Policy, Ports, Rule, Target, Verdict};
use supermachine_net::{Addresses, Answer, Config};

use crate::support::*;

/// A question for records of a name, to any server.
pub fn ask(name: &str, kind: u16, server: Ipv4Addr) -> Vec<u8> {
    datagram(server.into(), 53, &question(name, kind))
}

/// The question as a message.
fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
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
fn guests_are_told_of_no_ipv6_that_the_host_lacks_and_of_no_hints() {
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
    let mut peer = Peer::new(GUEST_PORT);
    peer.remote = std::net::SocketAddrV4::new(ELSEWHERE, 853);
    let syn = peer.syn();
    net.send(&syn);
    assert!(net.one().has(RST));
    net.frame(&datagram(ELSEWHERE.into(), 853, b"quic"));
    let frame = net.host.frames.pop_front().unwrap();
    assert_eq!(open(&frame).2[..2], [3, 13]);
}

#[test]
fn guests_are_told_of_ipv6_that_the_host_has() {
    let mut net = Net::new();
    net.host.has_ipv6 = true;
    net.frame(&ask("example.com", 28, ELSEWHERE));
    let (ticket, name) = net.host.look_ups.remove(0);
    assert_eq!(name, "example.com");
    let address: Ipv6Addr = "2606:4700::1".parse().unwrap();
    let found = Answer::Addresses(vec![address.into(), [9, 9, 9, 9].into()]);
    net.stack.answered(ticket, &found, net.now, &mut net.host);
    let frame = net.host.frames.pop_front().unwrap();
    let message = &open(&frame).2[8..];
    assert_eq!(message[7], 1, "of the kind that was asked for");
    assert!(message.ends_with(&address.octets()));
}

/// An answer with one record, of the type that was asked for.
fn answer_to(asked: &[u8], filling: usize) -> Vec<u8> {
    let mut out = vec![0x77, 0x88, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    out.extend(asked);
    out.extend([0xc0, 0x0c]);
    out.extend(&asked[asked.len() - 4..]);
    out.extend([0, 0, 0, 30]);
    out.extend(u16::try_from(filling).unwrap().to_be_bytes());
    out.extend(vec![7; filling]);
    out
}

#[test]
fn records_of_other_types_are_asked_of_the_hosts_servers_and_passed_on() {
    let mut net = Net::new();
    // PTR, MX, TXT, SRV, CNAME, SOA.
    for kind in [12, 15, 16, 33, 5, 6] {
        net.frame(&ask("Some.example.com", kind, ELSEWHERE));
        let (ticket, asked) = net.host.questions.remove(0);
        let reply = Answer::Message(answer_to(&asked, 20));
        net.stack.answered(ticket, &reply, net.now, &mut net.host);
        let frame = net.host.frames.pop_front().unwrap();
        let message = &open(&frame).2[8..];
        assert_eq!(message[..2], [0xab, 0xcd], "the guest's number");
        assert_eq!(message[..12][4..], [0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(message[12..12 + asked.len()], asked[..], "its letters");
        assert!(message.ends_with(&[7; 20]));
    }
    // Too long for a datagram, so that it is asked again over TCP.
    net.frame(&ask("some.example.com", 16, ELSEWHERE));
    let (ticket, asked) = net.host.questions.remove(0);
    let reply = Answer::Message(answer_to(&asked, 600));
    net.stack.answered(ticket, &reply, net.now, &mut net.host);
    let frame = net.host.frames.pop_front().unwrap();
    let message = &open(&frame).2[8..];
    assert_eq!((message[2] & 2, message[7]), (2, 0));
    // What answers something else is no answer.
    net.frame(&ask("some.example.com", 16, ELSEWHERE));
    let (ticket, mut asked) = net.host.questions.remove(0);
    asked[1] ^= 2;
    let reply = Answer::Message(answer_to(&asked, 20));
    net.stack.answered(ticket, &reply, net.now, &mut net.host);
    assert_eq!(open(&net.host.frames.pop_front().unwrap()).2[11] & 15, 2);
    // Whole zones are not asked for.
    net.frame(&ask("example.com", 252, ELSEWHERE));
    assert!(net.host.questions.is_empty());
}

#[test]
fn names_are_asked_for_over_connections_too() {
    let mut net = Net::new();
    let mut peer = Peer::new(GUEST_PORT);
    peer.remote = std::net::SocketAddrV4::new(ELSEWHERE, 53);
    let syn = peer.syn();
    net.send(&syn);
    let answer = net.one();
    assert!(answer.has(SYN | ACK), "without a socket of the host");
    peer.hear(&answer);
    let ack = peer.segment(ACK, b"");
    net.send(&ack);
    // Two questions, of which the second is in two segments.
    let framed = |name: &str, kind| {
        let message = question(name, kind);
        let length = u16::try_from(message.len()).unwrap();
        [&length.to_be_bytes()[..], &message].concat()
    };
    let mut both = framed("one.example.com", 1);
    both.extend(framed("two.example.com", 16));
    let (first, second) = both.split_at(both.len() - 9);
    let segment = peer.segment(ACK, first);
    net.send(&segment);
    assert_eq!(net.host.look_ups.len(), 1);
    let segment = peer.segment(ACK | FIN, second);
    net.send(&segment);
    net.given().iter().for_each(|segment| peer.hear(segment));
    let (ticket, asked) = net.host.questions.remove(0);
    let long = answer_to(&asked, 5000);
    net.stack.answered(
        ticket,
        &Answer::Message(long.clone()),
        net.now,
        &mut net.host,
    );
    let (ticket, _) = net.host.look_ups.remove(0);
    let found = Answer::Addresses(vec![[9, 9, 9, 9].into()]);
    net.stack.answered(ticket, &found, net.now, &mut net.host);
    net.turn();
    let mut got = Vec::new();
    let mut has_ended = false;
    for _ in 0..10 {
        let given = net.given();
        for segment in &given {
            got.extend(&segment.payload);
            has_ended |= segment.has(FIN);
            peer.hear(segment);
        }
        let ack = peer.segment(ACK, b"");
        net.send(&ack);
    }
    assert!(has_ended, "after the last answer");
    let length = usize::from(u16::from_be_bytes([got[0], got[1]]));
    assert_eq!(length, long.len(), "all of it");
    assert_eq!(got[2..][..2], [0xab, 0xcd]);
    assert!(got.ends_with(&[9, 9, 9, 9]));
    assert_eq!(net.stack.flows(), 0);
    assert!(net.host.sockets.is_empty() && net.host.closed.is_empty());
}

#[test]
fn connections_with_the_resolver_that_are_silent_make_room() {
    let mut net = Net::new();
    for n in 0..200 {
        let mut peer = Peer::new(2000 + n);
        peer.remote = std::net::SocketAddrV4::new(ELSEWHERE, 53);
        let syn = peer.syn();
        net.send(&syn);
        net.now += std::time::Duration::from_millis(1);
        assert!(
            net.given().iter().any(|answer| answer.has(SYN | ACK)),
            "{n}"
        );
    }
    assert_eq!(net.stack.flows(), 64);
    // What is no message ends its connection.
    let mut peer = Peer::new(7);
    peer.remote = std::net::SocketAddrV4::new(ELSEWHERE, 53);
    let syn = peer.syn();
    net.send(&syn);
    net.given().iter().for_each(|answer| {
        if answer.guest_port == 7 {
            peer.hear(answer);
        }
    });
    let garbage = peer.segment(ACK, &[0xff; 600]);
    net.send(&garbage);
    assert!(
        net.given()
            .iter()
            .any(|answer| answer.guest_port == 7 && answer.has(RST))
    );
}

#[test]
fn name_that_is_rebound_to_a_private_address_leads_nowhere() {
    let policy = Policy::allow_all().rule(Rule {
        verdict: Verdict::Allow,
        target: Target::Host("*.evil.org".parse().unwrap()),
        ports: Ports::ALL,
        protocol: None,
    });
    let mut net = Net::of(Config::new(policy));
    for private in ["127.0.0.1", "10.0.0.5", "169.254.169.254"] {
        net.frame(&ask("rebind.evil.org", 1, ELSEWHERE));
        let (ticket, _) = net.host.look_ups.remove(0);
        let private: Ipv4Addr = private.parse().unwrap();
        let found = Answer::Addresses(vec![private.into()]);
        net.stack.answered(ticket, &found, net.now, &mut net.host);
        net.host.frames.clear();
        let mut peer = Peer::new(GUEST_PORT);
        peer.remote = std::net::SocketAddrV4::new(private, 80);
        let syn = peer.syn();
        net.send(&syn);
        assert!(net.one().has(RST));
        net.frame(&datagram(private.into(), 80, b"x"));
        assert_eq!(open(&net.host.frames.pop_front().unwrap()).2[..2], [3, 13]);
    }
    assert!(net.host.sockets.is_empty());
}
