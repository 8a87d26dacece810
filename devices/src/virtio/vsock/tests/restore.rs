//! Guests that come back to an earlier moment.

use super::*;

/// Long enough for the loop's thread to have done what it would do.
const A_WHILE: Duration = Duration::from_millis(20);

/// A guest with eight event buffers on offer, as Linux has.
fn guest() -> Guest {
    let mut guest = Guest::start();
    for _ in 0..8 {
        guest.offer_event();
    }
    guest
}

fn echo(guest: &mut Guest, client: &mut UnixStream) -> (u32, u32) {
    let ports = guest.accept(guest::PORT);
    client.write_all(b"ping").unwrap();
    let data = guest.read(ports, 4);
    guest.send(ports, &data);
    let mut reply = [0; 4];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"ping");
    ports
}

#[test]
fn guest_put_back_is_through_with_the_reset_before_it_gets_a_packet() {
    let mut guest = guest();
    let mut client = guest.client();
    let old = echo(&mut guest, &mut client);
    let moment = guest.save();
    for _ in 0..20 {
        let mut other = guest.client();
        assert_ne!(echo(&mut guest, &mut other), old);
        guest.bring_back(&moment);
        assert_closed(&mut client);
        assert_closed(&mut other);
        guest.wait_for_connections(0);
        client = guest.client();
        guest.hear_of_reset();
        guest.wait_for_connections(1);
        std::thread::sleep(A_WHILE);
        assert!(!guest.has_packets(), "packet before the reset was handled");
        guest.offer_event();
        assert!(guest.driver.queues[2].wants_notification(8));
        assert_ne!(echo(&mut guest, &mut client), old);
    }
}

#[test]
fn reset_is_told_once_the_guest_offers_a_buffer_for_it() {
    let mut guest = Guest::start();
    let moment = guest.save();
    guest.bring_back(&moment);
    let mut client = guest.client();
    guest.wait_for_connections(1);
    std::thread::sleep(A_WHILE);
    assert!(!guest.has_packets());
    guest.offer_event();
    guest.hear_of_reset();
    assert!(!guest.has_packets());
    guest.offer_event();
    echo(&mut guest, &mut client);
}

#[test]
fn guest_without_event_queue_gets_its_packets() {
    let mut guest = Guest::not_ready();
    let (device, irq) = (guest.driver.device.clone(), guest.driver.irq.clone());
    guest.driver = Driver::start(&guest.ram, device, irq, 0x1_0000, &[64, 64]);
    guest.offer(0x10_0000);
    guest.driver.notify(0);
    let moment = guest.save();
    guest.bring_back(&moment);
    let mut client = guest.client();
    let ports = guest.accept(guest::PORT);
    client.write_all(b"x").unwrap();
    assert_eq!(guest.read(ports, 1), b"x");
}

#[test]
fn what_the_guest_still_sends_to_an_old_connection_meets_no_new_one() {
    let mut guest = guest();
    let mut client = guest.client();
    let old = echo(&mut guest, &mut client);
    let moment = guest.save();
    for _ in 0..3 {
        guest.bring_back(&moment);
        let mut client = guest.client();
        guest.wait_for_connections(1);
        guest.send_anyway(old, b"late");
        guest.hear_of_reset();
        guest.offer_event();
        let new = echo(&mut guest, &mut client);
        assert_ne!(old, new);
        // The late packet's answer.
        guest.wait("reset", |guest| guest.stray_resets > 0);
        guest.stray_resets = 0;
        guest.streams.clear();
        guest.streams.insert(old, guest::Stream::default());
    }
}

#[test]
fn guest_saved_before_it_acknowledged_is_not_told_twice() {
    let mut guest = guest();
    let moment = guest.save();
    guest.bring_back(&moment);
    guest.hear_of_reset();
    let moment = guest.save();
    let state: VsockState = moment.state.device.read().unwrap();
    assert_eq!(state.reset_acknowledged_at, Some(9));
    guest.bring_back(&moment);
    let mut client = guest.client();
    guest.wait_for_connections(1);
    std::thread::sleep(A_WHILE);
    assert!(!guest.has_packets());
    assert!(guest.driver.queues[2].poll().is_none());
    guest.offer_event();
    echo(&mut guest, &mut client);
}

