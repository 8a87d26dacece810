//! The thread and its sockets; what goes over the cable, the core's tests look at.

use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::sync::Condvar;

use super::*;
use crate::SecretsUse;
use crate::pen::Pen;
use crate::policy::Policy;
use crate::tcp::Key;
use crate::wire::build::{self, Link, TcpOut};
use crate::wire::tcp::{Segment, flag};
use crate::wire::{Ethernet, ip};
use crate::{Addresses, Family, Query, Ticket};

/// How long something may take that takes no time: a hang fails, slowness does not.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Cable {
    sent: Mutex<Vec<Vec<u8>>>,
    given: Mutex<Vec<Vec<u8>>>,
    changed: Condvar,
}

impl Port for Cable {
    fn take(&self, frame: &mut Vec<u8>) -> Option<bool> {
        let mut sent = lock(&self.sent);
        if sent.is_empty() {
            return None;
        }
        *frame = sent.remove(0);
        Some(false)
    }

    fn give(&self, frame: &Frame<'_>) -> bool {
        let [first, second] = frame.payload;
        lock(&self.given).push([frame.header, first, second].concat());
        self.changed.notify_all();
        true
    }

    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    fn flush(&self) {}
}

impl Cable {
    /// One that this network is at the other end of.
    fn of(network: &Network) -> Arc<Self> {
        let cable = Arc::new(Self::default());
        let port: Arc<dyn Port> = cable.clone();
        network.attach(Arc::downgrade(&port));
        cable
    }

    /// The next frame that the guest is given.
    fn next(&self) -> Vec<u8> {
        let waiting = lock(&self.given);
        let waited = self
            .changed
            .wait_timeout_while(waiting, PATIENCE, |given| given.is_empty());
        let (mut given, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!given.is_empty(), "nothing came");
        given.remove(0)
    }
}

fn frame(port: u16, sequence: u32, acknowledged: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let addresses = Addresses::default();
    // The other way round: the guest writes to the gateway.
    let link = Link {
        guest: addresses.gateway_mac,
        gateway: addresses.guest_mac,
    };
    let key = Key {
        guest: (addresses.guest, 4000).into(),
        remote: (addresses.gateway, port).into(),
    };
    let mut pen = Pen::default();
    let out = TcpOut {
        from: key.guest,
        to: key.remote,
        sequence,
        acknowledged,
        flags,
        window: 0xffff,
        options: &[],
        payload: [payload, &[]],
        segment_bytes: u16::MAX,
    };
    build::tcp(&mut pen, link, &out);
    pen.0
}

fn heard(frame: &[u8]) -> (u8, u32, Vec<u8>) {
    let ethernet = Ethernet::read(frame).unwrap();
    let packet = ip::Packet::read(ethernet.kind, ethernet.payload).unwrap();
    let segment = Segment::read(packet.payload).unwrap();
    (segment.flags, segment.sequence, segment.payload.to_vec())
}

#[test]
fn guest_speaks_with_a_socket_of_the_host() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let network = Network::new(Config::new(Policy::deny_all().host_port(port)));
    let cable = Cable::of(&network);
    assert!(!network.is_active(), "no thread before the first frame");
    let say = |sequence, acknowledged, flags, payload: &[u8]| {
        lock(&cable.sent).push(frame(port, sequence, acknowledged, flags, payload));
        network.wake();
    };
    say(100, 0, flag::SYN, b"");
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (flags, first, _) = heard(&cable.next());
    assert_eq!(flags, flag::SYN | flag::ACK);
    assert!(network.is_active());
    let next = first.wrapping_add(1);
    say(101, next, flag::ACK, b"hello");
    let mut got = [0; 5];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    assert_eq!(heard(&cable.next()).0, flag::ACK);
    io::Write::write_all(&mut stream, b"welcome").unwrap();
    let (_, at, payload) = heard(&cable.next());
    assert_eq!((at, &payload[..]), (next, &b"welcome"[..]));
    // Back to before the connection: the host's end is over, too.
    network.restore(&[]).unwrap();
    assert!(stream.read(&mut got).is_err(), "a reset");
    drop(network);
    let _ = cable;
}

#[test]
fn service_of_the_host_is_found_at_either_of_its_loopback_addresses() {
    // The guest asks for the IPv4 one.
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        eprintln!("skipped: this host has no IPv6");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let network = Network::new(Config::new(Policy::deny_all().host_port(port)));
    let cable = Cable::of(&network);
    let ask = || {
        lock(&cable.sent).push(frame(port, 100, 0, flag::SYN, b""));
        network.wake();
        heard(&cable.next()).0
    };
    assert_eq!(ask(), flag::SYN | flag::ACK);
    drop(listener.accept().unwrap());
    // Nobody listens at either any more.
    drop(listener);
    network.restore(&[]).unwrap();
    assert_eq!(ask() & flag::RST, flag::RST);
}

