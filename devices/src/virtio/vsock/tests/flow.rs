//! Credit in both directions.

use super::*;

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
fn credit_that_runs_backwards_or_ahead_costs_only_its_own_stream() {
    let mut guest = Guest::start();
    guest.buf_alloc = 10_000;
    let liar = guest.client();
    let ports = guest.accept(guest::PORT);
    (&liar).write_all(&stream_bytes(5_000)).unwrap();
    assert!(guest.read(ports, 5_000) == stream_bytes(5_000));
    let honest = guest.header(ports, op::CREDIT_UPDATE);
    assert_eq!(honest.fwd_cnt, 5_000);
    for (buf_alloc, fwd_cnt) in [
        // Back to what it had said before, and to before the beginning.
        (10_000, 4_000),
        (10_000, 0),
        (10_000, u32::MAX),
        // Bytes that were never sent.
        (10_000, 5_001),
        (10_000, 5_000 + (1 << 31)),
        // No buffer any more, and one of which nobody has so much.
        (0, 5_000),
        (1, 4_999),
        (u32::MAX, 5_001),
    ] {
        let mut header = honest;
        (header.buf_alloc, header.fwd_cnt) = (buf_alloc, fwd_cnt);
        guest.transmit(&header.encode());
        guest.poll();
        guest.shared.lock().check();
        let mut other = guest.client();
        let other_ports = guest.accept(guest::PORT);
        other.write_all(b"other").unwrap();
        assert_eq!(guest.read(other_ports, 5), b"other");
        assert!(!guest.streams[&ports].reset, "{buf_alloc} {fwd_cnt}");
    }
    // The truth again, and it goes on: nothing was lost or sent twice.
    (&liar).write_all(&stream_bytes(9_000)).unwrap();
    guest.transmit(&honest.encode());
    guest.streams.get_mut(&ports).unwrap().announced = honest.fwd_cnt;
    assert!(guest.read(ports, 9_000) == stream_bytes(9_000));
    assert_eq!(guest.driver.status() & status::NEEDS_RESET, 0);
}

/// Interrupts so far, acknowledged: one that is not has none behind it.
fn told(guest: &Guest) -> usize {
    guest.driver.acknowledge();
    guest.driver.irq.pulses()
}

#[test]
fn guest_is_told_of_large_packets_together_and_of_small_ones_at_once() {
    let mut guest = Guest::start();
    let _client = guest.client();
    let ports = guest.accept(guest::PORT);
    guest.shared.lock().leave_telling();
    let large = vec![1; 16 << 10];
    let before = told(&guest);
    // Less than half a buffer in all, or the guest hears of room.
    for _ in 0..5 {
        guest.send_anyway(ports, &large);
    }
    assert_eq!(told(&guest), before, "it waits for none of them");
    guest.shared.deadline_passed();
    assert_eq!(told(&guest), before + 1, "but hears of them in the end");

    guest.shared.lock().leave_telling();
    guest.send_anyway(ports, &large[..1 << 10]);
    assert_eq!(told(&guest), before + 2);
    guest.send_anyway(ports, &large);
    assert_eq!(told(&guest), before + 2);
    guest.send_anyway(ports, &large[..1 << 10]);
    assert_eq!(told(&guest), before + 3, "of both");
}

#[test]
fn guest_is_told_of_packets_before_there_are_many_and_before_a_pause() {
    let mut guest = Guest::start();
    let _client = guest.client();
    let ports = guest.accept(guest::PORT);
    guest.shared.lock().leave_telling();
    let large = vec![1; 16 << 10];
    let before = told(&guest);
    guest.send_anyway(ports, &large);
    for _ in 0..14 {
        guest.control(ports, op::CREDIT_UPDATE, 0);
    }
    assert_eq!(told(&guest), before, "they only tell of credit");
    guest.control(ports, op::CREDIT_UPDATE, 0);
    assert_eq!(told(&guest), before + 1);

    guest.send_anyway(ports, &large);
    assert_eq!(told(&guest), before + 1);
    guest.driver.device.pause();
    assert_eq!(told(&guest), before + 2);
}

/// Nobody but the device itself tells the guest here.
#[test]
fn guest_hears_of_a_large_packet_though_nothing_follows_it() {
    let mut guest = Guest::start();
    let _client = guest.client();
    let ports = guest.accept(guest::PORT);
    let before = told(&guest);
    guest.send_anyway(ports, &[1; 16 << 10]);
    assert!(guest.driver.irq.wait_beyond(before, PATIENCE) > before);
}
