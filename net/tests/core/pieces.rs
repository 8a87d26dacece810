//! Packets in pieces, and packets that say more than where they go.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use supermachine_net::policy::Policy;
use supermachine_net::{Addresses, Config};

use crate::support::*;

const THERE: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
const THERE6: Ipv6Addr = Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, 0x1111);
const MTU: usize = 1500;

fn bytes(count: usize) -> Vec<u8> {
    (0..count)
        .map(|n| (n * 31 % 251).to_le_bytes()[0])
        .collect()
}

/// One piece of a frame's packet: the payload from `start` to `end`, as the guest's
/// kernel would send it.
fn piece(frame: &[u8], number: u16, (start, end): (usize, usize), is_last: bool) -> Vec<u8> {
    let is_v6 = frame[12..14] == [0x86, 0xdd];
    let offset = u16::try_from(start).unwrap();
    if is_v6 {
        let mut out = frame[..54].to_vec();
        let length = u16::try_from(8 + end - start).unwrap();
        out[18..20].copy_from_slice(&length.to_be_bytes());
        let protocol = std::mem::replace(&mut out[20], 44);
        out.extend([protocol, 0]);
        out.extend((offset | u16::from(!is_last)).to_be_bytes());
        out.extend([0, 0]);
        out.extend(number.to_be_bytes());
        out.extend(&frame[54 + start..54 + end]);
        return out;
    }
    let mut out = frame[..34].to_vec();
    let length = u16::try_from(20 + end - start).unwrap();
    out[16..18].copy_from_slice(&length.to_be_bytes());
    out[18..20].copy_from_slice(&number.to_be_bytes());
    let more = if is_last { 0 } else { 0x2000 };
    out[20..22].copy_from_slice(&((offset / 8) | more).to_be_bytes());
    out[24..26].fill(0);
    let sum = checksum(&[&out[14..34]]);
    out[24..26].copy_from_slice(&sum.to_be_bytes());
    out.extend(&frame[34 + start..34 + end]);
    out
}

/// All pieces of a frame's packet, of so many bytes each.
fn pieces(frame: &[u8], number: u16, each: usize) -> Vec<Vec<u8>> {
    let header = if frame[12..14] == [0x86, 0xdd] {
        54
    } else {
        34
    };
    let all = frame.len() - header;
    let starts = (0..all).step_by(each);
    let piece = |start| {
        let end = all.min(start + each);
        piece(frame, number, (start, end), end == all)
    };
    starts.map(piece).collect()
}

#[test]
fn datagrams_in_pieces_leave_whole_in_whatever_order_they_come() {
    let data = bytes(4000);
    for there in [IpAddr::from(THERE), THERE6.into()] {
        let mut net = Net::new();
        let frame = datagram(there, 5000, &data);
        let mut all = pieces(&frame, 7, 1448);
        net.frame(&all[0]);
        all.swap(0, 2);
        all.insert(1, all[0].clone());
        // Those of another packet between them are another's.
        let other = pieces(&datagram(there, 5000, &bytes(3000)), 8, 1448);
        for one in &all[..3] {
            assert!(net.host.sockets.is_empty());
            net.frame(&other[0]);
            net.frame(one);
        }
        assert_eq!(
            net.socket(10_000).sent_messages,
            std::slice::from_ref(&data)
        );
        assert_eq!(net.stack.buffered_bytes(), 1448);
        // A packet of one piece is whole.
        for whole in pieces(&datagram(there, 5000, b"short"), 7, 1448) {
            net.frame(&whole);
        }
        assert_eq!(net.socket(10_000).sent_messages[1], b"short");
    }
}

