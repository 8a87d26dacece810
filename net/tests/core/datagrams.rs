//! Datagrams and echo requests that leave.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use supermachine_net::policy::{Cause, Policy, Ports, Protocol, Rule, Target, Verdict};
use supermachine_net::{Config, End, Transport};

use crate::support::*;

/// Numbers of exchanges come after those of connections.
const FIRST: u32 = 10_000;
const THERE: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);

fn payload_of(net: &mut Net) -> Vec<u8> {
    assert_eq!(net.host.frames.len(), 1);
    let frame = net.host.frames.pop_front().unwrap();
    let (protocol, from, bytes) = open(&frame);
    assert_eq!(protocol, 17);
    assert_eq!(checksum(&[&pseudo(from, 17, bytes.len()), bytes]), 0);
    bytes[8..].to_vec()
}

#[test]
fn datagrams_go_both_ways_over_a_socket_of_their_own() {
    let mut net = Net::new();
    net.frame(&datagram(THERE.into(), 123, b"one"));
    net.frame(&datagram(THERE.into(), 123, b"two"));
    net.frame(&datagram(THERE.into(), 124, b"three"));
    assert_eq!(net.stack.datagram_flows(), 2);
    let socket = net.socket(FIRST);
    assert_eq!(socket.transport, Transport::Datagram);
    assert_eq!(socket.to, (THERE, 123).into());
    assert_eq!(socket.sent_messages, [b"one".to_vec(), b"two".to_vec()]);
    socket
        .messages
        .extend([b"answer".to_vec(), Vec::new(), vec![5; 3000]]);
    net.ready(FIRST, true, false);
    let given: Vec<usize> = net.host.frames.iter().map(Vec::len).collect();
    assert_eq!(
        given,
        [42 + 6, 42, 34 + 1480, 34 + 1480, 34 + 48],
        "the empty one too, and the long one in pieces"
    );
    let frame = net.host.frames.pop_front().unwrap();
    assert_eq!(open(&frame).1, THERE);
    assert_eq!(open(&frame).2[..4], [0, 123, 0x14, 0xe9]);
    let counters = net.stack.counters();
    assert_eq!((counters.sent_bytes, counters.received_bytes), (11, 3006));
}

#[test]
fn policy_decides_of_datagrams_by_their_protocol() {
    let mut net = Net::of(Config::new(
        Policy::deny_all()
            .rule(Rule {
                verdict: Verdict::Allow,
                target: Target::Any,
                ports: Ports::from(443),
                protocol: Some(Protocol::Udp),
            })
            .host_port(80)
            .host_udp_port(81),
    ));
    net.stack.keep_records(100);
    let gateway = IpAddr::from([192, 168, 127, 1]);
    for (to, port, reached) in [
        (THERE.into(), 443, true),
        (THERE.into(), 444, false),
        (IpAddr::from([10, 0, 0, 1]), 443, false),
        (IpAddr::from([127, 0, 0, 1]), 443, false),
        (gateway, 80, false),
        (gateway, 81, true),
    ] {
        let before = net.host.sockets.len();
        net.frame(&datagram(to, port, b"x"));
        assert_eq!(net.host.sockets.len() > before, reached, "{to}:{port}");
        let refusal = net.host.frames.pop_front();
        // Port or host: nothing says more of the gateway than that nobody listens.
        let code = if to == gateway { 3 } else { 13 };
        match refusal {
            Some(frame) => assert_eq!(open(&frame).2[..2], [3, code], "{to}:{port}"),
            None => assert!(reached, "refused in silence"),
        }
    }
    let to_host = net.socket(FIRST + 1).to;
    assert_eq!(to_host, (Ipv4Addr::LOCALHOST, 81).into());
    let causes: Vec<Cause> = net
        .stack
        .take_records()
        .iter()
        .map(|record| record.cause)
        .collect();
    let expected = [
        Cause::Default,
        Cause::NotPublic,
        Cause::NotPublic,
        Cause::HostPort,
    ];
    assert_eq!(causes, expected);
}

#[test]
fn refusal_of_a_port_reaches_the_program_and_ends_the_exchange() {
    let mut net = Net::new();
    net.stack.keep_records(10);
    net.frame(&datagram(THERE.into(), 9, b"x"));
    net.socket(FIRST).error = Some(ErrorKind::ConnectionRefused);
    net.ready(FIRST, true, false);
    let frame = net.host.frames.pop_front().unwrap();
    let (protocol, from, message) = open(&frame);
    assert_eq!((protocol, from), (1, Ipv4Addr::new(192, 168, 127, 1)));
    assert_eq!(checksum(&[message]), 0);
    assert_eq!(message[..2], [3, 3]);
    // It quotes the datagram: its ends and its ports.
    assert_eq!(message[8 + 9], 17);
    assert_eq!(message[8 + 16..8 + 20], THERE.octets());
    assert_eq!(message[8 + 20..8 + 24], [0x14, 0xe9, 0, 9]);
    assert_eq!(net.stack.datagram_flows(), 0, "asked for nothing more");
    assert_eq!(net.stack.take_records()[0].end, End::Refused);
    // The next one begins anew.
    net.frame(&datagram(THERE.into(), 9, b"y"));
    assert_eq!(net.socket(FIRST).sent_messages, [b"y"]);
    net.socket(FIRST).send_error = Some(ErrorKind::ConnectionRefused);
    net.frame(&datagram(THERE.into(), 9, b"z"));
    assert_eq!(net.stack.datagram_flows(), 0);
}

