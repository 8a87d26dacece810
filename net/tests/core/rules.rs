//! What a terminator of TCP must keep to.

use std::io::ErrorKind;
use std::time::Duration;

use supermachine_net::{Close, Offloads};

use crate::support::*;

const LONG: Duration = Duration::from_secs(61);

/// The payloads of segments in order, without what was sent twice.
fn stream(from: u32, segments: &[Tcp]) -> Vec<u8> {
    let mut out = Vec::new();
    for segment in segments {
        let at = segment.sequence.wrapping_sub(from) as usize;
        let fresh = out.len().saturating_sub(at);
        if at <= out.len() && fresh < segment.payload.len() {
            out.extend(&segment.payload[fresh..]);
        }
    }
    out
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count)
        .map(|n| (n * 31 % 251).to_le_bytes()[0])
        .collect()
}

#[test]
fn lost_segment_is_sent_again_after_three_equal_acknowledgements() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    let data = bytes(10 * 1460);
    net.socket(0).incoming.extend(&data);
    net.ready(0, true, false);
    let sent = net.given();
    assert_eq!(sent.len(), 10);
    // The second is lost: the guest repeats what it has.
    peer.hear(&sent[0]);
    let same = peer.segment(ACK, b"");
    for _ in 0..3 {
        net.nothing();
        net.send(&same);
    }
    net.send(&same);
    let again = net.one();
    assert_eq!(again, sent[1]);
    // All there now.
    peer.expected = sent[9].sequence.wrapping_add(1460);
    let all = peer.segment(ACK, b"");
    net.send(&all);
    net.pass(LONG);
    net.nothing();
    assert_eq!(stream(sent[0].sequence, &sent), data);
}

#[test]
fn everything_is_kept_and_sent_again_until_it_is_acknowledged() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    let data = bytes(5 * 1460 + 17);
    net.socket(0).incoming.extend(&data);
    net.ready(0, true, false);
    let sent = net.given();
    let first = sent[0].sequence;
    assert_eq!(stream(first, &sent), data);
    // Nothing of it arrives: it comes again, more and more slowly.
    let mut waited = Duration::ZERO;
    for _ in 0..4 {
        let due = net.stack.deadline().expect("it waits");
        let wait = due - net.now;
        assert!(wait >= waited * 2, "{wait:?} after {waited:?}");
        waited = wait;
        net.pass(wait);
        let again = net.given();
        assert_eq!(again[0], sent[0]);
        assert!(again.len() <= 2, "not all at once: something drops frames");
    }
    // Each acknowledgement lets more through, until all is there.
    for _ in 0..10 {
        let end = first.wrapping_add(u32::try_from(data.len()).unwrap());
        if peer.expected == end {
            break;
        }
        let due = net.stack.deadline().expect("it waits");
        net.pass(due - net.now);
        for segment in net.given() {
            peer.hear(&segment);
        }
        let ack = peer.segment(ACK, b"");
        net.send(&ack);
        for segment in net.given() {
            peer.hear(&segment);
        }
        let ack = peer.segment(ACK, b"");
        net.send(&ack);
    }
    net.pass(LONG);
    net.nothing();
    assert_eq!(net.stack.deadline(), None, "nothing is left to wait for");
    assert_eq!(net.stack.buffered_bytes(), 0);
}

#[test]
fn guest_that_forgot_the_connection_does_not_keep_it_for_ever() {
    let mut net = Net::new();
    net.connect(GUEST_PORT, 0);
    net.socket(0).incoming.extend(b"hello");
    net.ready(0, true, false);
    for _ in 0..20 {
        net.pass(LONG);
    }
    assert!(net.given().last().unwrap().has(RST));
    assert_eq!(net.host.closed, [(REMOTE.into(), Close::Reset)]);
    assert_eq!(net.stack.flows(), 0);
}