#[test]
fn pieces_that_overlap_end_all_of_their_packet() {
    for there in [IpAddr::from(THERE), THERE6.into()] {
        let mut net = Net::new();
        let frame = datagram(there, 5000, &bytes(4000));
        let all = pieces(&frame, 7, 1448);
        net.frame(&all[0]);
        // It says again what the first said, and something of the second.
        net.frame(&piece(&frame, 7, (8, 1456), false));
        for one in &all {
            net.frame(one);
        }
        assert!(net.host.sockets.is_empty());
        assert_eq!(net.stack.buffered_bytes(), 0);
        // Beyond its own end, and two ends.
        for (first, then) in [((1448, 2896), (2896, 4008)), ((2896, 4008), (1448, 2896))] {
            let mut net = Net::new();
            net.frame(&piece(&frame, 9, (0, 1448), false));
            net.frame(&piece(&frame, 9, first, true));
            net.frame(&piece(&frame, 9, then, true));
            assert!(net.host.sockets.is_empty());
        }
        // Its number is another packet's after a while.
        net.now += Duration::from_secs(61);
        for one in &all {
            net.frame(one);
        }
        assert_eq!(net.socket(10_000).sent_messages.len(), 1);
    }
}

#[test]
fn pieces_that_are_never_a_packet_are_bounded() {
    let mut net = Net::new();
    let frame = datagram(THERE.into(), 5000, &bytes(60_000));
    for number in 0..=u16::MAX {
        net.frame(&piece(&frame, number, (0, 1480), false));
        assert!(net.stack.buffered_bytes() <= 256 << 10);
    }
    // Sixteen long ones are as many bytes as there may be.
    for number in 0..16 {
        for start in (0..42 * 1480).step_by(1480).take(40) {
            net.frame(&piece(&frame, number, (start, start + 1480), false));
            assert!(net.stack.buffered_bytes() <= 256 << 10);
        }
    }
    assert!(net.host.sockets.is_empty());
    for one in pieces(&frame, 99, 1480) {
        net.frame(&one);
    }
    assert_eq!(net.socket(10_000).sent_messages.len(), 1);
    // What says nothing, is not in eights, or is longer than a packet.
    let mut net = Net::new();
    for (range, is_last) in [((0, 0), false), ((8, 8), true), ((0, 1001), false)] {
        net.frame(&piece(&frame, 1, range, is_last));
        assert_eq!(net.stack.buffered_bytes(), 0);
    }
    let mut late = piece(&frame, 1, (0, 1480), true);
    late[20..22].copy_from_slice(&0x1fff_u16.to_be_bytes());
    late[24..26].fill(0);
    let sum = checksum(&[&late[14..34]]);
    late[24..26].copy_from_slice(&sum.to_be_bytes());
    net.frame(&late);
    assert_eq!(net.stack.buffered_bytes(), 0);
}

#[test]
fn tiny_pieces_hide_nothing_from_the_policy() {
    let mut net = Net::of(Config::new(Policy::deny_all()));
    for one in pieces(&datagram(THERE.into(), 5000, &bytes(100)), 7, 8) {
        net.frame(&one);
    }
    assert!(net.host.sockets.is_empty());
    let frame = net.host.frames.pop_front().unwrap();
    let (protocol, _, message) = open(&frame);
    assert_eq!((protocol, &message[..2]), (1, &[3, 13][..]));
    // Nor does another's name help.
    let mut net = Net::new();
    let mut frame = datagram(THERE.into(), 5000, &bytes(100));
    frame[26] = 10;
    for one in pieces(&frame, 7, 8) {
        net.frame(&one);
    }
    assert!(net.host.sockets.is_empty() && net.host.frames.is_empty());
    assert_eq!(net.stack.buffered_bytes(), 0);
}

/// The payload of the packet that frames for the guest are pieces of.
fn joined(net: &mut Net, is_v6: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut more = true;
    for frame in net.host.frames.drain(..) {
        assert!(frame.len() <= 14 + MTU && more);
        let (place, payload) = match is_v6 {
            true => {
                assert_eq!(frame[20], 44);
                let place = usize::from(u16::from_be_bytes([frame[56], frame[57]]));
                more = place & 1 != 0;
                (place & !7, &frame[62..])
            }
            false => {
                assert_eq!(checksum(&[&frame[14..34]]), 0);
                let place = usize::from(u16::from_be_bytes([frame[20], frame[21]]));
                more = place & 0x2000 != 0;
                ((place & 0x1fff) * 8, &frame[34..])
            }
        };
        assert_eq!(place, out.len());
        out.extend(payload);
    }
    assert!(!more);
    out
}

