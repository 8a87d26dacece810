//! How fast a guest's flows are, and how many.

use std::num::NonZeroU64;
use std::time::Duration;

use supermachine_net::Config;
use supermachine_net::policy::{Limits, Policy};

use crate::support::*;

const RATE: u64 = 100_000;
const BURST: u64 = 10_000;
/// More than it has to be late by: a share of the rate, and a segment.
const SLACK: u64 = 4000;

fn limited(limits: Limits) -> Net {
    Net::of(Config::new(Policy::allow_all().limited(limits)))
}

fn some(value: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(value)
}

fn inward() -> Net {
    limited(Limits {
        rate_in: some(RATE),
        burst: some(BURST),
        ..Limits::default()
    })
}

fn outward() -> Net {
    limited(Limits {
        rate_out: some(RATE),
        burst: some(BURST),
        ..Limits::default()
    })
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count)
        .map(|n| (n * 31 % 251).to_le_bytes()[0])
        .collect()
}

/// What may have passed after so much time.
fn most_after(time: Duration) -> u64 {
    BURST + u64::try_from(time.as_micros()).unwrap() * RATE / 1_000_000
}

/// Goes on when something is due.
fn wait(net: &mut Net) {
    if let Some(due) = net.stack.deadline() {
        net.now = net.now.max(due);
    }
    net.turn();
}

/// Takes what came of a download, and acknowledges it.
fn take(net: &mut Net, peers: &mut [Peer], got: &mut [Vec<u8>]) {
    for segment in net.given() {
        let place = peers
            .iter()
            .position(|peer| peer.port == segment.guest_port);
        let (peer, got) = (&mut peers[place.unwrap()], &mut got[place.unwrap()]);
        if segment.sequence == peer.expected {
            got.extend(&segment.payload);
        }
        peer.hear(&segment);
    }
    for peer in peers {
        let ack = peer.segment(ACK, b"");
        net.send(&ack);
    }
}

#[test]
fn download_keeps_to_its_rate_and_is_whole() {
    let mut net = inward();
    let mut peers = [net.connect(GUEST_PORT, 0)];
    let data = bytes(300_000);
    net.socket(0).incoming.extend(&data);
    let begin = net.now;
    net.ready(0, true, false);
    let mut got = [Vec::new()];
    while got[0].len() < data.len() {
        take(&mut net, &mut peers, &mut got);
        assert!(got[0].len() as u64 <= most_after(net.now - begin));
        wait(&mut net);
    }
    assert_eq!(got[0], data);
    // It was not slower, either.
    let least = most_after(net.now - begin) - SLACK;
    assert!(least <= data.len() as u64, "{:?}", net.now - begin);
    assert!(net.stack.counters().waits > 0);
    // With nothing to pass on there is nothing to wait for.
    take(&mut net, &mut peers, &mut got);
    wait(&mut net);
    assert_eq!(net.stack.deadline(), None);
}

#[test]
fn upload_keeps_to_its_rate_and_is_whole() {
    let mut net = outward();
    let mut peer = net.connect(GUEST_PORT, 0);
    let data = bytes(300_000);
    let (begin, mut sent, mut edge) = (net.now, 0, 16_384);
    while net.socket(0).sent.len() < data.len() {
        while sent < data.len().min(edge) {
            let end = data.len().min(edge).min(sent + 1460);
            let segment = peer.segment(ACK, &data[sent..end]);
            net.frame(&frame_of(&segment));
            sent = end;
        }
        net.turn();
        for segment in net.given() {
            let acknowledged = segment.acknowledged.wrapping_sub(GUEST_FIRST) as usize - 1;
            edge = edge.max(acknowledged + (usize::from(segment.window) << 8));
        }
        let taken = net.socket(0).sent.len() as u64;
        assert!(taken <= most_after(net.now - begin));
        wait(&mut net);
    }
    assert_eq!(net.socket(0).sent, data);
    let least = most_after(net.now - begin) - SLACK;
    assert!(least <= data.len() as u64, "{:?}", net.now - begin);
    assert_eq!(net.stack.deadline(), None);
    // The guest does not send far ahead of what passes.
    assert!(edge <= data.len() + 17_000);
}