#[test]
fn closed_window_is_probed_and_opens_again() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    peer.window = 0;
    let shut = peer.segment(ACK, b"");
    net.send(&shut);
    let data = bytes(3000);
    net.socket(0).incoming.extend(&data);
    net.ready(0, true, false);
    net.nothing();
    // However long it lasts: each probe is answered.
    for _ in 0..30 {
        net.pass(LONG);
        let probe = net.one();
        assert_eq!(probe.payload, data[..1]);
        net.send(&shut);
        net.nothing();
    }
    peer.window = 0xffff;
    let open = peer.segment(ACK, b"");
    net.send(&open);
    let sent = net.given();
    assert_eq!(stream(peer.expected, &sent), data);
}

#[test]
fn only_what_the_host_took_is_acknowledged() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    net.socket(0).room = 700;
    let data = bytes(2000);
    let first = peer.segment(ACK | PSH, &data[..1000]);
    net.send(&first);
    let ack = net.one();
    assert_eq!(ack.acknowledged, first.sequence.wrapping_add(700));
    let second = peer.segment(ACK, &data[1000..]);
    net.send(&second);
    assert_eq!(net.one().acknowledged, ack.acknowledged, "it took no more");
    net.socket(0).room = usize::MAX;
    net.ready(0, false, true);
    assert_eq!(net.one().acknowledged, peer.next);
    assert_eq!(net.socket(0).sent, data);
}

#[test]
fn guest_waits_for_a_full_host_without_giving_up() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    net.socket(0).room = 0;
    let segment = peer.segment(ACK, b"abc");
    net.send(&segment);
    net.given();
    // Sent again, it hears that there is no room: Linux asks on for ever then.
    net.send(&segment);
    let ack = net.one();
    assert_eq!((ack.acknowledged, ack.window), (segment.sequence, 0));
    net.socket(0).room = usize::MAX;
    net.ready(0, false, true);
    let ack = net.one();
    assert_eq!(ack.acknowledged, peer.next);
    assert!(ack.window > 0);
}

#[test]
fn segments_in_any_order_become_the_stream_that_was_sent() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    let data = bytes(40 * 1000);
    let segments: Vec<Tcp> = data
        .chunks(1000)
        .map(|part| peer.segment(ACK, part))
        .collect();
    // The first is the last to come; some come twice.
    for n in 0..segments.len() {
        let segment = &segments[(n * 7 + 1) % 40];
        net.send(segment);
        let ack = net.one();
        if n < 39 && !net.socket(0).sent.is_empty() {
            net.send(segment);
            net.given();
        }
        assert!(ack.acknowledged.wrapping_sub(segments[0].sequence) as usize <= data.len());
    }
    assert_eq!(net.socket(0).sent, data);
    let probe = peer.segment(ACK, b"x");
    net.send(&probe);
    assert_eq!(net.one().acknowledged, peer.next);
}

#[test]
fn lost_segment_of_the_guest_is_asked_for_at_once() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    let lost = peer.segment(ACK, &[1; 1000]);
    for _ in 0..3 {
        let later = peer.segment(ACK, &[2; 1000]);
        net.frame(&frame_of(&later));
    }
    // One each, though they are of one batch: the guest counts them.
    let asked = net.given();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|ack| ack.acknowledged == lost.sequence));
    net.send(&lost);
    assert_eq!(net.given().last().unwrap().acknowledged, peer.next);
}

#[test]
fn windows_are_scaled_only_if_both_sides_scale_them() {
    for (options, window) in [(vec![2, 4, 5, 0xb4, 1, 3, 3, 7], 1 << 20), (vec![], 0xffff)] {
        let mut net = Net::new();
        let mut peer = Peer::new(GUEST_PORT);
        let scales = !options.is_empty();
        let syn = Tcp {
            options,
            ..peer.syn()
        };
        net.send(&syn);
        net.socket(0).outcome = Some(Ok(()));
        net.ready(0, false, true);
        let answer = net.one();
        assert_eq!(answer.options.len(), if scales { 8 } else { 4 });
        peer.hear(&answer);
        let data = peer.segment(ACK, b"x");
        net.send(&data);
        let shown = u32::from(net.one().window) << if scales { 8 } else { 0 };
        assert_eq!(shown, window);
    }
}