#[test]
fn what_is_longer_than_the_guests_link_takes_comes_in_pieces() {
    let data = bytes(6001);
    for there in [IpAddr::from(THERE), THERE6.into()] {
        let mut net = Net::new();
        net.frame(&datagram(there, 5000, b"ask"));
        net.socket(10_000).messages.push_back(data.clone());
        net.ready(10_000, true, false);
        let message = joined(&mut net, there.is_ipv6());
        assert_eq!(message[8..], data);
        // The sum is over all of it.
        let mine: IpAddr = match there {
            IpAddr::V4(_) => Addresses::default().guest.into(),
            IpAddr::V6(_) => Addresses::default().guest_v6.into(),
        };
        let sum = match (there, mine) {
            (IpAddr::V4(there), _) => checksum(&[&pseudo(there, 17, message.len()), &message]),
            (IpAddr::V6(there), IpAddr::V6(mine)) => {
                let length = u32::try_from(message.len()).unwrap().to_be_bytes();
                let pseudo = [&there.octets()[..], &mine.octets(), &length, &[0, 0, 0, 17]];
                checksum(&[&pseudo.concat(), &message])
            }
            _ => unreachable!(),
        };
        assert_eq!(sum, 0);
        // So do long answers of the gateway's to requests that came in pieces.
        let gateway: IpAddr = match there {
            IpAddr::V4(_) => Addresses::default().gateway.into(),
            IpAddr::V6(_) => Addresses::default().gateway_v6.into(),
        };
        for one in pieces(&echo(gateway, 5, &data), 3, 1448) {
            net.frame(&one);
        }
        assert_eq!(joined(&mut net, there.is_ipv6())[8..], data);
    }
}

/// A frame with options of IPv4 in its header.
fn with_options(frame: &[u8], options: &[u8]) -> Vec<u8> {
    let mut out = frame[..34].to_vec();
    out.extend(options);
    out[14] = 0x45 + u8::try_from(options.len() / 4).unwrap();
    let length = u16::try_from(frame.len() - 14 + options.len()).unwrap();
    out[16..18].copy_from_slice(&length.to_be_bytes());
    out[24..26].fill(0);
    let sum = checksum(&[&out[14..34 + options.len()]]);
    out[24..26].copy_from_slice(&sum.to_be_bytes());
    out.extend(&frame[34..]);
    out
}

#[test]
fn packets_that_choose_their_way_are_not_taken() {
    let frame = datagram(THERE.into(), 5000, b"x");
    let mut net = Net::new();
    for options in [
        &[131, 7, 4, 10, 0, 0, 1, 0][..],
        &[137, 7, 4, 10, 0, 0, 1, 0],
        &[1, 131, 3, 4],
        &[148, 0, 0, 0],
        &[148, 9, 0, 0],
        &[1, 1, 1, 148],
    ] {
        net.frame(&with_options(&frame, options));
        assert!(net.host.sockets.is_empty(), "{options:?}");
    }
    // Others mean nothing here.
    for options in [&[148, 4, 0, 0][..], &[1, 1, 1, 1], &[0, 131, 0, 0]] {
        net.frame(&with_options(&frame, options));
    }
    assert_eq!(net.socket(10_000).sent_messages.len(), 3);
}

/// A frame with headers of IPv6 in front of what it carries.
fn with_headers(frame: &[u8], headers: &[(u8, [u8; 8])]) -> Vec<u8> {
    let mut out = frame[..54].to_vec();
    let length = u16::try_from(frame.len() - 54 + headers.len() * 8).unwrap();
    out[18..20].copy_from_slice(&length.to_be_bytes());
    let last = std::mem::replace(&mut out[20], headers.first().map_or(17, |first| first.0));
    let next = headers.iter().skip(1).map(|header| header.0).chain([last]);
    for ((_, header), next) in headers.iter().zip(next) {
        let mut header = *header;
        header[0] = next;
        out.extend(header);
    }
    out.extend(&frame[54..]);
    out
}