#[test]
fn exchange_that_was_silent_longest_makes_room_for_another() {
    let mut net = Net::new();
    for port in 0..1024 {
        net.frame(&datagram(THERE.into(), 1000 + port, b"x"));
        net.now += Duration::from_millis(1);
        // The first is in use all the time.
        net.frame(&datagram(THERE.into(), 1000, b"still here"));
    }
    assert_eq!(net.stack.datagram_flows(), 512);
    let used = net
        .host
        .sockets
        .values()
        .any(|socket| socket.to.port() == 1000);
    assert!(used && net.host.closed.len() == 512);
    assert!(net.host.frames.is_empty(), "none of them failed");
}

#[test]
fn silent_exchanges_end_and_leave_no_deadline() {
    let mut net = Net::new();
    net.frame(&datagram(THERE.into(), 1, b"unanswered"));
    net.frame(&datagram(THERE.into(), 2, b"answered"));
    net.socket(FIRST + 1).messages.push_back(b"yes".to_vec());
    net.ready(FIRST + 1, true, false);
    assert_eq!(payload_of(&mut net), b"yes");
    let mut passed = Duration::ZERO;
    let mut ends = Vec::new();
    while let Some(due) = net.stack.deadline() {
        let wait = due.saturating_duration_since(net.now);
        assert!(wait > Duration::ZERO && passed < Duration::from_secs(300));
        passed += wait;
        net.pass(wait);
        if net.host.closed.len() > ends.len() {
            ends.push(passed.as_secs());
        }
    }
    assert_eq!(ends, [30, 120]);
    assert_eq!(net.stack.datagram_flows(), 0);
}

#[test]
fn exchange_with_endless_messages_leaves_others_their_turn() {
    let mut net = Net::new();
    net.frame(&datagram(THERE.into(), 1, b"x"));
    net.frame(&datagram(THERE.into(), 2, b"x"));
    let many = std::iter::repeat_n(vec![1; 100], 1000);
    net.socket(FIRST).messages.extend(many);
    net.socket(FIRST + 1).messages.push_back(b"one".to_vec());
    for flow in [FIRST, FIRST + 1] {
        let (now, host) = (net.now, &mut net.host);
        net.stack
            .ready(supermachine_net::FlowId(flow), true, false, now, host);
    }
    assert!(net.stack.turn(net.now, &mut net.host));
    assert!(net.host.frames.len() < 100);
    assert_eq!(net.host.frames.back().unwrap().len(), 42 + 3);
    // A guest without room is waited for, and asks again.
    net.host.is_full = true;
    assert!(!net.stack.turn(net.now, &mut net.host));
    net.host.is_full = false;
    net.turn();
    assert!(net.socket(FIRST).messages.is_empty());
}

#[test]
fn echo_requests_go_out_and_come_back_with_the_guests_number() {
    let mut net = Net::new();
    net.frame(&echo(THERE.into(), 0x1234, b"odd"));
    let socket = net.socket(FIRST);
    assert_eq!(
        (socket.transport, socket.to.ip()),
        (Transport::Echo, THERE.into())
    );
    let sent = socket.sent_messages.remove(0);
    assert_eq!(sent[..2], [8, 0]);
    // The system put a number of its own there, and a message of another kind.
    let mut reply = sent.clone();
    reply[0] = 0;
    reply[4..6].copy_from_slice(&[0xbe, 0xef]);
    socket
        .messages
        .extend([vec![3, 1, 0, 0, 0, 0, 0, 0], vec![0; 3], reply]);
    net.ready(FIRST, true, false);
    assert_eq!(net.host.frames.len(), 1);
    let frame = net.host.frames.pop_front().unwrap();
    let (protocol, from, message) = open(&frame);
    assert_eq!((protocol, from, checksum(&[message])), (1, THERE, 0));
    assert_eq!(message[4..6], [0x12, 0x34]);
    assert_eq!(message[8..], *b"odd");
    // Another number is another exchange, and so is another address.
    net.frame(&echo(THERE.into(), 0x1235, b""));
    net.frame(&echo([9, 9, 9, 8].into(), 0x1234, b""));
    assert_eq!(net.stack.datagram_flows(), 3);
}