#[test]
fn clients_that_wait_at_a_reset_are_turned_away() {
    let mut guest = guest();
    let moment = guest.save();
    guest.driver.device.pause();
    let mut waiting: Vec<UnixStream> = (0..20).map(|_| guest.client()).collect();
    let mut muxed = patient(UnixStream::connect(guest.mux()).unwrap());
    muxed.write_all(b"CONNECT 5\n").unwrap();
    guest.put_back(&moment);
    guest.driver.device.reset_to(&moment.state).unwrap();
    guest.driver.device.resume();
    for client in &mut waiting {
        assert_closed(client);
    }
    assert_closed(&mut muxed);
    guest.hear_of_reset();
    guest.offer_event();
    let mut client = guest.client();
    echo(&mut guest, &mut client);
}

#[test]
fn paused_device_leaves_ram_alone_and_catches_up() {
    let mut guest = guest();
    let mut client = guest.client();
    let ports = echo(&mut guest, &mut client);
    guest.driver.device.pause();
    let pulses = guest.driver.irq.pulses();
    client.write_all(b"later").unwrap();
    let mut second = guest.client();
    std::thread::sleep(A_WHILE);
    assert!(!guest.has_packets());
    assert_eq!(guest.driver.irq.pulses(), pulses);
    guest.driver.device.resume();
    assert_eq!(guest.read(ports, 5), b"later");
    echo(&mut guest, &mut second);
}

#[test]
fn hostile_states_are_refused() {
    let mut guest = guest();
    let moment = guest.save();
    let good = VsockState {
        guest_cid: CID,
        next_host_port: 1 << 30,
        reset_acknowledged_at: None,
        owed_resets: Vec::new(),
    };
    for bad in [
        VsockState {
            guest_cid: CID + 1,
            ..good.clone()
        },
        VsockState {
            next_host_port: 0,
            ..good.clone()
        },
        VsockState {
            next_host_port: u32::MAX,
            ..good.clone()
        },
        VsockState {
            owed_resets: vec![(1, 2); MAX_CONNECTIONS + 1],
            ..good
        },
    ] {
        let mut state = moment.state.clone();
        state.device = SavedState::of(&bad);
        assert!(guest.driver.device.reset_to(&state).is_err());
    }
    guest.bring_back(&moment);
    guest.hear_of_reset();
    guest.offer_event();
    let mut client = guest.client();
    echo(&mut guest, &mut client);
}

#[test]
fn call_that_the_guest_waits_for_is_ended_in_its_other_life() {
    const CALLED: guest::Ports = (7, 4000);
    let mut guest = guest();
    let host = UnixListener::bind(guest.dir.path().join("mux_7")).unwrap();
    // Answered, and the guest has not looked.
    guest.control(CALLED, op::REQUEST, 0);
    guest.wait_for_connections(1);
    let (mut first, _) = host.accept().unwrap();
    let moment = guest.save();
    assert!(guest.has_packets());
    for _ in 0..3 {
        guest.bring_back(&moment);
        assert_closed(&mut first);
        guest.hear_of_reset();
        guest.streams.insert(CALLED, guest::Stream::default());
        // Its end is owed still, and is in a state of this life as well.
        let again = guest.save();
        guest.bring_back(&again);
        guest.streams.insert(CALLED, guest::Stream::default());
        guest.offer_event();
        guest.wait("reset", |guest| guest.streams[&CALLED].reset);
        // What it got was the answer first, and the end then.
        assert_ne!(guest.streams[&CALLED].peer_buf_alloc, 0);
        let state: VsockState = guest.save().state.device.read().unwrap();
        assert_eq!(state.owed_resets, []);
    }
    // A word of the guest says that it has the answer.
    assert!(guest.connect(CALLED));
    let state: VsockState = guest.save().state.device.read().unwrap();
    assert_eq!(state.owed_resets, [CALLED]);
    guest.send(CALLED, b"hello");
    let state: VsockState = guest.save().state.device.read().unwrap();
    assert_eq!(state.owed_resets, []);
}
