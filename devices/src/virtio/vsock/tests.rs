use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

use super::connection::BUFFER_BYTES;
use super::packet::{HEADER_BYTES, HOST_CID, Header, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, op};
use super::*;
use crate::GuestRam;
use crate::testing::{Buffer, CountingIrq, Driver, DriverQueue, guest_ram};
use crate::virtio::mmio::{VirtioMmio, status};

mod guest;

use guest::{CID, Guest};

const PATIENCE: Duration = Duration::from_secs(10);

/// Makes reads and writes of a test fail instead of hang.
fn patient(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn read_line(stream: &mut UnixStream) -> String {
    let mut line = String::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 {
        line.push(char::from(byte[0]));
        if byte[0] == b'\n' {
            break;
        }
    }
    line
}

#[test]
fn listener_client_is_bridged_to_its_guest_port() {
    let mut guest = Guest::start();
    let mut client = guest.client();
    let ports = guest.accept(1000);
    client.write_all(b"hello").unwrap();
    assert_eq!(guest.read(ports, 5), b"hello");
    guest.send(ports, b"world!");
    let mut reply = [0; 6];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"world!");
}

#[test]
fn mux_client_chooses_its_port() {
    let mut guest = Guest::start();
    let mut client = patient(UnixStream::connect(guest.mux()).unwrap());
    client.write_all(b"CONNECT 77\nearly").unwrap();
    let ports = guest.accept(77);
    let line = read_line(&mut client);
    assert_eq!(line, format!("OK {}\n", ports.0));
    assert_eq!(guest.read(ports, 5), b"early");
    guest.send(ports, b"x");
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn mux_client_that_says_nonsense_is_closed() {
    let guest = Guest::start();
    let lines: [&[u8]; 5] = [
        b"HELLO 1\n",
        b"CONNECT x\n",
        b"CONNECT 4294967296\n",
        b"CONNECT 1 2\n",
        &[b'C'; 64],
    ];
    for line in lines {
        let mut client = patient(UnixStream::connect(guest.mux()).unwrap());
        client.write_all(line).unwrap();
        assert_closed(&mut client);
    }
    guest.wait_for_connections(0);
}

/// The other side closes without a byte; unread data makes that a reset.
fn assert_closed(client: &mut UnixStream) {
    match client.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("expected a close, got {other:?}"),
    }
}

#[test]
fn refused_client_is_closed() {
    let mut guest = Guest::start();
    let mut listened = guest.client();
    let ports = guest.next_request();
    guest.control(ports, op::RST, 0);
    assert_closed(&mut listened);
    let mut muxed = patient(UnixStream::connect(guest.mux()).unwrap());
    muxed.write_all(b"CONNECT 5\n").unwrap();
    let ports = guest.next_request();
    guest.control(ports, op::RST, 0);
    assert_closed(&mut muxed);
    guest.wait_for_connections(0);
}

#[test]
fn clients_before_the_driver_wait_for_it() {
    let mut guest = Guest::not_ready();
    let mut clients: Vec<_> = (0..100).map(|_| guest.client()).collect();
    for (index, client) in (0u8..).zip(&mut clients) {
        client.write_all(&[index]).unwrap();
    }
    guest.boot();
    let mut seen = Vec::new();
    for _ in 0..100 {
        let ports = guest.accept(guest::PORT);
        seen.extend(guest.read(ports, 1));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<u8>>());
}

