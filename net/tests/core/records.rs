//! What the core says of flows that are over.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use supermachine_net::policy::{Cause, Policy, Ports, Protocol, Rule, Target, Verdict};
use supermachine_net::{Answer, Config, End, FlowRecord, SecretsUse};

use crate::support::*;

fn logged(policy: Policy) -> Net {
    let mut net = Net::of(Config::new(policy));
    net.stack.keep_records(100);
    net
}

fn record(net: &mut Net) -> FlowRecord {
    let mut records = net.stack.take_records();
    assert_eq!(records.len(), 1, "{records:?}");
    records.pop_front().unwrap()
}

#[test]
fn connection_that_ends_leaves_a_record_of_what_it_was() {
    let mut net = logged(Policy::allow_all().rule(Rule {
        verdict: Verdict::Allow,
        target: Target::Host("*.example.com".parse().unwrap()),
        ports: Ports::from(80),
        protocol: None,
    }));
    net.frame(&crate::names::ask("www.example.com", 1, *REMOTE.ip()));
    let (ticket, _) = net.host.look_ups.remove(0);
    let found = Answer::Addresses(vec![IpAddr::V4(*REMOTE.ip())]);
    net.stack.answered(ticket, &found, net.now, &mut net.host);
    net.host.frames.clear();
    let mut peer = net.connect(GUEST_PORT, 0);
    let data = peer.segment(ACK, b"request");
    net.send(&data);
    net.socket(0).incoming.extend(b"answer");
    net.ready(0, true, false);
    net.given().iter().for_each(|segment| peer.hear(segment));
    let ack = peer.segment(ACK, b"");
    net.send(&ack);
    let counters = net.stack.counters();
    assert_eq!((counters.sent_bytes, counters.received_bytes), (7, 6));
    net.pass(Duration::from_secs(3));
    assert!(net.stack.take_records().is_empty());
    let reset = peer.segment(RST, b"");
    net.send(&reset);
    let expected = FlowRecord {
        name: Some("www.example.com".to_owned()),
        remote: REMOTE.into(),
        protocol: Protocol::Tcp,
        verdict: Verdict::Allow,
        cause: Cause::Rule(0),
        sent_bytes: 7,
        received_bytes: 6,
        end: End::GuestReset,
        lasted: Duration::from_secs(3),
        secrets: None,
    };
    assert_eq!(record(&mut net), expected);
    let counters = net.stack.counters();
    assert_eq!((counters.sent_bytes, counters.received_bytes), (7, 6));
}

#[test]
fn what_is_refused_is_written_down_with_the_reason() {
    let mut net = logged(Policy::allow_all().rule(Rule {
        verdict: Verdict::Deny,
        target: Target::Network("9.9.9.0/24".parse().unwrap()),
        ports: Ports::ALL,
        protocol: None,
    }));
    for (remote, cause) in [
        ("9.9.9.9:80", Cause::Rule(0)),
        ("10.0.0.1:80", Cause::NotPublic),
        ("192.168.127.1:22", Cause::HostPort),
        ("8.8.8.8:853", Cause::NameServer),
    ] {
        let mut peer = Peer::new(GUEST_PORT);
        peer.remote = remote.parse::<SocketAddrV4>().unwrap();
        let syn = peer.syn();
        net.send(&syn);
        let got = record(&mut net);
        assert_eq!((got.verdict, got.cause), (Verdict::Deny, cause), "{remote}");
        assert_eq!(got.end, End::Denied);
        assert_eq!(got.remote, remote.parse::<SocketAddr>().unwrap());
    }
}

#[test]
fn public_addresses_of_the_host_itself_are_open_to_a_rule_that_lists_them_alone() {
    for (listed, is_open) in [("9.9.0.0/16", false), ("9.9.9.9/32", true)] {
        let mut net = logged(Policy::allow_all().rule(Rule {
            verdict: Verdict::Allow,
            target: Target::Network(listed.parse().unwrap()),
            ports: Ports::ALL,
            protocol: None,
        }));
        net.host.own.push(IpAddr::V4(*REMOTE.ip()));
        let syn = Peer::new(GUEST_PORT).syn();
        net.send(&syn);
        assert_eq!(net.host.sockets.len(), usize::from(is_open), "{listed}");
        if !is_open {
            assert_eq!(record(&mut net).cause, Cause::NotPublic);
        }
    }
}

#[test]
fn names_that_are_not_asked_for_are_written_down() {
    let mut net = logged(Policy::deny_all());
    net.frame(&crate::names::ask("evil.org", 1, *REMOTE.ip()));
    let got = record(&mut net);
    assert_eq!(got.name.as_deref(), Some("evil.org"));
    assert_eq!((got.cause, got.protocol), (Cause::Name, Protocol::Udp));
    assert_eq!(got.remote, SocketAddr::new(IpAddr::V4(*REMOTE.ip()), 53));
}