#[test]
fn echo_requests_that_the_host_does_not_permit_are_refused() {
    let mut net = Net::new();
    net.host.connect_error = Some(ErrorKind::PermissionDenied);
    net.frame(&echo(THERE.into(), 1, b""));
    let frame = net.host.frames.pop_front().unwrap();
    assert_eq!(open(&frame).2[..2], [3, 13]);
    assert_eq!(net.stack.datagram_flows(), 0);
    net.host.connect_error = None;
    net.frame(&echo([10, 0, 0, 1].into(), 1, b""));
    let frame = net.host.frames.pop_front().unwrap();
    assert_eq!(open(&frame).2[..2], [3, 13], "nothing private");
    assert!(net.host.sockets.is_empty());
}

#[test]
fn gateway_is_the_first_router_of_a_route() {
    let mut net = Net::new();
    for frame in [
        datagram(THERE.into(), 33_434, b"x"),
        echo(THERE.into(), 1, b"x"),
        frame_of(&Peer::new(1).syn()),
    ] {
        net.frame(&with_hops(frame.clone(), 1));
        let given = net.host.frames.pop_front().unwrap();
        let (protocol, from, message) = open(&given);
        assert_eq!((protocol, from), (1, Ipv4Addr::new(192, 168, 127, 1)));
        assert_eq!(message[..2], [11, 0]);
        assert!(net.host.sockets.is_empty());
        // With one more it is passed on.
        net.frame(&with_hops(frame, 2));
        assert_eq!(net.host.sockets.len(), 1);
        net.host.sockets.clear();
        net = Net::new();
    }
    // Nobody complains of what was for many.
    net.frame(&with_hops(datagram([224, 0, 0, 251].into(), 5353, b"x"), 1));
    net.frame(&datagram(Ipv4Addr::BROADCAST.into(), 9, b"x"));
    assert!(net.host.frames.is_empty() && net.host.sockets.is_empty());
}

#[test]
fn machine_that_goes_back_has_no_exchanges() {
    let mut net = Net::new();
    net.stack.keep_records(10);
    net.frame(&datagram(THERE.into(), 1, b"x"));
    net.socket(FIRST).messages.push_back(b"late".to_vec());
    let now = net.now;
    net.stack.restore(&[], now, &mut net.host).unwrap();
    assert_eq!(net.stack.deadline(), None);
    net.ready(FIRST, true, false);
    assert!(net.host.frames.is_empty() && net.host.sockets.is_empty());
    let record = net.stack.take_records().pop_front().unwrap();
    assert_eq!((record.end, record.protocol), (End::Rewound, Protocol::Udp));
}

#[test]
fn guest_that_asks_for_an_address_gets_the_one_there_is() {
    let mut net = Net::new();
    let ask = |kind: u8, wanted: Option<[u8; 4]>, source: Ipv4Addr| {
        let mut message = vec![1, 1, 6, 0, 1, 2, 3, 4];
        message.resize(28, 0);
        message.extend([2, 0x53, 0x4d, 0, 0, 2]);
        message.resize(236, 0);
        message.extend([99, 130, 83, 99, 53, 1, kind]);
        if let Some(wanted) = wanted {
            message.extend([50, 4]);
            message.extend(wanted);
        }
        message.push(255);
        let mut out = vec![0, 68, 0, 67];
        out.extend(u16::try_from(8 + message.len()).unwrap().to_be_bytes());
        out.extend([0, 0]);
        out.extend(message);
        let mut frame = packet(Ipv4Addr::BROADCAST, 17, &out);
        frame[26..30].copy_from_slice(&source.octets());
        with_hops(frame, 64)
    };
    let mine = [192, 168, 127, 2];
    for (kind, wanted, answer, given) in [
        (1, None, 2, true),
        (3, Some(mine), 5, true),
        (3, Some([10, 0, 0, 9]), 6, false),
    ] {
        net.frame(&ask(kind, wanted, Ipv4Addr::UNSPECIFIED));
        let frame = net.host.frames.pop_front().unwrap();
        let reply = &frame[14 + 20 + 8..];
        assert_eq!(frame[34..38], [0, 67, 0, 68]);
        assert_eq!(reply[..8], [2, 1, 6, 0, 1, 2, 3, 4]);
        assert_eq!(reply[16..20] == mine, given);
        assert_eq!(reply[236..243], [99, 130, 83, 99, 53, 1, answer]);
        let has = |option: &[u8]| reply.windows(option.len()).any(|part| part == option);
        assert_eq!(has(&[3, 4, 192, 168, 127, 1]), given, "its router");
        assert_eq!(has(&[1, 4, 255, 255, 255, 0]), given, "its mask");
    }
    // Cut anywhere, it is nothing.
    let whole = ask(3, Some(mine), Ipv4Addr::UNSPECIFIED);
    for length in 43..whole.len() - 1 {
        let message = &whole[42..length];
        let frame = datagram([192, 168, 127, 1].into(), 67, message);
        net.frame(&frame);
    }
    net.host.frames.clear();
    let other: SocketAddr = "192.168.127.7:68".parse().unwrap();
    let IpAddr::V4(other) = other.ip() else {
        unreachable!("it is IPv4")
    };
    net.frame(&ask(1, None, other));
    assert!(net.host.frames.is_empty(), "in the name of another");
    assert!(net.host.sockets.is_empty(), "the host's ports are its own");
}
