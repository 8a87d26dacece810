//! What a guest reaches, and who answers it.

use std::net::{Ipv4Addr, SocketAddrV4};

use supermachine_net::Addresses;

use crate::support::*;

#[test]
fn gateway_answers_for_its_address_only() {
    let mut net = Net::new();
    let Addresses {
        guest_mac,
        gateway_mac,
        guest,
        gateway,
        ..
    } = Addresses::default();
    let ask = |target: Ipv4Addr| {
        let mut frame = [&[0xff; 6][..], &guest_mac, &[8, 6]].concat();
        frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(guest_mac);
        frame.extend(guest.octets());
        frame.extend([0; 6]);
        frame.extend(target.octets());
        frame
    };
    net.frame(&ask(Ipv4Addr::new(192, 168, 127, 9)));
    net.frame(&ask(guest));
    assert!(net.host.frames.is_empty(), "a duplicate would be seen");
    net.frame(&ask(gateway));
    let reply = net.host.frames.pop_front().unwrap();
    assert_eq!(
        reply[..14],
        [&guest_mac[..], &gateway_mac, &[8, 6]].concat()
    );
    assert_eq!(reply[20..22], [0, 2]);
    assert_eq!(
        reply[22..32],
        [&gateway_mac[..], &gateway.octets()].concat()
    );
}

#[test]
fn gateway_answers_echo_requests() {
    let mut net = Net::new();
    let mut message = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1];
    message.extend(b"odd");
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    net.frame(&packet(Addresses::default().gateway, 1, &message));
    let frame = net.host.frames.pop_front().unwrap();
    let (protocol, _, reply) = open(&frame);
    assert_eq!((protocol, checksum(&[reply])), (1, 0));
    assert_eq!(reply[0], 0);
    assert_eq!(reply[4..], message[4..]);
    message[9] ^= 1;
    net.frame(&packet(Addresses::default().gateway, 1, &message));
    assert!(net.host.frames.is_empty(), "a wrong checksum");
}

#[test]
fn no_private_form_is_reached_however_it_is_asked_for() {
    let mut net = Net::new();
    for address in [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.0.0.1",
        "172.17.0.1",
        "192.168.1.1",
        "192.168.127.9",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        let mut peer = Peer::new(GUEST_PORT);
        peer.remote = SocketAddrV4::new(address.parse().unwrap(), 80);
        let syn = peer.syn();
        net.send(&syn);
        assert!(net.one().has(RST), "{address}");
    }
    assert!(net.host.sockets.is_empty());
    assert_eq!(net.stack.counters().refused, 11);
}

#[test]
fn frames_in_the_name_of_others_get_no_answer() {
    let mut net = Net::new();
    let syn = frame_of(&Peer::new(GUEST_PORT).syn());
    let mut spoofed = syn.clone();
    spoofed[29] = 9;
    let sum = {
        spoofed[24..26].copy_from_slice(&[0, 0]);
        checksum(&[&spoofed[14..34]])
    };
    spoofed[24..26].copy_from_slice(&sum.to_be_bytes());
    net.frame(&spoofed);
    let mut elsewhere = syn.clone();
    elsewhere[0] = 0x04;
    net.frame(&elsewhere);
    net.turn();
    net.nothing();
    assert!(net.host.sockets.is_empty());
    // Whoever it says has sent it, the guest is who is answered.
    for sender in [
        [0xff; 6],
        supermachine_net::Addresses::default().gateway_mac,
    ] {
        let mut syn = syn.clone();
        syn[6..12].copy_from_slice(&sender);
        net.frame(&syn);
    }
    assert_eq!(net.host.sockets.len(), 1);
    net.socket(0).outcome = Some(Ok(()));
    net.ready(0, false, true);
    assert!(net.one().has(SYN | ACK));
}
