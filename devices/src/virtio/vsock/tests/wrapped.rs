//! Receive and event queues whose 16-bit indices go from 0xffff to 0, and
//! indirect tables in them.

use super::*;

/// Where indirect tables are, a line for each.
const TABLES: u64 = 0xe_0000;

fn exchange(guest: &mut Guest, client: &mut UnixStream, rounds: usize) {
    let ports = guest.accept(guest::PORT);
    for round in 0..rounds {
        let sent = [u8::try_from(round % 251).unwrap(); 100];
        client.write_all(&sent).unwrap();
        assert_eq!(guest.read(ports, sent.len()), sent);
        guest.send(ports, &sent);
        let mut reply = [0; 100];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(reply, sent);
    }
}

#[test]
fn packets_and_events_cross_the_wrap() {
    for position in [0xfffd, 0xfffe, 0xffff, 0] {
        let mut guest = Guest::start_at(position);
        let mut client = guest.client();
        guest.wait_for_connections(1);
        // The one buffer for the event: the next says that it was handled.
        guest.offer_event();
        guest.hear_of_reset();
        for slot in 0..8 {
            guest.offer(0x10_0000 + slot * u64::from(guest::RX_BYTES));
        }
        guest.driver.notify(0);
        assert!(!guest.has_packets(), "packet before the event was handled");
        guest.offer_event();
        exchange(&mut guest, &mut client, 40);
        assert!(
            guest.driver.queues[0].used_index() < 0x8000,
            "it has wrapped"
        );
        // Again, with the event queue behind its wrap. Who is still there says
        // nothing that a guest put back would find in its queue.
        let mut clients = vec![client];
        for _ in 0..4 {
            let moment = guest.save();
            guest.bring_back(&moment);
            guest.hear_of_reset();
            let mut client = guest.client();
            guest.offer_event();
            exchange(&mut guest, &mut client, 3);
            clients.push(client);
        }
    }
}

#[test]
fn receive_buffers_may_be_indirect_across_the_wrap() {
    let mut guest = Guest::start_at(0xfffc);
    for _ in 0..3 {
        guest.offer_event();
    }
    guest.hear_of_reset();
    guest.offer_event();
    for slot in 0..8 {
        let addr = 0x10_0000 + slot * u64::from(guest::RX_BYTES);
        guest.offer_indirect(TABLES + slot * 64, addr);
    }
    guest.driver.notify(0);
    let mut client = guest.client();
    exchange(&mut guest, &mut client, 20);
}

#[test]
fn events_may_be_indirect() {
    let mut guest = Guest::start_at(0xffff);
    let part = |addr| Buffer::Writable { addr, len: 2 };
    for slot in 0..4 {
        let at = 0xf_0000;
        guest.driver.queues[2].push_indirect(TABLES + slot * 64, &[part(at), part(at + 2)]);
    }
    guest.driver.notify(2);
    guest.hear_of_reset();
    guest.offer_event();
    guest.offer_all();
    let mut client = guest.client();
    exchange(&mut guest, &mut client, 2);
}

#[test]
fn receive_and_event_buffers_that_are_odd_need_a_reset() {
    type Way = fn(&mut Guest) -> u32;
    let ways: [Way; 4] = [
        |guest| {
            guest.driver.queues[0].set_descriptor(0, TABLES, 15, 4, 0);
            0
        },
        |guest| {
            guest.driver.queues[0].set_descriptor(0, 1 << 40, 4096, 2, 0);
            0
        },
        |guest| {
            guest.driver.queues[2].set_descriptor(0, TABLES, 17, 4, 0);
            2
        },
        // Readable: there is no place for the event.
        |guest| {
            guest.driver.queues[2].set_descriptor(0, 0xf_0000, 8, 0, 0);
            2
        },
    ];
    for way in ways {
        let mut guest = Guest::start_at(0xffff);
        let queue = way(&mut guest);
        guest.driver.queues[queue as usize].make_available(0);
        if queue == 0 {
            guest.offer_event();
            guest.hear_of_reset();
            guest.offer_event();
        }
        let _client = guest.client();
        guest.driver.notify(queue);
        let deadline = Instant::now() + PATIENCE;
        while guest.driver.status() & status::NEEDS_RESET == 0 {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
        guest.boot();
        let mut client = guest.client();
        exchange(&mut guest, &mut client, 2);
    }
}

#[test]
fn acknowledgement_that_no_guest_could_owe_is_refused() {
    let mut guest = Guest::start();
    for _ in 0..8 {
        guest.offer_event();
    }
    let moment = guest.save();
    guest.bring_back(&moment);
    guest.hear_of_reset();
    let told = guest.save();
    let state: VsockState = told.state.device.read().unwrap();
    let owed = state.reset_acknowledged_at.unwrap();
    // A guest that could never acknowledge would never get a packet.
    for index in [owed + 1, owed + 7, owed + 0x7ffe] {
        let mut bad = told.state.clone();
        bad.device = SavedState::of(&VsockState {
            reset_acknowledged_at: Some(index),
            ..state.clone()
        });
        guest.driver.device.pause();
        let outcome = guest.driver.device.reset_to(&bad);
        let refused = Err(RestoreError::Invalid("reset_acknowledged_at"));
        assert_eq!(outcome, refused, "{index}");
        guest.driver.device.resume();
    }
    // One from the past has been paid.
    for index in [owed, owed - 1, owed.wrapping_sub(0x7fff)] {
        let mut good = told.state.clone();
        good.device = SavedState::of(&VsockState {
            reset_acknowledged_at: Some(index),
            ..state.clone()
        });
        guest.driver.device.pause();
        assert_eq!(guest.driver.device.reset_to(&good), Ok(()), "{index}");
        guest.driver.device.resume();
    }
    guest.bring_back(&told);
    let mut client = guest.client();
    guest.offer_event();
    exchange(&mut guest, &mut client, 1);
}
