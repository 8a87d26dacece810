//! Guests that mean harm.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::support::*;

#[test]
fn a_hundred_thousand_syns_leave_others_their_share() {
    let mut net = Net::new();
    let mut peer = Peer::new(1);
    let syn = peer.syn();
    for n in 0..100_000_u32 {
        let port = u16::try_from(1 + n % 60_000).unwrap();
        let syn = Tcp {
            guest_port: port,
            ..syn.clone()
        };
        net.frame(&frame_of(&syn));
    }
    net.turn();
    // A quarter of 512, to the one destination.
    assert_eq!(net.stack.flows(), 128);
    let syn = Tcp {
        remote: SocketAddrV4::new(Ipv4Addr::new(9, 9, 9, 10), 80),
        ..syn
    };
    net.frame(&frame_of(&syn));
    assert_eq!(net.stack.flows(), 129);
}

#[test]
fn health_checks_that_reset_do_not_use_up_what_is_half_open() {
    let mut net = Net::new();
    for n in 0..2000_u16 {
        let mut peer = Peer::new(1000 + n);
        let syn = peer.syn();
        net.send(&syn);
        net.socket(0).outcome = Some(Ok(()));
        net.ready(0, false, true);
        assert!(net.one().has(SYN | ACK), "number {n}");
        let reset = peer.segment(RST, b"");
        net.send(&reset);
    }
    assert_eq!(net.stack.flows(), 0);
}

#[test]
fn connections_are_bounded() {
    let mut config = supermachine_net::Config::new(supermachine_net::policy::Policy::allow_all());
    config.max_flows = 50;
    let mut net = Net::of(config);
    for n in 0..50 {
        net.connect(1000 + n, n.into());
    }
    let syn = Peer::new(99).syn();
    net.send(&syn);
    assert!(net.one().has(RST));
    assert_eq!(net.stack.flows(), 50);
}

#[test]
fn ten_thousand_connections_have_their_turn_and_one_more_is_refused() {
    const MANY: u16 = 10_000;
    let mut net = Net::new();
    let mut peers: Vec<Peer> = (0..MANY).map(|n| net.connect(1000 + n, n.into())).collect();
    net.send(&Peer::new(99).syn());
    assert!(net.one().has(RST));
    assert_eq!(net.stack.flows(), MANY.into());
    // One of them has more than all others together, and comes first.
    let endless = 1 << 20;
    net.socket(0)
        .incoming
        .extend(std::iter::repeat_n(b'x', endless));
    for n in 0..MANY {
        net.socket(n.into()).incoming.extend(b"word");
        let (now, host) = (net.now, &mut net.host);
        net.stack
            .ready(supermachine_net::FlowId(n.into()), true, false, now, host);
    }
    net.turn();
    let mut heard = std::collections::BTreeSet::new();
    for segment in net.given() {
        let peer = &mut peers[usize::from(segment.guest_port - 1000)];
        peer.hear(&segment);
        heard.insert(segment.guest_port);
    }
    assert_eq!(
        heard.len(),
        MANY.into(),
        "all but nobody waited for the one"
    );
    assert!(net.stack.buffered_bytes() <= 256 << 20);
    // And each is heard.
    for (n, peer) in peers.iter_mut().enumerate() {
        net.frame(&frame_of(&peer.segment(ACK, b"answer")));
        assert_eq!(net.socket(u32::try_from(n).unwrap()).sent, b"answer");
    }
}

#[test]
fn minute_in_which_the_host_stood_still_ends_nothing_that_is_there() {
    let mut net = Net::new();
    let mut alive = net.connect(GUEST_PORT, 0);
    net.connect(GUEST_PORT + 1, 1);
    // Something is on its way to the guest, and somebody is being connected to.
    net.socket(0).incoming.extend(b"before");
    net.ready(0, true, false);
    let before = net.one();
    net.send(&Peer::new(GUEST_PORT + 2).syn());
    net.frame(&datagram([9, 9, 9, 9].into(), 60, b"question"));
    net.now += std::time::Duration::from_secs(60);
    // The guest stood still as well: its acknowledgement is there first, as the thread
    // takes frames before it looks at times. One socket died, one is connected.
    alive.hear(&before);
    net.frame(&frame_of(&alive.segment(ACK, b"after")));
    net.socket(1).error = Some(std::io::ErrorKind::TimedOut);
    net.ready(1, true, false);
    net.socket(2).outcome = Some(Ok(()));
    net.ready(2, false, true);
    let given = net.given();
    let of = |port| {
        given
            .iter()
            .filter(move |segment| segment.guest_port == port)
    };
    assert!(of(GUEST_PORT).all(|segment| segment.payload.is_empty() && !segment.has(RST)));
    assert!(of(GUEST_PORT + 1).all(|segment| segment.has(RST)));
    assert_eq!(of(GUEST_PORT + 1).count(), 1);
    assert!(of(GUEST_PORT + 2).all(|segment| segment.has(SYN | ACK)));
    assert_eq!(of(GUEST_PORT + 2).count(), 1);
    assert_eq!(net.socket(0).sent, b"after");
    assert_eq!(net.stack.flows(), 2);
    // What was lost meanwhile is sent again, once, and not as often as time has passed.
    net.socket(0).incoming.extend(b"lost");
    net.ready(0, true, false);
    let lost = net.one();
    net.pass(std::time::Duration::from_secs(60));
    let again = net.given();
    let mut again = again.iter().filter(|again| again.guest_port == GUEST_PORT);
    assert_eq!(
        again.next().map(|again| &again.payload),
        Some(&lost.payload)
    );
    assert_eq!(again.next(), None);
}