#[test]
fn connection_is_answered_when_the_hosts_is_there() {
    let mut net = Net::new();
    let mut peer = Peer::new(GUEST_PORT);
    let syn = peer.syn();
    for _ in 0..3 {
        net.send(&syn);
        net.ready(0, false, true);
        net.nothing();
    }
    assert_eq!(net.host.sockets.len(), 1, "it is one connection");
    net.socket(0).outcome = Some(Ok(()));
    net.ready(0, false, true);
    let answer = net.one();
    assert!(answer.has(SYN | ACK) && answer.acknowledged == peer.next);
    // The answer is lost: the guest asks again.
    net.send(&syn);
    assert_eq!(net.one(), answer);
    // Or it is silent, and is told again, and not for ever.
    for _ in 0..5 {
        net.pass(LONG);
        assert_eq!(net.one(), answer);
    }
    net.pass(LONG);
    assert!(net.one().has(RST));
    assert_eq!(net.stack.flows(), 0);
}

#[test]
fn connection_that_the_host_is_refused_is_refused_as_it_was() {
    for (error, at_once) in [
        (ErrorKind::ConnectionRefused, false),
        (ErrorKind::ConnectionRefused, true),
        (ErrorKind::HostUnreachable, false),
        (ErrorKind::NetworkUnreachable, true),
        (ErrorKind::TimedOut, false),
        // Out of descriptors or ports.
        (ErrorKind::Other, true),
        (ErrorKind::AddrNotAvailable, true),
    ] {
        let mut net = Net::new();
        let mut peer = Peer::new(GUEST_PORT);
        let syn = peer.syn();
        if at_once {
            net.host.connect_error = Some(error);
        }
        net.send(&syn);
        if !at_once {
            net.socket(0).outcome = Some(Err(error));
            net.ready(0, true, true);
        }
        assert_eq!(net.stack.flows(), 0, "{error:?}");
        match error {
            ErrorKind::ConnectionRefused => {
                let reset = net.one();
                assert!(reset.has(RST | ACK), "{reset:x?}");
                assert_eq!(reset.acknowledged, peer.next);
            }
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                let frame = net.host.frames.pop_front().expect("it is told");
                let (protocol, from, message) = open(&frame);
                assert_eq!(protocol, 1);
                assert_eq!(from, supermachine_net::Addresses::default().gateway);
                assert_eq!(message[0], 3);
                assert_eq!(checksum(&[message]), 0);
                // The packet it is about: the guest finds its socket by this.
                let quoted = &message[8..];
                assert_eq!(quoted[16..20], REMOTE.ip().octets());
                assert_eq!(quoted[20..22], GUEST_PORT.to_be_bytes());
                assert_eq!(quoted[24..28], syn.sequence.to_be_bytes());
            }
            _ => net.nothing(),
        }
    }
}

#[test]
fn port_that_is_used_again_begins_another_connection() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    let fin = peer.segment(ACK | FIN, b"");
    net.send(&fin);
    net.given();
    let mut again = Peer::new(GUEST_PORT);
    let syn = again.syn();
    net.send(&syn);
    assert_eq!(net.host.closed, [(REMOTE.into(), Close::Orderly)]);
    assert_eq!(net.stack.flows(), 1);
    // One that is open is asked first whether the guest still knows it.
    let mut open = net.connect(GUEST_PORT + 1, 1);
    let mut other = Peer::new(GUEST_PORT + 1);
    let mut syn = other.syn();
    syn.sequence = syn.sequence.wrapping_add(100_000);
    net.send(&syn);
    assert_eq!(net.one().acknowledged, open.next);
    let reset = open.segment(RST, b"");
    net.send(&reset);
    assert_eq!(net.stack.flows(), 1);
}

#[test]
fn each_direction_ends_by_itself() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    // The guest has said all, and waits for the answer.
    let request = peer.segment(ACK | FIN | PSH, b"request");
    net.send(&request);
    assert_eq!(net.one().acknowledged, peer.next);
    assert!(net.socket(0).is_finished);
    assert_eq!(net.socket(0).sent, b"request");
    net.socket(0).incoming.extend(b"answer");
    net.ready(0, true, false);
    let answer = net.one();
    assert!(answer.payload == b"answer" && !answer.has(FIN));
    peer.hear(&answer);
    let ack = peer.segment(ACK, b"");
    net.send(&ack);
    net.socket(0).is_over = true;
    net.ready(0, true, false);
    let fin = net.one();
    assert!(fin.has(FIN) && fin.payload.is_empty());
    peer.hear(&fin);
    let ack = peer.segment(ACK, b"");
    net.send(&ack);
    assert_eq!(net.host.closed, [(REMOTE.into(), Close::Orderly)]);
    assert_eq!(net.stack.flows(), 0);
    net.nothing();
}

