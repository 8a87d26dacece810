//! Connections of a guest that is copied.

use supermachine_net::{BadState, Close};

use crate::support::*;

#[test]
fn copies_are_told_with_the_number_that_they_wait_for_before_all_else() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    let data = peer.segment(ACK, b"data");
    net.send(&data);
    net.socket(0).incoming.extend(b"answer");
    net.ready(0, true, false);
    net.given().iter().for_each(|segment| peer.hear(segment));
    // One that the host has not made yet is none.
    let syn = Peer::new(GUEST_PORT + 1).syn();
    net.send(&syn);
    let saved = net.stack.save();

    let mut copy = Net::new();
    copy.stack
        .restore(&saved, copy.now, &mut copy.host)
        .unwrap();
    assert!(copy.stack.owes());
    // Something else is asked for first, and waits.
    copy.host.is_full = true;
    copy.turn();
    assert_eq!(copy.stack.save(), saved, "what is owed is saved, too");
    copy.host.is_full = false;
    copy.turn();
    let reset = copy.one();
    assert!(reset.has(RST) && reset.guest_port == GUEST_PORT);
    assert_eq!(
        (reset.sequence, reset.acknowledged),
        (peer.expected, peer.next)
    );
    assert!(!copy.stack.owes());
    // The one it was copied from goes on.
    let ack = peer.segment(ACK, b"more");
    net.send(&ack);
    assert_eq!(net.socket(0).sent, b"datamore");
}

#[test]
fn machine_that_goes_back_loses_the_connections_it_has() {
    let mut net = Net::new();
    let before = net.stack.save();
    net.connect(GUEST_PORT, 0);
    net.stack.restore(&before, net.now, &mut net.host).unwrap();
    assert_eq!(net.host.closed, [(REMOTE.into(), Close::Reset)]);
    assert_eq!((net.stack.flows(), net.stack.deadline()), (0, None));
    net.turn();
    net.nothing();
    // A segment of an unknown connection is answered from its own number.
    let mut peer = Peer::new(GUEST_PORT);
    peer.expected = 77;
    let stray = peer.segment(ACK, b"x");
    net.send(&stray);
    let reset = net.one();
    assert_eq!((reset.flags, reset.sequence), (RST, 77));
}

#[test]
fn damaged_states_are_refused() {
    let mut net = Net::new();
    net.connect(GUEST_PORT, 0);
    let good = net.stack.save();
    let mut other = Net::new();
    for length in 1..good.len() {
        let cut = &good[..length];
        assert_eq!(
            other.stack.restore(cut, other.now, &mut other.host),
            Err(BadState)
        );
    }
    let mut foreign = good.clone();
    foreign[15] ^= 1;
    assert_eq!(
        other.stack.restore(&foreign, other.now, &mut other.host),
        Err(BadState)
    );
    let many = good.repeat(20_001);
    assert_eq!(
        other.stack.restore(&many, other.now, &mut other.host),
        Err(BadState)
    );
    assert_eq!(
        other.stack.restore(&good, other.now, &mut other.host),
        Ok(())
    );
}
