//! Ports of the host that lead to services of a guest without a network.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use supermachine::Vm;
use supermachine_tests::{config, image, sh};

/// Longer than anything here takes on a busy host.
const PATIENCE: Duration = Duration::from_secs(100);
/// Connections open at the same time.
const MANY: usize = 100;

/// What the guest serves: on 7001, by IPv6 alone, what it is told, again; datagrams on
/// 7002 and 7003; on 7004 a word, and a reset for an answer.
const SERVICES: &str = r"
import asyncio, socket, struct

async def repeat(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def reset(reader, writer):
    writer.write(b'partial')
    await reader.read(1)
    linger = struct.pack('ii', 1, 0)
    writer.get_extra_info('socket').setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()

class Repeat(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, address):
        self.transport.sendto(data, address)

async def main():
    await asyncio.start_server(repeat, '::1', 7001, backlog=200)
    await asyncio.start_server(reset, '127.0.0.1', 7004)
    loop = asyncio.get_running_loop()
    for address in ('127.0.0.1', 7002), ('::1', 7003):
        await loop.create_datagram_endpoint(Repeat, local_addr=address)
    open('/tmp/ready', 'w').close()
    await asyncio.Event().wait()

asyncio.run(main())
";

fn serving() -> Vm {
    let vm = image("python3").start(&config());
    let vm = vm.unwrap_or_else(|error| panic!("it does not start: {error}"));
    vm.write_file("/tmp/services.py", SERVICES.as_bytes())
        .expect("a file");
    sh(
        &vm,
        "python3 /tmp/services.py < /dev/null > /tmp/log 2>&1 & \
         for n in $(seq 900); do [ -e /tmp/ready ] && exit; sleep 0.1; done; \
         cat /tmp/log >&2; false",
    );
    vm
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream
}

/// Sends a datagram and waits for it to come back. It may be lost, as any may, or
/// come twice when it was sent again.
fn await_return(socket: &UdpSocket, datagram: &[u8]) {
    let mut room = vec![0; 70_000];
    for _ in 0..50 {
        socket.send(datagram).expect("the port is open");
        loop {
            match socket.recv(&mut room) {
                Ok(count) if room[..count] == *datagram => return,
                Ok(_) => {}
                Err(error) => {
                    let is_late = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
                    assert!(is_late.contains(&error.kind()), "{error}");
                    break;
                }
            }
        }
    }
    panic!("{} bytes never came back", datagram.len());
}

#[test]
fn streams_and_datagrams_reach_services_of_either_family() {
    let vm = serving();
    // Many connections at once, each with its own words.
    let port = vm.expose_tcp(0, 7001).expect("a port");
    let mut streams: Vec<TcpStream> = (0..MANY).map(|_| connect(port.local_addr())).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        write!(stream, "{number:8}").expect("it takes words");
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut word = [0; 8];
        stream.read_exact(&mut word).expect("it repeats them");
        assert_eq!(word, *format!("{number:8}").as_bytes());
    }
    drop(streams);

    // Each sender has its own answers, and each datagram its bounds.
    for guest in [7002, 7003] {
        let port = vm.expose_udp(0, guest).expect("a port");
        let senders: Vec<UdpSocket> = (0..2)
            .map(|_| {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
                socket.connect(port.local_addr()).expect("an address");
                let turn = Duration::from_secs(2);
                socket.set_read_timeout(Some(turn)).expect("a limit");
                socket
            })
            .collect();
        for (size, sender) in [3, 1472, 60_000].iter().zip(senders.iter().cycle()) {
            let datagram: Vec<u8> = (0..=250).cycle().take(*size).collect();
            await_return(sender, &datagram);
        }
        port.stop();
        UdpSocket::bind(port.local_addr()).expect("the port is free again");
    }

    // A reset arrives as one, and is not taken for an end.
    let port = vm.expose_tcp(0, 7004).expect("a port");
    let mut stream = connect(port.local_addr());
    let mut word = [0; 7];
    stream.read_exact(&mut word).expect("it speaks first");
    assert_eq!(&word, b"partial");
    stream.write_all(b"x").expect("it takes a byte");
    let end = stream.read(&mut word);
    let is_reset = end
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
    assert!(is_reset, "{end:?}");
}

/// Bytes each way: at the 100 KB/s of a forwarder that waits for its timers, minutes.
const MUCH: usize = 24 << 20;

#[test]
fn published_port_waits_for_no_timer_though_the_guest_is_busy() {
    let vm = serving();
    // On its one vCPU, so that it never sleeps.
    sh(&vm, "while :; do :; done < /dev/null > /dev/null 2>&1 &");
    let port = vm.expose_tcp(0, 7001).expect("a port");
    let mut stream = connect(port.local_addr());
    let mut sender = stream.try_clone().expect("another descriptor");
    let sending = std::thread::spawn(move || {
        let all: Vec<u8> = (0..=250).cycle().take(MUCH).collect();
        sender.write_all(&all).expect("it takes words");
        sender.shutdown(std::net::Shutdown::Write).expect("an end");
    });
    let begun = std::time::Instant::now();
    let mut repeated = Vec::new();
    stream.read_to_end(&mut repeated).expect("it repeats them");
    sending.join().expect("it was all sent");
    assert_eq!(repeated.len(), MUCH);
    let mut expected = (0..=250).cycle();
    assert!(repeated.iter().all(|byte| Some(*byte) == expected.next()));
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}
