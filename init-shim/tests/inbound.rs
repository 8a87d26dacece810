//! Connections from the host to services of the machine.

mod support;

use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use exec_proto::client::Event;
use exec_proto::{ErrorKind, Failure, Transport};
use init_shim::agent::Agent;
use support::{Client, plain_agent};

/// More than fits in all buffers between two ends.
const MUCH: usize = 8 << 20;

/// Dials; the connection and what came with the answer.
fn dial(agent: &Arc<Agent>, transport: Transport, port: u16) -> Result<UnixStream, Failure> {
    let mut client = Client::new(agent);
    client.session.dial(transport, port).unwrap();
    loop {
        match client.event().expect("an answer") {
            Event::Hello(_) => {}
            Event::Done => break,
            Event::Failed(failure) => return Err(failure),
            other => panic!("{other:?}"),
        }
    }
    assert!(client.session.take_rest().is_empty(), "nobody spoke yet");
    Ok(client.stream.try_clone().unwrap())
}

fn bytes(count: usize) -> Vec<u8> {
    (0..=250).cycle().take(count).collect()
}

/// A service that repeats what it is told until nothing more comes, and then says
/// how much that was.
fn repeating(listener: TcpListener) {
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                let count = std::io::copy(&mut reader, &mut stream).unwrap_or(0);
                // The other end may be gone.
                let _ = stream.write_all(format!("{count} bytes").as_bytes());
            });
        }
    });
}

#[test]
fn streams_arrive_whole_and_end_in_each_direction_on_its_own() {
    let agent = plain_agent();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    repeating(listener);
    let mut host = dial(&agent, Transport::Tcp, port).unwrap();
    let mut writer = host.try_clone().unwrap();
    let sender = thread::spawn(move || {
        writer.write_all(&bytes(MUCH)).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    host.read_to_end(&mut got).unwrap();
    sender.join().unwrap();
    let mut wanted = bytes(MUCH);
    wanted.extend_from_slice(format!("{MUCH} bytes").as_bytes());
    assert!(got == wanted, "{} of {} bytes", got.len(), wanted.len());
}

#[test]
fn services_are_found_at_every_address_of_the_machine() {
    let agent = plain_agent();
    let addresses = [
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::new(127, 9, 8, 7).into(),
        std::net::IpAddr::from(Ipv6Addr::LOCALHOST),
        Ipv6Addr::UNSPECIFIED.into(),
    ];
    for address in addresses {
        // A host without IPv6 has no such addresses.
        let listener = match TcpListener::bind((address, 0)) {
            Err(error) if error.kind() == IoErrorKind::AddrNotAvailable && address.is_ipv6() => {
                continue;
            }
            listener => listener.unwrap(),
        };
        let port = listener.local_addr().unwrap().port();
        let mut host = dial(&agent, Transport::Tcp, port)
            .unwrap_or_else(|failure| panic!("{address}: {failure:?}"));
        let (mut service, _) = listener.accept().unwrap();
        service.write_all(b"hello").unwrap();
        let mut word = [0; 5];
        host.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"hello", "{address}");
    }
}

#[test]
fn port_without_a_service_is_refused() {
    let agent = plain_agent();
    // Out of the range that tests get theirs from, and with no use since RFC 7805.
    let port = 1;
    let failure = dial(&agent, Transport::Tcp, port).unwrap_err();
    assert_eq!(failure.kind, ErrorKind::Refused, "{failure:?}");
    assert!(failure.message.contains("port 1:"), "{failure:?}");
}

#[test]
fn either_end_learns_that_the_other_is_gone() {
    let agent = plain_agent();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = || -> (UnixStream, TcpStream) {
        let host = dial(&agent, Transport::Tcp, port).unwrap();
        let (service, _) = listener.accept().unwrap();
        service
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        (host, service)
    };
    // The host hangs up; nothing it sent is lost.
    let (mut host, mut service) = connect();
    host.write_all(b"last words").unwrap();
    drop(host);
    let mut got = Vec::new();
    service.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"last words");

    // The service goes away with something unread, which resets its connection.
    let (mut host, mut service) = connect();
    host.write_all(&bytes(1000)).unwrap();
    let mut first = [0; 1];
    service.read_exact(&mut first).unwrap();
    drop(service);
    let mut rest = Vec::new();
    // Closed by the agent, with or without our bytes unread.
    if let Err(error) = host.read_to_end(&mut rest) {
        assert_eq!(error.kind(), IoErrorKind::ConnectionReset);
    }
    assert!(rest.is_empty());
}

#[test]
fn datagrams_keep_their_bounds_both_ways() {
    let agent = plain_agent();
    for address in [
        std::net::IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        let service = match UdpSocket::bind((address, 0)) {
            Err(error) if error.kind() == IoErrorKind::AddrNotAvailable && address.is_ipv6() => {
                continue;
            }
            service => service.unwrap(),
        };
        let port = service.local_addr().unwrap().port();
        let mut host = dial(&agent, Transport::Udp, port).unwrap();
        let mut room = vec![0; 70_000];
        for datagram in [&b"one"[..], b"", &bytes(60_000)] {
            let length = u16::try_from(datagram.len()).unwrap().to_le_bytes();
            // In pieces, as a stream may be.
            host.write_all(&length[..1]).unwrap();
            host.write_all(&length[1..]).unwrap();
            host.write_all(datagram).unwrap();
            let (count, from) = service.recv_from(&mut room).unwrap();
            assert!(room[..count] == *datagram, "{count} bytes");
            service.send_to(&room[..count], from).unwrap();
            let mut length = [0; 2];
            host.read_exact(&mut length).unwrap();
            let mut answer = vec![0; u16::from_le_bytes(length).into()];
            host.read_exact(&mut answer).unwrap();
            assert!(answer == datagram, "{} bytes", answer.len());
        }
        // Longer than any datagram: not one of this protocol.
        host.write_all(&[0xff; 2]).unwrap();
        assert_eq!(host.read(&mut room).unwrap_or(0), 0);
    }
}
