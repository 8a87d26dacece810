//! Ends of streams, half and whole.

use super::*;

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
