//! What leaves a guest, by the programs of its system: datagrams, echo requests, names
//! and connections, over IPv4 and IPv6, to servers of this test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use supermachine::NetworkPolicy;
use supermachine_tests::{config, image, sh};

const PROGRAM: &str = include_str!("../programs/network-leaves.py");

/// Stack of a thread that only echoes: there are a thousand.
const STACK_BYTES: usize = 128 << 10;

/// Says everything again in capitals, and at the end that it is the end.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut bytes = [0; 1024];
    loop {
        let got = stream.read(&mut bytes)?;
        if got == 0 {
            return stream.write_all(b"end");
        }
        let mut said = bytes[..got].to_vec();
        said.make_ascii_uppercase();
        stream.write_all(&said)?;
    }
}

/// Sockets on one port of the host's loopback interface, of both families if it has both.
fn on_one_port<T>(
    bind: impl Fn(SocketAddr) -> std::io::Result<T>,
    port_of: impl Fn(&T) -> std::io::Result<SocketAddr>,
    has_ipv6: bool,
) -> (u16, Vec<T>) {
    loop {
        let first = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port is free");
        let port = port_of(&first).expect("it has one").port();
        if !has_ipv6 {
            return (port, vec![first]);
        }
        // Somebody else may have that one.
        if let Ok(second) = bind((Ipv6Addr::LOCALHOST, port).into()) {
            return (port, vec![first, second]);
        }
    }
}

fn stream_server(has_ipv6: bool) -> u16 {
    let bind = |address| TcpListener::bind(address);
    let (port, listeners) = on_one_port(bind, TcpListener::local_addr, has_ipv6);
    for listener in listeners {
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let thread = thread::Builder::new().stack_size(STACK_BYTES);
                // A client that went away is its own affair.
                let _ = thread.spawn(move || drop(answer(stream)));
            }
        });
    }
    port
}

fn datagram_server(has_ipv6: bool) -> u16 {
    let bind = |address| UdpSocket::bind(address);
    let (port, sockets) = on_one_port(bind, UdpSocket::local_addr, has_ipv6);
    for socket in sockets {
        thread::spawn(move || {
            let mut bytes = [0; 2048];
            while let Ok((got, from)) = socket.recv_from(&mut bytes) {
                let mut said = bytes[..got].to_vec();
                said.make_ascii_uppercase();
                let _ = socket.send_to(&said, from);
            }
        });
    }
    port
}

#[test]
fn programs_of_a_guest_speak_with_the_host_in_every_way_there_is() {
    let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let (tcp, udp) = (stream_server(has_ipv6), datagram_server(has_ipv6));
    // It listens, and is not listed.
    let unlisted = datagram_server(has_ipv6);
    let policy = NetworkPolicy::deny_all().host_port(tcp).host_udp_port(udp);
    let started = image("python3").start(&config().with_network(policy));
    let vm = started.unwrap_or_else(|error| panic!("it does not start: {error}"));
    let families = if has_ipv6 { "46" } else { "4" };
    vm.write_file("/tmp/leaves.py", PROGRAM.as_bytes())
        .expect("a file");
    let script =
        format!("ulimit -n 4096; python3 /tmp/leaves.py {tcp} {udp} {unlisted} {families}");
    assert_eq!(sh(&vm, &script), "done\n");
}