#[test]
fn records_say_how_connections_fail_and_end() {
    let mut net = logged(Policy::allow_all());
    for (error, end) in [
        (ErrorKind::ConnectionRefused, End::Refused),
        (ErrorKind::HostUnreachable, End::Unreachable),
        (ErrorKind::TimedOut, End::TimedOut),
        (ErrorKind::AddrNotAvailable, End::Failed),
    ] {
        let syn = Peer::new(GUEST_PORT).syn();
        net.send(&syn);
        net.socket(0).outcome = Some(Err(error));
        net.ready(0, false, true);
        assert_eq!(record(&mut net).end, end);
        net.host.frames.clear();
    }
    let mut peer = net.connect(GUEST_PORT, 0);
    net.socket(0).is_over = true;
    net.ready(0, true, false);
    net.given().iter().for_each(|segment| peer.hear(segment));
    let fin = peer.segment(ACK | FIN, b"");
    net.send(&fin);
    let got = record(&mut net);
    assert_eq!(
        (got.end, got.sent_bytes, got.received_bytes),
        (End::Closed, 0, 0)
    );
    net.given();
    net.connect(GUEST_PORT, 0);
    net.socket(0).error = Some(ErrorKind::ConnectionReset);
    net.ready(0, true, false);
    assert_eq!(record(&mut net).end, End::RemoteReset);
}

#[test]
fn records_that_nobody_takes_are_bounded_and_counted() {
    let mut net = logged(Policy::deny_all());
    for port in 0..150 {
        let syn = Peer::new(1000 + port).syn();
        net.send(&syn);
    }
    assert_eq!(net.stack.counters().lost_records, 50);
    assert_eq!(net.stack.take_records().len(), 100);
    let mut silent = Net::of(Config::new(Policy::deny_all()));
    silent.send(&Peer::new(1).syn());
    assert!(silent.stack.take_records().is_empty(), "nobody wants them");
    assert_eq!(silent.stack.counters().lost_records, 0);
}

#[test]
fn placeholder_that_leaves_for_another_host_is_written_down_by_its_name() {
    let placeholders = [("KEY", "smsecret-one-0123"), ("OTHER", "smsecret-two-4567")];
    let mut config = Config::new(Policy::allow_all());
    config.placeholders = placeholders
        .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
        .to_vec();
    let filling = [b'.'; 1000];
    // Whole, in pieces, behind much else, and not at all.
    for (sent, misplaced) in [
        (vec![&b"X-Key: smsecret-one-0123\r\n"[..]], vec!["KEY"]),
        (
            vec![b"smsecret-t", b"w", b"o-4567smsecret-one-0", b"123"],
            vec!["OTHER", "KEY"],
        ),
        (
            [&[&filling[..]; 60][..], &[b"smsecret-one", b"-0123"]].concat(),
            vec!["KEY"],
        ),
        (vec![b"smsecret-one-012", b"4", b"smsecret-two"], vec![]),
    ] {
        let mut net = Net::of(config.clone());
        net.stack.keep_records(1);
        let mut peer = net.connect(GUEST_PORT, 0);
        for bytes in &sent {
            let segment = peer.segment(ACK, bytes);
            net.send(&segment);
        }
        assert_eq!(net.socket(0).sent, sent.concat(), "nothing is held back");
        let reset = peer.segment(RST, b"");
        net.send(&reset);
        let secrets = record(&mut net).secrets;
        let expected = (!misplaced.is_empty()).then(|| SecretsUse {
            misplaced: misplaced.into_iter().map(str::to_owned).collect(),
            ..SecretsUse::default()
        });
        assert_eq!(secrets, expected);
    }
}

#[test]
fn what_is_kept_to_find_placeholders_is_bounded() {
    let mut config = Config::new(Policy::allow_all());
    config.placeholders = vec![("KEY".to_owned(), vec![b'k'; 8192])];
    let mut net = Net::of(config);
    net.stack.keep_records(1000);
    let mut peers: Vec<_> = (0..200_u16)
        .map(|n| net.connect(2000 + n, n.into()))
        .collect();
    for _ in 0..6 {
        for peer in &mut peers {
            let segment = peer.segment(ACK, &[b'k'; 1400]);
            net.send(&segment);
        }
    }
    for peer in &mut peers {
        let reset = peer.segment(RST, b"");
        net.send(&reset);
    }
    let records = net.stack.take_records();
    let found = records.iter().filter(|record| record.secrets.is_some());
    assert!((1..200).contains(&found.count()));
}
