//! Connections that show a name: whether it is looked at, and what follows.

use std::net::IpAddr;

use supermachine_net::policy::{Cause, Policy, Ports, Rule, Target, Verdict};
use supermachine_net::{Answer, Config};

use crate::support::*;

fn rule(verdict: Verdict, host: &str) -> Rule {
    Rule {
        verdict,
        target: Target::Host(host.parse().unwrap()),
        ports: Ports::ALL,
        protocol: None,
    }
}

/// Only `allowed.example` may be reached, and its address is `REMOTE`'s.
fn by_name() -> Net {
    let policy = Policy::deny_all().rule(rule(Verdict::Allow, "allowed.example"));
    of(Config::new(policy), "allowed.example")
}

/// The guest was told `REMOTE`'s address for this name.
fn of(config: Config, name: &str) -> Net {
    let mut net = Net::of(config);
    net.stack.keep_records(100);
    tell(&mut net, name);
    net
}

fn tell(net: &mut Net, name: &str) {
    net.frame(&crate::names::ask(name, 1, *REMOTE.ip()));
    let (ticket, _) = net.host.look_ups.remove(0);
    let found = Answer::Addresses(vec![IpAddr::V4(*REMOTE.ip())]);
    net.stack.answered(ticket, &found, net.now, &mut net.host);
    net.host.frames.clear();
}

/// The hello of a TLS client for a host of that name, in records of so many bytes.
fn hello(name: Option<&str>, record_bytes: usize) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let length = u16::try_from(name.len()).unwrap();
        extensions.extend([0, 0]);
        extensions.extend((length + 5).to_be_bytes());
        extensions.extend((length + 3).to_be_bytes());
        extensions.push(0);
        extensions.extend(length.to_be_bytes());
        extensions.extend(name.as_bytes());
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    let records = message.chunks(record_bytes).map(|content| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[22, 3, 1, length[0], length[1]], content].concat()
    });
    records.collect::<Vec<_>>().concat()
}

/// What a guest that sends this gets: what the host was sent, or none if it was reset.
fn sent(net: &mut Net, bytes: &[u8], segment_bytes: usize) -> Option<Vec<u8>> {
    let mut peer = net.connect(GUEST_PORT, 0);
    for piece in bytes.chunks(segment_bytes) {
        let data = peer.segment(ACK | PSH, piece);
        net.send(&data);
        if net.given().iter().any(|tcp| tcp.has(RST)) {
            assert!(net.host.last_sent.is_empty(), "the host was sent something");
            return None;
        }
    }
    let got = net.socket(0).sent.clone();
    // The next bytes go through, too.
    let data = peer.segment(ACK | PSH, b"more");
    net.send(&data);
    assert_eq!(net.socket(0).sent, [&got[..], b"more"].concat());
    let reset = peer.segment(RST, b"");
    net.send(&reset);
    Some(got)
}

#[test]
fn hello_for_an_allowed_name_passes_whole_however_it_is_split() {
    for record_bytes in [20, 16_000] {
        let hello = hello(Some("Allowed.example"), record_bytes);
        for segment_bytes in [1, 7, 1400] {
            let mut net = by_name();
            assert_eq!(sent(&mut net, &hello, segment_bytes).as_ref(), Some(&hello));
        }
    }
}

#[test]
fn hello_that_shows_another_name_or_none_is_reset_and_written_down() {
    for (name, record_bytes) in [
        (Some("other.example"), 16_000),
        (Some("other.example"), 20),
        (Some("x.allowed.example"), 16_000),
        (None, 16_000),
    ] {
        for segment_bytes in [1, 1400] {
            let mut net = by_name();
            let hello = hello(name, record_bytes);
            assert_eq!(sent(&mut net, &hello, segment_bytes), None, "{name:?}");
            let record = net.stack.take_records().pop_front().unwrap();
            assert_eq!(
                (record.verdict, record.cause),
                (Verdict::Deny, Cause::Shown)
            );
            assert_eq!(record.name.as_deref(), name.or(Some("allowed.example")));
            assert_eq!(net.stack.counters().refused, 1);
        }
    }
}