#[test]
fn rate_is_shared_by_flows_however_busy_they_are() {
    let mut net = inward();
    let mut peers: Vec<Peer> = (0..3)
        .map(|n| net.connect(GUEST_PORT + n, n.into()))
        .collect();
    let data = bytes(1_000_000);
    for flow in 0..3 {
        net.socket(flow).incoming.extend(&data);
        net.ready(flow, true, false);
    }
    let mut got = vec![Vec::new(); 3];
    let begin = net.now;
    while net.now - begin < Duration::from_secs(3) {
        take(&mut net, &mut peers, &mut got);
        // One of them has its turn at every moment.
        for _ in 0..5 {
            let again = peers[1].segment(ACK, b"");
            net.send(&again);
        }
        wait(&mut net);
    }
    let got: Vec<usize> = got.iter().map(Vec::len).collect();
    let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
    // The first had the burst.
    assert!((most - least) as u64 <= BURST + SLACK, "{got:?}");
    assert!(*least > 80_000, "{got:?}");
}

#[test]
fn messages_beyond_the_rate_are_lost_on_the_way_out_and_wait_on_the_way_in() {
    let mut net = outward();
    for _ in 0..100 {
        net.frame(&datagram([9, 9, 9, 9].into(), 5000, &[7; 1000]));
    }
    let sent = net.socket(10_000).sent_messages.len() as u64;
    assert_eq!(sent, BURST / 1000);
    assert_eq!(net.stack.counters().lost_messages, 100 - sent);
    net.now += Duration::from_millis(500);
    net.frame(&datagram([9, 9, 9, 9].into(), 5000, &[7; 1000]));
    assert_eq!(net.socket(10_000).sent_messages.len() as u64, sent + 1);

    let mut net = inward();
    net.frame(&datagram([9, 9, 9, 9].into(), 5000, b"ask"));
    for _ in 0..100 {
        net.socket(10_000).messages.push_back(vec![7; 1000]);
    }
    let begin = net.now;
    net.ready(10_000, true, false);
    while net.host.frames.len() < 100 {
        let given = net.host.frames.len() as u64 * 1000;
        assert!(given <= most_after(net.now - begin) + 1000);
        wait(&mut net);
    }
    let passed = net.now - begin;
    assert!((850..1000).contains(&passed.as_millis()), "{passed:?}");
}

#[test]
fn guest_without_room_is_not_asked_again_at_once() {
    let mut net = inward();
    net.frame(&datagram([9, 9, 9, 9].into(), 5000, b"ask"));
    let peer = net.connect(GUEST_PORT, 0);
    net.socket(0).incoming.extend(bytes(100_000));
    for _ in 0..100 {
        net.socket(10_000).messages.push_back(vec![7; 1000]);
    }
    net.ready(10_000, true, false);
    net.host.is_full = true;
    net.ready(0, true, false);
    let mut turns = 0;
    let end = net.now + Duration::from_secs(5);
    while let Some(due) = net.stack.deadline()
        && due < end
    {
        net.now = net.now.max(due);
        net.turn();
        turns += 1;
        assert!(turns < 1000, "it is asked again and again");
    }
    assert_eq!(peer.port, GUEST_PORT);
}

#[test]
fn connections_are_as_many_as_is_said() {
    let mut net = limited(Limits {
        max_flows: some(3),
        ..Limits::default()
    });
    for flow in 0..3 {
        net.connect(GUEST_PORT + flow, flow.into());
    }
    let mut one_more = Peer::new(GUEST_PORT + 3);
    net.send(&one_more.syn());
    assert!(net.one().has(RST));
    assert_eq!(net.stack.flows(), 3);
    // Datagrams are no connections, and as many.
    for port in 0..5 {
        net.frame(&datagram([9, 9, 9, 9].into(), 5000 + port, b"x"));
    }
    assert_eq!(net.stack.datagram_flows(), 3);
}

#[test]
fn limits_that_say_nothing_are_refused() {
    let check = |limits| Policy::deny_all().limited(limits).check();
    assert!(check(Limits::default()).is_ok());
    let burst = Limits {
        burst: some(1),
        ..Limits::default()
    };
    assert!(check(burst).is_err());
    let with_rate = Limits {
        rate_out: some(1),
        ..burst
    };
    assert!(check(with_rate).is_ok());
    let many = Limits {
        max_flows: some(10_001),
        ..Limits::default()
    };
    assert!(check(many).is_err());
}