#[test]
fn what_is_no_packet_is_ignored() {
    let mut net = Net::new();
    let good = frame_of(&Peer::new(GUEST_PORT).syn());
    for length in 0..good.len() {
        net.frame(&good[..length]);
    }
    // Every byte of it wrong in turn.
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        net.frame(&bad);
    }
    // Fragments, the first one and the second.
    for (high, low) in [(0x20, 0), (0, 1)] {
        let mut fragment = good.clone();
        fragment[20..22].copy_from_slice(&[high, low]);
        fragment[24..26].copy_from_slice(&[0, 0]);
        let sum = checksum(&[&fragment[14..34]]);
        fragment[24..26].copy_from_slice(&sum.to_be_bytes());
        net.frame(&fragment);
    }
    net.turn();
    // The guest's MAC address is the one field that nobody looks at.
    assert!(net.host.sockets.len() <= 1);
    assert!(net.stack.counters().ignored_frames > 100);
}

#[test]
fn numbers_that_lie_do_no_harm() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    let good = peer.segment(ACK, b"data");
    let mut lies = Vec::new();
    for distance in [
        1,
        1 << 20,
        1 << 30,
        u32::MAX / 2,
        u32::MAX / 2 + 1,
        u32::MAX,
    ] {
        for flags in [0, ACK, SYN, SYN | ACK, !(RST | FIN)] {
            lies.push(Tcp {
                sequence: good.sequence.wrapping_add(distance),
                flags,
                ..good.clone()
            });
            lies.push(Tcp {
                acknowledged: good.acknowledged.wrapping_add(distance),
                sequence: good.sequence.wrapping_add(1 << 21),
                flags,
                ..good.clone()
            });
        }
    }
    for lie in &lies {
        net.send(lie);
        assert!(net.given().len() <= 2, "{lie:x?}");
    }
    assert_eq!(net.stack.flows(), 1);
    net.send(&good);
    let sent = &net.socket(0).sent;
    // What it said first of each place, and nothing of what lay beyond the window.
    assert!((4..10).contains(&sent.len()), "{sent:?}");
}

#[test]
fn pieces_that_are_parked_are_bounded() {
    let mut config = supermachine_net::Config::new(supermachine_net::policy::Policy::allow_all());
    config.max_buffered_bytes = 100_000;
    let mut net = Net::of(config);
    for n in 0..10 {
        let mut peer = net.connect(1000 + n, n.into());
        peer.segment(ACK, b"lost");
        for _ in 0..100 {
            let later = peer.segment(ACK, &[1; 1000]);
            net.send(&later);
            net.given();
        }
    }
    assert!(net.stack.buffered_bytes() <= 100_000);
}

#[test]
fn connections_that_end_cleanly_leave_nothing_behind() {
    let mut net = Net::new();
    for n in 0..300 {
        let mut peer = net.connect(1000 + n, 0);
        let fin = peer.segment(ACK | FIN, b"");
        net.send(&fin);
        net.socket(0).is_over = true;
        net.ready(0, true, false);
        net.given().iter().for_each(|segment| peer.hear(segment));
        let ack = peer.segment(ACK, b"");
        net.send(&ack);
        net.given();
        assert_eq!(net.stack.flows(), 0, "number {n}");
    }
    assert_eq!(net.host.closed.len(), 300);
    assert_eq!(net.stack.deadline(), None);
}

#[test]
fn host_without_descriptors_has_one_for_the_next() {
    let mut net = Net::new();
    net.host.connect_error = Some(std::io::ErrorKind::Other);
    for port in 0..300 {
        let syn = Peer::new(1000 + port).syn();
        net.send(&syn);
        net.frame(&datagram([9, 9, 9, 9].into(), port + 60, b"x"));
    }
    net.nothing();
    assert_eq!((net.stack.flows(), net.stack.datagram_flows()), (0, 0));
    net.host.connect_error = None;
    net.connect(GUEST_PORT, 0);
    net.frame(&datagram([9, 9, 9, 9].into(), 60, b"x"));
    assert_eq!(net.stack.datagram_flows(), 1);
}

#[test]
fn host_that_loses_its_network_and_finds_another_goes_on() {
    use std::io::ErrorKind as Kind;
    let mut net = Net::new();
    net.connect(GUEST_PORT, 0);
    // What there was ends by what its sockets say, whatever that is, once.
    net.socket(0).error = Some(Kind::TimedOut);
    net.ready(0, true, false);
    assert!(net.one().has(RST));
    for kind in [
        Kind::NetworkDown,
        Kind::NetworkUnreachable,
        Kind::HostUnreachable,
        Kind::AddrNotAvailable,
        Kind::OutOfMemory,
        Kind::Other,
    ] {
        net.frame(&datagram([9, 9, 9, 9].into(), 60, b"x"));
        net.socket(10_000).send_error = Some(kind);
        net.frame(&datagram([9, 9, 9, 9].into(), 60, b"x"));
        assert_eq!(net.stack.datagram_flows(), 0, "{kind}");
        net.host.frames.clear();
        // As long as there is none, each is told so.
        net.host.connect_error = Some(kind);
        net.send(&Peer::new(GUEST_PORT).syn());
        net.frame(&datagram([9, 9, 9, 9].into(), 60, b"x"));
        assert_eq!((net.stack.flows(), net.stack.datagram_flows()), (0, 0));
        net.host.frames.clear();
        net.host.connect_error = None;
    }
    net.connect(GUEST_PORT, 0);
    net.frame(&datagram([9, 9, 9, 9].into(), 60, b"x"));
    assert_eq!((net.stack.flows(), net.stack.datagram_flows()), (1, 1));
}
