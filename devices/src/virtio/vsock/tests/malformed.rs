//! Packets and buffers that are not as they should be.

use super::*;

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