#[test]
fn guest_goes_on_after_the_host_has_finished() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    net.socket(0).incoming.extend(b"bye");
    net.socket(0).is_over = true;
    net.ready(0, true, false);
    let last = net.given();
    assert_eq!(stream(peer.expected, &last), b"bye");
    let fin = last.last().unwrap();
    assert!(fin.has(FIN), "the end comes with or after the last byte");
    last.iter().for_each(|segment| peer.hear(segment));
    let data = peer.segment(ACK, b"still here");
    net.send(&data);
    assert_eq!(net.one().acknowledged, peer.next);
    assert_eq!(net.socket(0).sent, b"still here");
    assert_eq!(net.stack.flows(), 1);
    let fin = peer.segment(ACK | FIN, b"");
    net.send(&fin);
    assert_eq!(net.one().acknowledged, peer.next);
    assert_eq!(net.host.closed, [(REMOTE.into(), Close::Orderly)]);
}

#[test]
fn end_that_overtakes_data_waits_for_it() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    let data = peer.segment(ACK, b"data");
    let fin = peer.segment(ACK | FIN, b"");
    net.send(&fin);
    assert!(!net.socket(0).is_finished);
    net.send(&data);
    assert!(net.socket(0).is_finished && net.socket(0).sent == b"data");
    assert_eq!(net.given().last().unwrap().acknowledged, peer.next);
}

#[test]
fn resets_go_through_in_both_directions() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    let reset = peer.segment(RST | ACK, b"");
    net.send(&reset);
    assert_eq!(net.host.closed, [(REMOTE.into(), Close::Reset)]);
    net.nothing();
    let peer = net.connect(GUEST_PORT, 0);
    net.socket(0).error = Some(ErrorKind::ConnectionReset);
    net.ready(0, true, true);
    let reset = net.one();
    assert!(reset.has(RST) && reset.sequence == peer.expected);
    assert_eq!(net.stack.flows(), 0);
}

#[test]
fn data_that_came_before_a_reset_is_passed_on() {
    let mut net = Net::new();
    let peer = net.connect(GUEST_PORT, 0);
    net.socket(0).incoming.extend(b"last words");
    net.socket(0).error = Some(ErrorKind::ConnectionReset);
    net.ready(0, true, true);
    let given = net.given();
    assert_eq!(given[0].payload, b"last words");
    assert!(given[1].has(RST));
    assert_eq!(given[1].sequence, peer.expected.wrapping_add(10));
}

#[test]
fn guest_that_does_not_read_stops_only_its_own_connection() {
    let mut net = Net::new();
    let mut silent = net.connect(GUEST_PORT, 0);
    let mut other = net.connect(GUEST_PORT + 1, 1);
    silent.window = 0;
    let shut = silent.segment(ACK, b"");
    net.send(&shut);
    let endless = bytes(4 << 20);
    net.socket(0).incoming.extend(&endless);
    net.ready(0, true, false);
    net.nothing();
    // What it does not take is left where it is.
    let held = endless.len() - net.socket(0).incoming.len();
    assert!(held <= 1 << 20, "{held}");
    net.socket(1).incoming.extend(b"hello");
    net.ready(1, true, false);
    let given = net.one();
    assert_eq!(
        (given.guest_port, &given.payload[..]),
        (other.port, &b"hello"[..])
    );
    // A host that does not read stops only its own, too.
    net.socket(0).room = 0;
    let stuck = silent.segment(ACK, &[0; 1000]);
    net.send(&stuck);
    net.given();
    other.hear(&given);
    let data = other.segment(ACK, b"on");
    net.send(&data);
    assert_eq!(net.socket(1).sent, b"on");
}