#[test]
fn requests_for_other_hosts_are_reset() {
    for (request, passes) in [
        ("GET / HTTP/1.1\r\nHost: allowed.example\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
        (
            "GET http://other.example/ HTTP/1.1\r\nHost: allowed.example\r\n\r\n",
            false,
        ),
        (
            "CONNECT other.example:443 HTTP/1.1\r\nHost: allowed.example\r\n\r\n",
            false,
        ),
        (
            "GET / HTTP/1.1\r\nX: y\nHost: other.example\r\nHost: allowed.example\r\n\r\n",
            false,
        ),
    ] {
        let mut net = by_name();
        let sent = sent(&mut net, request.as_bytes(), 11);
        assert_eq!(sent.is_some(), passes, "{request}");
        if let Some(sent) = sent {
            assert_eq!(sent, request.as_bytes());
        }
    }
}

#[test]
fn protocols_that_show_no_name_go_by_the_address() {
    let mut net = by_name();
    assert_eq!(
        sent(&mut net, b"SSH-2.0-x\r\n", 3).unwrap(),
        b"SSH-2.0-x\r\n"
    );
}

#[test]
fn names_that_are_refused_are_refused_where_everything_else_is_allowed() {
    let policy = || Policy::allow_all().rule(rule(Verdict::Deny, "*.evil.example"));
    for (name, passes) in [
        (Some("www.evil.example"), false),
        (Some("good.example"), true),
        (None, true),
    ] {
        let mut net = of(Config::new(policy()), "good.example");
        let sent = sent(&mut net, &hello(name, 16_000), 50);
        assert_eq!(sent.is_some(), passes, "{name:?}");
    }
}

#[test]
fn without_rules_about_names_nothing_is_held() {
    let mut net = Net::new();
    let mut peer = net.connect(GUEST_PORT, 0);
    let hello = hello(Some("any.example"), 16_000);
    let data = peer.segment(ACK, &hello[..10]);
    net.send(&data);
    assert_eq!(net.socket(0).sent, hello[..10]);
}

#[test]
fn guest_that_ends_in_the_middle_of_a_hello_reaches_nobody() {
    let mut net = by_name();
    let mut peer = net.connect(GUEST_PORT, 0);
    let hello = hello(Some("allowed.example"), 16_000);
    let data = peer.segment(ACK | FIN, &hello[..20]);
    net.send(&data);
    assert!(net.socket(0).sent.is_empty());
    assert!(!net.socket(0).is_finished);
    // The host gives up, and the guest is reset.
    net.socket(0).is_over = true;
    net.ready(0, true, false);
    assert!(net.given().iter().any(|tcp| tcp.has(RST)));
}

#[test]
fn connections_that_only_begin_hold_no_more_than_together_they_may() {
    let mut net = by_name();
    let long = [&b"GET / HTTP/1.1\r\nX: "[..], &[b'y'; 16_000]].concat();
    let mut begun = 0;
    while begun < 600 {
        let mut peer = net.connect(10_000 + begun, begun.into());
        for piece in long.chunks(1460) {
            let data = peer.segment(ACK | PSH, piece);
            net.send(&data);
        }
        if net.given().iter().any(|tcp| tcp.has(RST)) {
            break;
        }
        begun += 1;
    }
    let held = usize::from(begun) * long.len();
    assert!(held <= 8 << 20 && held + long.len() > 8 << 20, "{begun}");
    let mut sockets = net.host.sockets.values();
    assert!(sockets.all(|socket| socket.sent.is_empty()));
}

#[test]
fn what_the_host_has_no_room_for_follows_when_it_has() {
    let mut net = by_name();
    let mut peer = net.connect(GUEST_PORT, 0);
    let hello = hello(Some("allowed.example"), 16_000);
    net.socket(0).room = 10;
    let data = peer.segment(ACK | FIN, &hello);
    net.send(&data);
    assert_eq!(net.socket(0).sent, hello[..10]);
    net.socket(0).room = usize::MAX;
    net.ready(0, false, true);
    assert_eq!(net.socket(0).sent, hello);
    assert!(net.socket(0).is_finished);
}

/// A host of a secret, which the guest was told `REMOTE`'s address for.
fn with_secret() -> Net {
    let mut config = Config::new(Policy::allow_all());
    config.brokered = vec![("secret.example".to_owned(), 80)];
    of(config, "secret.example")
}

#[test]
fn hello_for_a_host_of_a_secret_is_handed_over_and_no_other_is() {
    let begun = hello(Some("secret.example"), 16_000);
    let mut net = with_secret();
    let mut peer = net.connect(GUEST_PORT, 0);
    for piece in begun.chunks(9) {
        let data = peer.segment(ACK, piece);
        net.send(&data);
    }
    let handed = std::mem::take(&mut net.host.handed);
    assert_eq!(handed, [(0, "secret.example".to_owned(), 80, begun)]);
    assert!(net.socket(0).sent.is_empty());
    // From here on it is whoever serves it.
    let data = peer.segment(ACK, b"more");
    net.send(&data);
    assert_eq!(net.socket(0).sent, b"more");

    for (name, told) in [
        ("other.example", None),
        ("other.example", Some("other.example")),
    ] {
        let mut net = with_secret();
        told.into_iter().for_each(|told| tell(&mut net, told));
        let hello = hello(Some(name), 16_000);
        assert_eq!(sent(&mut net, &hello, 1400), Some(hello));
        assert!(net.host.handed.is_empty());
    }
    // The name, at an address that the guest was not told for it.
    let mut config = Config::new(Policy::allow_all());
    config.brokered = vec![("secret.example".to_owned(), 80)];
    let mut net = of(config, "other.example");
    sent(&mut net, &hello(Some("secret.example"), 16_000), 1400);
    assert!(net.host.handed.is_empty());
}

#[test]
fn hosts_of_secrets_are_not_reached_by_datagrams() {
    let mut net = with_secret();
    net.frame(&datagram((*REMOTE.ip()).into(), 80, b"quic"));
    assert!(net.host.sockets.is_empty());
    let record = net.stack.take_records().pop_front().unwrap();
    assert_eq!(
        (record.verdict, record.cause),
        (Verdict::Deny, Cause::Secret)
    );
    net.host.frames.clear();
    net.frame(&datagram((*REMOTE.ip()).into(), 81, b"other"));
    assert_eq!(net.host.sockets.len(), 1);
}

#[test]
fn host_that_nobody_serves_is_not_reached() {
    let mut net = with_secret();
    net.host.keeps_all = true;
    let begun = hello(Some("secret.example"), 16_000);
    let mut peer = net.connect(GUEST_PORT, 0);
    let data = peer.segment(ACK, &begun);
    net.send(&data);
    assert!(
        net.host
            .sockets
            .get(&0)
            .is_none_or(|socket| socket.sent.is_empty())
    );
}