/// Whether the system asks after a while if a connection is still there: its timer for
/// that runs. `None` where the system does not show its timers.
fn is_asked_after(port: u16) -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let own = format!(":{port:04X}");
    let mut lines = text.lines().map(|line| line.split_whitespace());
    let mut fields =
        lines.find(|fields| fields.clone().nth(1).is_some_and(|at| at.ends_with(&own)))?;
    // Which timer, and in how many hundredths of a second it fires (proc_pid_net(5)).
    let (timer, left) = fields.nth(5)?.split_once(':')?;
    assert_eq!(timer, "02", "keep-alive");
    Some(Duration::from_millis(
        10 * u64::from_str_radix(left, 16).ok()?,
    ))
}

#[test]
fn connections_that_died_in_a_minute_of_silence_are_found_out() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let network = Network::new(Config::new(Policy::deny_all().host_port(port)));
    let cable = Cable::of(&network);
    lock(&cable.sent).push(frame(port, 100, 0, flag::SYN, b""));
    network.wake();
    let (_stream, from) = listener.accept().unwrap();
    assert_eq!(heard(&cable.next()).0, flag::SYN | flag::ACK);
    match is_asked_after(from.port()) {
        Some(left) => assert!(left <= Duration::from_secs(60), "{left:?}"),
        None => eprintln!("skipped: the system does not show its timers"),
    }
}

/// Takes connections over, and keeps what is written down.
#[derive(Default)]
struct Taken {
    handed: Mutex<Vec<Handed>>,
    records: Mutex<Vec<FlowRecord>>,
    changed: Condvar,
}

impl Broker for Taken {
    fn take(&self, handed: Handed) {
        lock(&self.handed).push(handed);
        self.changed.notify_all();
    }
}

impl Log for Taken {
    fn record(&self, record: FlowRecord) {
        lock(&self.records).push(record);
        self.changed.notify_all();
    }
}

impl Taken {
    fn next<T>(&self, of: &Mutex<Vec<T>>) -> T {
        let waited = self
            .changed
            .wait_timeout_while(lock(of), PATIENCE, |all| all.is_empty());
        let (mut all, _) = waited.unwrap_or_else(PoisonError::into_inner);
        all.pop().expect("nothing came")
    }
}

/// The hello of a TLS client for the host of these tests.
fn hello() -> Vec<u8> {
    const NAME: &[u8] = b"host.supermachine.internal";
    let name = u8::try_from(NAME.len()).unwrap();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0, 0, name + 9]);
    body.extend([0, 0, 0, name + 5, 0, name + 3, 0, 0, name]);
    body.extend(NAME);
    let length = u8::try_from(body.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(body);
    record
}

#[test]
fn connection_to_a_host_of_a_secret_goes_by_whoever_serves_it() {
    for ends_first in [false, true] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut config = Config::new(Policy::deny_all().host_port(port));
        config.brokered = vec![("host.supermachine.internal".to_owned(), port)];
        let taken = Arc::new(Taken::default());
        let network = Network::logged(config, taken.clone());
        network.serve_by(taken.clone());
        let cable = Cable::of(&network);
        let say = |sequence, acknowledged, flags, payload: &[u8]| {
            lock(&cable.sent).push(frame(port, sequence, acknowledged, flags, payload));
            network.wake();
        };
        // On a slow host others come again meanwhile.
        let until = |wanted: &dyn Fn(u8, &[u8]) -> bool| loop {
            let (flags, _, payload) = heard(&cable.next());
            if wanted(flags, &payload) {
                break;
            }
        };
        say(100, 0, flag::SYN, b"");
        let (mut host, _) = listener.accept().unwrap();
        let (_, first, _) = heard(&cable.next());
        let next = first.wrapping_add(1);
        let hello = hello();
        say(101, next, flag::ACK, &hello);
        let mut handed = taken.next(&taken.handed);
        assert_eq!((handed.port, &handed.begun), (port, &hello));
        assert_eq!(handed.name, "host.supermachine.internal");
        // Both ends are others' now.
        handed.host.set_nonblocking(false).unwrap();
        io::Write::write_all(&mut handed.host, b"to the host").unwrap();
        let mut got = [0; 11];
        host.set_read_timeout(Some(PATIENCE)).unwrap();
        host.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"to the host");
        io::Write::write_all(&mut handed.guest, b"to the guest").unwrap();
        until(&|_, payload| payload == b"to the guest");
        let sequence = 101 + u32::try_from(hello.len()).unwrap();
        say(sequence, next.wrapping_add(12), flag::ACK, b"more");
        let mut got = [0; 4];
        handed.guest.set_read_timeout(Some(PATIENCE)).unwrap();
        handed.guest.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"more");
        // Whichever end is over first, both are in the record.
        let secrets = SecretsUse {
            used: vec!["KEY".to_owned()],
            refused: Some("late".to_owned()),
            ..SecretsUse::default()
        };
        let Handed { guest, outcome, .. } = handed;
        match ends_first {
            true => {
                outcome.report(secrets.clone());
                drop(guest);
                until(&|flags, _| flags & flag::RST != 0);
            }
            false => {
                let ack = next.wrapping_add(12);
                say(sequence + 4, ack, flag::RST | flag::ACK, b"");
                let mut guest = guest;
                assert_eq!(guest.read(&mut got).unwrap_or(0), 0);
                outcome.report(secrets.clone());
            }
        }
        let record = taken.next(&taken.records);
        assert_eq!(record.secrets, Some(secrets));
        assert_eq!(record.sent_bytes, hello.len() as u64 + 4);
    }
}