#[test]
fn one_flow_with_endless_data_leaves_others_their_turn() {
    let mut net = Net::new();
    net.host.offloads = Offloads {
        checksum: true,
        segments_v4: true,
        segments_v6: true,
    };
    net.connect(GUEST_PORT, 0);
    net.connect(GUEST_PORT + 1, 1);
    for flow in [0, 1] {
        net.socket(flow).incoming.extend(bytes(2 << 20));
    }
    let (now, host) = (net.now, &mut net.host);
    for flow in [0, 1] {
        let id = supermachine_net::FlowId(flow);
        net.stack.ready(id, true, false, now, host);
    }
    net.stack.turn(net.now, &mut net.host);
    let ports: std::collections::BTreeSet<u16> = net
        .given()
        .iter()
        .map(|segment| segment.guest_port)
        .collect();
    assert_eq!(ports.len(), 2, "both in one round");
}

#[test]
fn one_acknowledgement_answers_a_batch() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    for _ in 0..32 {
        let segment = peer.segment(ACK, &[7; 1460]);
        net.frame(&frame_of(&segment));
    }
    net.nothing();
    net.turn();
    assert_eq!(net.one().acknowledged, peer.next);
    // And goes with data, where there is some.
    let request = peer.segment(ACK, b"request");
    net.frame(&frame_of(&request));
    net.socket(0).incoming.extend(b"answer");
    net.ready(0, true, false);
    let answer = net.one();
    assert_eq!(
        (answer.acknowledged, &answer.payload[..]),
        (peer.next, &b"answer"[..])
    );
}

#[test]
fn error_of_a_socket_ends_its_connection_and_is_not_asked_for_again() {
    for error in [
        ErrorKind::ConnectionReset,
        ErrorKind::TimedOut,
        ErrorKind::NetworkDown,
        ErrorKind::Other,
    ] {
        let mut net = Net::new();
        net.connect(GUEST_PORT, 0);
        net.socket(0).error = Some(error);
        let before = net.socket(0).reads;
        net.ready(0, true, true);
        assert!(net.one().has(RST), "{error:?}");
        assert_eq!(net.stack.flows(), 0);
        assert!(before <= 1);
        assert_eq!(net.stack.deadline(), None);
        assert!(
            !net.stack.turn(net.now, &mut net.host),
            "nothing is left to do"
        );
    }
    // One that takes nothing more, and has nothing to say.
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    net.socket(0).send_error = Some(ErrorKind::BrokenPipe);
    let data = peer.segment(ACK, b"x");
    net.send(&data);
    assert!(net.given().last().unwrap().has(RST));
    assert_eq!(net.stack.flows(), 0);
}

#[test]
fn long_frames_are_for_drivers_that_cut_them() {
    let data = bytes(100_000);
    for long in [false, true] {
        let mut net = Net::new();
        net.host.offloads = Offloads {
            checksum: long,
            segments_v4: long,
            segments_v6: false,
        };
        let mut peer = net.connect(GUEST_PORT, 0);
        net.socket(0).incoming.extend(&data);
        net.ready(0, true, false);
        let given = net.given();
        assert_eq!(stream(peer.expected, &given), data);
        let longest = given
            .iter()
            .map(|segment| segment.payload.len())
            .max()
            .unwrap();
        match long {
            true => assert_eq!((given.len(), longest % 1460), (2, 0)),
            false => assert_eq!(longest, 1460),
        }
        given.iter().for_each(|segment| peer.hear(segment));
        assert_eq!(peer.expected.wrapping_sub(given[0].sequence), 100_000);
    }
}

#[test]
fn guest_without_room_for_frames_gets_them_when_it_has() {
    let mut net = Net::new();
    let peer = net.connect(GUEST_PORT, 0);
    net.host.is_full = true;
    net.socket(0).incoming.extend(b"patience");
    let (now, host) = (net.now, &mut net.host);
    net.stack
        .ready(supermachine_net::FlowId(0), true, false, now, host);
    assert!(!net.stack.turn(net.now, &mut net.host), "it must not spin");
    net.nothing();
    net.host.is_full = false;
    net.turn();
    assert_eq!(stream(peer.expected, &net.given()), b"patience");
}