#[test]
fn headers_of_ipv6_are_passed_over_as_far_as_they_are_known() {
    let frame = datagram(THERE6.into(), 5000, b"x");
    let padding = [0, 0, 1, 4, 0, 0, 0, 0];
    let there = [0, 0, 0, 0, 0, 0, 0, 0];
    let mut net = Net::new();
    net.frame(&with_headers(
        &frame,
        &[(0, padding), (60, padding), (43, there)],
    ));
    assert_eq!(net.socket(10_000).sent_messages.len(), 1);
    let on_its_way = [0, 0, 0, 1, 0, 0, 0, 0];
    let too_long = [0, 200, 0, 0, 0, 0, 0, 0];
    for headers in [
        &[(43, on_its_way)][..],
        &[(60, too_long)],
        &[(51, padding)],
        &[(59, padding)],
        &[(60, padding); 8],
    ] {
        net.frame(&with_headers(&frame, headers));
        let whole = with_headers(&frame, headers);
        (0..whole.len()).for_each(|length| net.frame(&whole[..length]));
    }
    assert_eq!(net.socket(10_000).sent_messages.len(), 1);
    // Also in front of, and behind, the header of a piece.
    let inside = with_headers(&frame, &[(60, padding)]);
    for one in pieces(&inside, 7, 8) {
        net.frame(&one);
    }
    assert_eq!(net.socket(10_000).sent_messages.len(), 2);
}

#[test]
fn message_that_is_longer_than_its_way_takes_is_told_so() {
    for there in [IpAddr::from(THERE), THERE6.into()] {
        let mut net = Net::new();
        net.frame(&datagram(there, 5000, b"x"));
        net.socket(10_000).send_error = Some(ErrorKind::FileTooLarge);
        net.frame(&datagram(there, 5000, &bytes(1400)));
        let frame = net.host.frames.pop_front().unwrap();
        let (head, mtu) = match there.is_ipv6() {
            true => (
                open6(&frame).3[..2].to_vec(),
                open6(&frame).3[4..8].to_vec(),
            ),
            false => (open(&frame).2[..2].to_vec(), open(&frame).2[4..8].to_vec()),
        };
        let expected: &[u8] = if there.is_ipv6() { &[2, 0] } else { &[3, 4] };
        assert_eq!((&*head, &*mtu), (expected, &[0, 0, 5, 0][..]));
        // It is that message which is too long, and not the exchange that is over.
        assert_eq!(net.stack.datagram_flows(), 1);
        net.frame(&datagram(there, 5000, &bytes(100)));
        for one in pieces(&datagram(there, 5000, &bytes(4000)), 7, 1448) {
            net.frame(&one);
        }
        assert!(net.host.frames.is_empty());
    }
}

#[test]
fn guest_that_asks_for_more_than_addresses_is_told_of_the_name_server() {
    let mut net = Net::new();
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
    let servers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    let ask = |from: Ipv6Addr, kind: u8, options: &[u8]| {
        let mut out = vec![2, 34, 2, 35, 0, 0, 0, 0, kind, 1, 2, 3];
        out.extend(options);
        let length = u16::try_from(out.len()).unwrap();
        out[4..6].copy_from_slice(&length.to_be_bytes());
        packet6(from, servers, (17, 1), &out, 6)
    };
    let client = [0, 1, 0, 3, 7, 8, 9];
    let wants = [0, 6, 0, 2, 0, 23];
    for from in [link_local, Addresses::default().guest_v6] {
        net.frame(&ask(from, 11, &[&client[..], &wants].concat()));
        let frame = net.host.frames.pop_front().unwrap();
        let (protocol, source, to, datagram) = open6(&frame);
        assert_eq!((protocol, to), (17, from));
        assert!(source.is_unicast_link_local());
        assert_eq!(datagram[..4], [2, 35, 2, 34]);
        let message = &datagram[8..];
        assert_eq!(message[..4], [7, 1, 2, 3]);
        assert_eq!(message[4..11], client);
        assert_eq!(message[11..15], [0, 2, 0, 10]);
        let server = Addresses::default().gateway_v6.octets();
        assert_eq!(message[25..], [&[0, 23, 0, 16][..], &server].concat());
    }
    // Other kinds, another's, from elsewhere, and what is cut.
    net.frame(&ask(link_local, 1, &client));
    net.frame(&ask(link_local, 11, &[0, 2, 0, 1, 9]));
    net.frame(&ask(THERE6, 11, &client));
    net.frame(&ask(link_local, 11, &[0, 1, 0, 9, 1]));
    assert!(net.host.frames.is_empty());
}