#[test]
fn names_of_the_host_are_looked_up_beside_the_thread() {
    let network = Network::new(Config::new(Policy::allow_all()));
    let resolver = &network.shared.resolver;
    let query = Query::Addresses {
        name: "localhost".to_owned(),
        family: Family::V4,
    };
    assert!(resolver.ask(&network.shared, Ticket(7), query));
    let begun = Instant::now();
    let answers = loop {
        let answers = resolver.answers();
        if !answers.is_empty() {
            break answers;
        }
        assert!(begun.elapsed() < PATIENCE, "no answer");
        std::thread::sleep(Duration::from_millis(10));
    };
    let expected = crate::Answer::Addresses(vec![Ipv4Addr::LOCALHOST.into()]);
    assert_eq!(answers, [(Ticket(7), expected)]);
}

#[test]
fn datagrams_go_over_a_socket_of_the_host() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let network = Network::new(Config::new(Policy::deny_all().host_udp_port(port)));
    let cable = Cable::of(&network);
    for payload in [&b"hello"[..], b"", &[7; 1400]] {
        lock(&cable.sent).push(message(port, payload));
        network.wake();
        let mut got = [0; 2000];
        let (bytes, from) = socket.recv_from(&mut got).unwrap();
        assert_eq!(&got[..bytes], payload);
        socket.send_to(&got[..bytes], from).unwrap();
        let frame = cable.next();
        let ethernet = Ethernet::read(&frame).unwrap();
        let packet = ip::Packet::read(ethernet.kind, ethernet.payload).unwrap();
        assert_eq!(packet.source, Addresses::default().gateway);
        assert_eq!(&packet.payload[build::UDP_BYTES..], payload);
    }
    assert_eq!(network.counters().datagram_flows, 1);
}

/// A datagram of the guest's to the gateway.
fn message(port: u16, payload: &[u8]) -> Vec<u8> {
    let addresses = Addresses::default();
    let link = Link {
        guest: addresses.gateway_mac,
        gateway: addresses.guest_mac,
    };
    let (guest, there) = ((addresses.guest, 4000), (addresses.gateway, port));
    let mut pen = Pen::default();
    build::udp(&mut pen, link, guest.into(), there.into(), payload);
    pen.0
}

#[test]
fn service_of_datagrams_is_found_at_either_of_the_hosts_loopback_addresses() {
    let Ok(service) = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) else {
        eprintln!("skipped: this host has no IPv6");
        return;
    };
    service.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = service.local_addr().unwrap().port();
    let network = Network::new(Config::new(Policy::deny_all().host_udp_port(port)));
    let cable = Cable::of(&network);
    let say = |payload: &[u8]| {
        lock(&cable.sent).push(message(port, payload));
        network.wake();
    };
    // The guest asks for the IPv4 one, once: what was refused there arrives here.
    let mut got = [0; 16];
    for question in [&b"first"[..], b"second"] {
        say(question);
        let (bytes, from) = service.recv_from(&mut got).unwrap();
        assert_eq!(&got[..bytes], question);
        service.send_to(b"answer", from).unwrap();
        let frame = cable.next();
        let ethernet = Ethernet::read(&frame).unwrap();
        let packet = ip::Packet::read(ethernet.kind, ethernet.payload).unwrap();
        assert_eq!(packet.source, Addresses::default().gateway);
        assert_eq!(&packet.payload[build::UDP_BYTES..], b"answer");
    }
    assert_eq!(network.counters().datagram_flows, 1);
    // Nobody listens at either any more, and the guest hears of it.
    drop(service);
    say(b"third");
    let frame = cable.next();
    let ethernet = Ethernet::read(&frame).unwrap();
    let packet = ip::Packet::read(ethernet.kind, ethernet.payload).unwrap();
    assert_eq!(packet.payload[..2], [3, 3], "port unreachable");
}

#[test]
fn addresses_of_this_host_are_known_from_others() {
    assert!(super::reach::is_own([127, 0, 0, 1].into()));
    // Of documentation: no host has them, and some have no way there.
    assert!(!super::reach::is_own([192, 0, 2, 1].into()));
    assert!(!super::reach::is_own([198, 51, 100, 7].into()));
}