#[test]
fn sockets_are_private_and_go_with_the_device() {
    let guest = Guest::not_ready();
    let (mux, exec) = (guest.mux(), guest.exec());
    for path in [&mux, &exec] {
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let Guest {
        driver, dir: _dir, ..
    } = guest;
    drop(driver);
    assert!(!mux.exists() && !exec.exists());
}

#[test]
fn existing_paths_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("taken");
    std::fs::write(&path, "mine").unwrap();
    let reactor = Reactor::spawn().unwrap();
    let config = VsockConfig {
        guest_cid: CID,
        mux: Some(path.clone()),
        listeners: Vec::new(),
    };
    let outcome = Vsock::new(config, &reactor);
    assert!(matches!(outcome, Err(VsockError::Bind { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn reserved_context_ids_are_refused() {
    let reactor = Reactor::spawn().unwrap();
    for guest_cid in [0, 1, 2, u64::from(u32::MAX), u64::MAX] {
        let config = VsockConfig {
            guest_cid,
            ..VsockConfig::default()
        };
        let outcome = Vsock::new(config, &reactor);
        assert!(matches!(outcome, Err(VsockError::BadCid(_))));
    }
}

#[test]
fn guest_reaches_sockets_beside_the_mux_path() {
    let mut guest = Guest::start();
    let listener = UnixListener::bind(guest.dir.path().join("mux_9")).unwrap();
    assert!(guest.connect((9, 5000)));
    let mut server = patient(listener.accept().unwrap().0);
    guest.send((9, 5000), b"ping");
    let mut data = [0; 4];
    server.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"ping");
    server.write_all(b"pong").unwrap();
    assert_eq!(guest.read((9, 5000), 4), b"pong");
    assert!(!guest.connect((10, 5000)), "nobody listens there");
    // A second request for a connection that exists ends it.
    guest.control((9, 5000), op::REQUEST, 0);
    guest.wait("reset", |guest| guest.streams[&(9, 5000)].reset);
    assert_closed(&mut server);
}

/// Bytes whose order shows.
fn stream_bytes(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at % 253 + at / 65536).to_le_bytes()[0])
        .collect()
}

#[test]
fn slow_host_reader_holds_back_only_the_guest() {
    let mut guest = Guest::start();
    let client = guest.client();
    let ports = guest.accept(guest::PORT);
    let data = stream_bytes(3 << 20);
    let reader = std::thread::spawn({
        let len = data.len();
        let mut client = client.try_clone().unwrap();
        move || {
            std::thread::sleep(Duration::from_millis(100));
            let mut got = vec![0; len];
            let mut at = 0;
            while at < len {
                let end = len.min(at + 60_000);
                client.read_exact(&mut got[at..end]).unwrap();
                at = end;
                std::thread::sleep(Duration::from_millis(1));
            }
            got
        }
    });
    // `send` fails if credit ever goes beyond the buffer, or never returns.
    guest.send(ports, &data);
    assert!(reader.join().unwrap() == data);
    assert_eq!(guest.streams[&ports].peer_buf_alloc, BUFFER_BYTES);
}

#[test]
fn guest_beyond_its_credit_is_reset() {
    let mut guest = Guest::start();
    let mut client = guest.client();
    let ports = guest.accept(guest::PORT);
    // Fills the socket, then the buffer, to the last byte.
    loop {
        guest.control(ports, op::CREDIT_REQUEST, 0);
        guest.poll();
        let len = guest.credit(ports).min(0x8000) as usize;
        if len == 0 {
            break;
        }
        guest.send_anyway(ports, &vec![1; len]);
    }
    assert!(!guest.streams[&ports].reset);
    guest.send_anyway(ports, &[1]);
    guest.wait("reset", |guest| guest.streams[&ports].reset);
    guest.wait_for_connections(0);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert!(!rest.is_empty());
}

#[test]
fn slow_guest_reader_holds_back_only_the_host() {
    let mut guest = Guest::start();
    guest.buf_alloc = 10_000;
    let client = guest.client();
    let ports = guest.accept(guest::PORT);
    let data = stream_bytes(1 << 20);
    let writer = std::thread::spawn({
        let data = data.clone();
        let mut client = client.try_clone().unwrap();
        move || client.write_all(&data).unwrap()
    });
    // The guest's application sleeps: the buffer fills and no further. That
    // the device never overruns it is checked at each packet.
    guest.wait("full buffer", |guest| {
        guest.streams[&ports].inbox.len() == 10_000
    });
    guest.wait("credit request", |guest| {
        guest.streams[&ports].credit_requests > 0
    });
    std::thread::sleep(Duration::from_millis(50));
    guest.poll();
    assert_eq!(guest.streams[&ports].inbox.len(), 10_000);
    assert!(
        guest.streams[&ports].credit_requests <= 2,
        "asks over and over"
    );
    assert!(guest.read(ports, data.len()) == data);
    writer.join().unwrap();
}

#[test]
fn one_stalled_stream_does_not_stall_another() {
    let mut guest = Guest::start();
    guest.buf_alloc = 5_000;
    let stalled = guest.client();
    let stalled_ports = guest.accept(guest::PORT);
    stalled.set_nonblocking(true).unwrap();
    while (&stalled).write(&[0; 4096]).is_ok() {}
    let mut lively = guest.client();
    let ports = guest.accept(guest::PORT);
    lively.write_all(&stream_bytes(40_000)).unwrap();
    assert!(guest.read(ports, 40_000) == stream_bytes(40_000));
    guest.send(ports, b"back");
    let mut data = [0; 4];
    lively.read_exact(&mut data).unwrap();
    assert!(guest.streams[&stalled_ports].inbox.len() <= 5_000);
}

#[test]
fn host_half_close_leaves_the_other_direction_open() {
    let mut guest = Guest::start();
    let mut client = guest.client();
    let ports = guest.accept(guest::PORT);
    client.write_all(&stream_bytes(20_000)).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    guest.wait("shutdown", |guest| guest.streams[&ports].shutdown != 0);
    assert_eq!(guest.streams[&ports].shutdown, SHUTDOWN_SEND);
    // Everything came before the end.
    assert_eq!(guest.streams[&ports].inbox.len(), 20_000);
    guest.send(ports, b"answer");
    let mut data = [0; 6];
    client.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"answer");
}

#[test]
fn guest_half_close_leaves_the_other_direction_open() {
    let mut guest = Guest::start();
    let mut client = guest.client();
    let ports = guest.accept(guest::PORT);
    let data = stream_bytes(300_000);
    let reader = std::thread::spawn({
        let mut client = client.try_clone().unwrap();
        move || {
            std::thread::sleep(Duration::from_millis(30));
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            got
        }
    });
    guest.send(ports, &data);
    guest.control(ports, op::SHUTDOWN, SHUTDOWN_SEND);
    assert!(reader.join().unwrap() == data);
    client.write_all(b"answer").unwrap();
    assert_eq!(guest.read(ports, 6), b"answer");
    assert!(!guest.streams[&ports].reset);
    // Data after the end is a mistake.
    guest.send_anyway(ports, b"more");
    guest.wait("reset", |guest| guest.streams[&ports].reset);
}

#[test]
fn guest_that_stops_receiving_makes_host_writes_fail() {
    let mut guest = Guest::start();
    let mut client = guest.client();
    let ports = guest.accept(guest::PORT);
    guest.control(ports, op::SHUTDOWN, SHUTDOWN_RECEIVE);
    guest.send(ports, b"still");
    let mut data = [0; 5];
    client.read_exact(&mut data).unwrap();
    let error = client.write_all(&[0; 1 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[test]
fn host_close_ends_both_directions_and_frees_the_slot() {
    let mut guest = Guest::start();
    let mut client = guest.client();
    let ports = guest.accept(guest::PORT);
    client.write_all(b"last words").unwrap();
    drop(client);
    guest.wait("shutdown", |guest| {
        guest.streams[&ports].shutdown == SHUTDOWN_SEND | SHUTDOWN_RECEIVE
    });
    assert_eq!(guest.read(ports, 10), b"last words");
    guest.control(ports, op::RST, 0);
    guest.wait_for_connections(0);
}

#[test]
fn guest_close_is_answered_at_once_and_loses_nothing() {
    let mut guest = Guest::start();
    let mut client = guest.client();
    let ports = guest.accept(guest::PORT);
    let mut sent = 0;
    while guest.credit(ports) >= 0x8000 {
        guest.send_anyway(ports, &[7; 0x8000]);
        sent += 0x8000;
        guest.poll();
    }
    guest.control(ports, op::SHUTDOWN, SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    // Nobody has read a byte, yet the guest is done.
    guest.wait("reset", |guest| guest.streams[&ports].reset);
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), sent);
    guest.wait_for_connections(0);
}

#[test]
fn abandoned_drain_frees_its_slot() {
    let mut guest = Guest::start();
    let client = guest.client();
    let ports = guest.accept(guest::PORT);
    while guest.credit(ports) >= 0x8000 {
        guest.send_anyway(ports, &[7; 0x8000]);
        guest.poll();
    }
    guest.control(ports, op::SHUTDOWN, SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    guest.wait("reset", |guest| guest.streams[&ports].reset);
    guest.wait_for_connections(1);
    drop(client);
    guest.wait_for_connections(0);
}

#[test]
fn packets_for_nobody_are_reset() {
    let mut guest = Guest::start();
    for op in [op::RESPONSE, op::RW, op::SHUTDOWN, op::CREDIT_UPDATE, 99] {
        let seen = guest.stray_resets;
        guest.control((1, 2), op, 3);
        guest.wait("reset", |guest| guest.stray_resets > seen);
    }
    // But a reset is never answered by a reset.
    let seen = guest.stray_resets;
    guest.control((1, 2), op::RST, 0);
    guest.control((1, 3), op::CREDIT_REQUEST, 0);
    guest.wait("reset", |guest| guest.stray_resets > seen);
    assert_eq!(guest.stray_resets, seen + 1);
}

#[test]
fn malformed_packets_are_reset_or_ignored() {
    let mut guest = Guest::start();
    let header = guest.header((1, 2), op::REQUEST);
    let with = |change: fn(&mut Header)| {
        let mut header = header;
        change(&mut header);
        header.encode()
    };
    // Shorter than a header, or from somebody else: ignored.
    guest.transmit(&[0; HEADER_BYTES - 1]);
    guest.transmit(&with(|h| h.src_cid = 43));
    guest.poll();
    assert_eq!(guest.stray_resets, 0);
    // Payload that is not there, too much of it, a type we do not have.
    for bad in [
        with(|h| h.len = 1),
        with(|h| h.len = u32::MAX),
        with(|h| h.kind = 2),
    ] {
        let seen = guest.stray_resets;
        guest.transmit(&bad);
        guest.wait("reset", |guest| guest.stray_resets == seen + 1);
    }
    assert_eq!(guest.driver.status() & status::NEEDS_RESET, 0);
    let client = guest.client();
    guest.accept(guest::PORT);
    drop(client);
}

#[test]
fn lying_about_lengths_ends_the_connection_concerned() {
    let mut guest = Guest::start();
    let mut client = guest.client();
    let ports = guest.accept(guest::PORT);
    let mut header = guest.header(ports, op::RW);
    header.len = 0x1_0001;
    guest.transmit(&header.encode());
    guest.wait("reset", |guest| guest.streams[&ports].reset);
    assert_closed(&mut client);
}

#[test]
fn flood_of_strays_without_receive_buffers_recovers() {
    let mut guest = Guest::not_ready();
    guest.start_driver();
    // More than the device keeps resets for, and no buffer to put them in.
    let mut sent = 0;
    for port in 0..400 {
        if guest.driver.queues[1].free_descriptors() == 0 {
            while guest.driver.queues[1].poll().is_some() {}
        }
        if guest.driver.queues[1].free_descriptors() == 0 {
            break;
        }
        guest.control((1, port), op::SHUTDOWN, 3);
        sent += 1;
    }
    assert!((256..400).contains(&sent), "{sent} packets were taken");
    for slot in 0..64 {
        guest.offer(0x10_0000 + slot * u64::from(guest::RX_BYTES));
    }
    guest.driver.notify(0);
    guest.wait("resets", |guest| guest.stray_resets == sent);
    // And the device still works.
    let mut client = guest.client();
    let ports = guest.accept(guest::PORT);
    client.write_all(b"alive").unwrap();
    assert_eq!(guest.read(ports, 5), b"alive");
}

#[test]
fn receive_buffer_without_room_for_data_needs_a_reset() {
    let mut guest = Guest::not_ready();
    guest.start_driver();
    guest.driver.queues[0].push(&[Buffer::Writable {
        addr: 0x10_0000,
        len: 44,
    }]);
    guest.driver.notify(0);
    let _client = guest.client();
    let deadline = Instant::now() + PATIENCE;
    while guest.driver.status() & status::NEEDS_RESET == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn reset_closes_connections_and_the_next_driver_serves_again() {
    let mut guest = Guest::start();
    let mut client = guest.client();
    guest.accept(guest::PORT);
    guest.driver.write(0x070, 0);
    assert_closed(&mut client);
    let mut waiting = guest.client();
    guest.streams.clear();
    guest.boot();
    let ports = guest.accept(guest::PORT);
    waiting.write_all(b"again").unwrap();
    assert_eq!(guest.read(ports, 5), b"again");
}

#[test]
fn restored_guest_hears_that_its_connections_are_gone() {
    let mut guest = Guest::start();
    let client = guest.client();
    guest.accept(guest::PORT);
    guest.poll();
    guest.driver.queues[2].push(&[Buffer::Writable {
        addr: 0x8_0000,
        len: 8,
    }]);
    let state = guest.driver.device.state();
    let reactor = Reactor::spawn().unwrap();
    let restore = |guest_cid| {
        let config = VsockConfig {
            guest_cid,
            ..VsockConfig::default()
        };
        let vsock = Vsock::new(config, &reactor).unwrap();
        let (ram, irq) = (guest.ram.clone(), guest.driver.irq.clone());
        let device = VirtioMmio::new(ram, irq, Box::new(vsock));
        device.restore(&state).map(|()| device)
    };
    assert!(restore(CID + 1).is_err());
    let device = restore(CID).unwrap();
    guest
        .ram
        .write_obj(u32::MAX, GuestAddress(0x8_0000))
        .unwrap();
    guest.driver.device = Arc::new(device);
    guest.driver.notify(2);
    drop(client);
    let event: u32 = guest.ram.read_obj(GuestAddress(0x8_0000)).unwrap();
    assert!(guest.driver.queues[2].poll().is_some() && event != 1);
}

#[test]
fn two_thousand_connections_echo() {
    const COUNT: usize = 2000;
    let mut guest = Guest::start();
    let mut clients = Vec::new();
    let mut ports = Vec::new();
    // Accept as we go: the backlog is not that deep.
    for index in 0..COUNT {
        let mut client = guest.client();
        client.write_all(&index.to_le_bytes()).unwrap();
        clients.push(client);
        ports.push(guest.accept(guest::PORT));
    }
    guest.wait_for_connections(COUNT);
    for &ports in &ports {
        let data = guest.read(ports, 8);
        guest.send(ports, &data);
    }
    for (index, client) in clients.iter_mut().enumerate() {
        let mut data = [0; 8];
        client.read_exact(&mut data).unwrap();
        assert_eq!(usize::from_le_bytes(data), index);
    }
    drop(clients);
    for ports in ports {
        guest.wait("shutdown", |guest| guest.streams[&ports].shutdown == 3);
        guest.control(ports, op::RST, 0);
    }
    guest.wait_for_connections(0);
}

#[test]
fn header_layout_agrees_with_the_virtio_vsock_crate() {
    use virtio_vsock::packet::{PKT_HEADER_SIZE, VsockPacket};
    assert_eq!(PKT_HEADER_SIZE, HEADER_BYTES);
    let header = Header {
        src_cid: 0x0102_0304_0506_0708,
        dst_cid: 0x1112_1314_1516_1718,
        src_port: 0x2122_2324,
        dst_port: 0x3132_3334,
        len: 0,
        kind: 0x4142,
        op: 0x5152,
        flags: 0x6162_6364,
        buf_alloc: 0x7172_7374,
        fwd_cnt: 0x8182_8384,
    };
    let ram = guest_ram(1 << 20);
    let mut queue = DriverQueue::new(ram.clone(), 0x1000, 8);
    ram.write_slice(&header.encode(), GuestAddress(0x8000))
        .unwrap();
    queue.push(&[Buffer::Readable {
        addr: 0x8000,
        len: 44,
    }]);
    let mut device = Queue::new(8).unwrap();
    let [table, avail, used] = queue.addresses().map(GuestAddress);
    device.try_set_desc_table_address(table).unwrap();
    device.try_set_avail_ring_address(avail).unwrap();
    device.try_set_used_ring_address(used).unwrap();
    device.set_ready(true);
    let mut chain = device.pop_descriptor_chain(&*ram).unwrap();
    let packet = VsockPacket::from_tx_virtq_chain(&*ram, &mut chain, 65536).unwrap();
    let theirs = Header {
        src_cid: packet.src_cid(),
        dst_cid: packet.dst_cid(),
        src_port: packet.src_port(),
        dst_port: packet.dst_port(),
        len: packet.len(),
        kind: packet.type_(),
        op: packet.op(),
        flags: packet.flags(),
        buf_alloc: packet.buf_alloc(),
        fwd_cnt: packet.fwd_cnt(),
    };
    assert_eq!(theirs, header);
    assert_eq!(Header::decode(&header.encode()), header);
}
