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
