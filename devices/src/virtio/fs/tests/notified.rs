//! The queue in which the guest is told what the host changes.

use super::*;
use crate::virtio::fs::wire::NOTIFY_CHANGED;

/// Which queues there are with the feature.
const NOTES: usize = 1;
const REQUESTS: usize = 2;
const ROOM: u64 = 0xa_0000;

fn device(place: &tempfile::TempDir, edits: HostEdits) -> Fs {
    let directory = File::open(place.path()).unwrap();
    let config = FsConfig {
        edits,
        ..FsConfig::new("share")
    };
    Fs::new(directory.into(), config).unwrap()
}

fn guest(edits: HostEdits) -> Guest {
    let place = tempfile::tempdir().unwrap();
    let ram = guest_ram(8 << 20);
    let irq = Arc::new(CountingIrq::default());
    let transport = VirtioMmio::new(ram.clone(), irq.clone(), Box::new(device(&place, edits)));
    let driver = Driver::start(&ram, Arc::new(transport), irq, RINGS, &[64, 32, 64]);
    let mut guest = Guest { ram, driver, place };
    guest.initialise();
    guest
}

impl Guest {
    fn initialise(&mut self) {
        let mut request = Body::default();
        let header = request.u32(56).u32(opcode::INIT).u64(9).u64(0);
        header.u64(0).u64(0).u32(7).u32(38).u32(0).u32(0);
        self.push(REQUESTS as u32, &request.0, 4096);
        self.driver.wait_used(REQUESTS);
    }

    /// Gives room for one message.
    fn give(&mut self, len: u32) {
        self.driver.queues[NOTES].push(&[
            Buffer::Writable { addr: ROOM, len: 9 },
            Buffer::Writable {
                addr: ROOM + 9,
                len: len - 9,
            },
        ]);
        self.driver.notify(NOTES as u32);
    }

    /// Mask and name of the next message.
    fn told(&mut self) -> (u32, String) {
        let (_, length) = self.driver.wait_used(NOTES);
        let mut message = vec![0; length as usize];
        self.ram
            .read_slice(&mut message, GuestAddress(ROOM))
            .unwrap();
        let mut fields = Fields(&message);
        assert_eq!(fields.u32().unwrap(), length);
        assert_eq!(fields.u32().unwrap(), NOTIFY_CHANGED);
        fields.skip(24).unwrap();
        let mask = fields.u32().unwrap();
        fields.skip(12).unwrap();
        (mask, String::from_utf8_lossy(fields.0).into_owned())
    }
}

#[test]
fn feature_adds_a_queue_and_says_how_large_its_buffers_are() {
    let place = tempfile::tempdir().unwrap();
    for (edits, queues, bytes) in [
        (HostEdits::Unknown, 2, 0),
        (HostEdits::Untold, 3, NOTIFICATION_BYTES),
        (HostEdits::Told, 3, NOTIFICATION_BYTES),
    ] {
        let fs = device(&place, edits);
        assert_eq!(VirtioDevice::<Ram>::queue_max_sizes(&fs).len(), queues);
        let offered = VirtioDevice::<Ram>::features(&fs) & F_NOTIFICATION != 0;
        assert_eq!(offered, edits != HostEdits::Unknown);
        let mut field = [0; 4];
        VirtioDevice::<Ram>::read_config(&fs, 40, &mut field);
        assert_eq!(u32::from_le_bytes(field), bytes);
    }
}

#[test]
fn host_s_edits_come_one_by_one_as_there_is_room() {
    let mut guest = guest(HostEdits::Told);
    std::fs::write(guest.place.path().join("a"), "").unwrap();
    std::fs::remove_file(guest.place.path().join("a")).unwrap();
    guest.give(304);
    assert_eq!(guest.told(), (0x100, "a".into()));
    guest.give(304);
    let mut next = guest.told();
    // It was not gone yet when its content was told of.
    while next.0 != 0x200 {
        assert!([0x2, 0x8].contains(&next.0), "{next:?}");
        guest.give(304);
        next = guest.told();
    }
    assert_eq!(next.1, "a");
    // Requests are answered in the meantime.
    guest.push(REQUESTS as u32, &look_up(c"a"), 4096);
    assert!(guest.driver.wait_used(REQUESTS).1 > 0);
}

#[test]
fn more_than_waits_is_told_of_as_a_loss() {
    let mut guest = guest(HostEdits::Told);
    for n in 0..6000 {
        std::fs::write(guest.place.path().join(n.to_string()), "").unwrap();
    }
    // Most of it is heard by then, and none of it could be told.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let mut told = Vec::new();
    while told.last().is_none_or(|(mask, _)| *mask != 0x4000) {
        assert!(told.len() < 20_000);
        guest.give(304);
        told.push(guest.told());
    }
}

#[test]
fn paused_device_says_nothing_until_it_goes_on() {
    let mut guest = guest(HostEdits::Told);
    guest.give(304);
    guest.driver.device.pause();
    std::fs::write(guest.place.path().join("a"), "").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(guest.driver.queues[NOTES].used_index(), 0);
    let state = guest.driver.device.state();
    guest.driver.device.reset_to(&state).unwrap();
    guest.driver.device.resume();
    assert_eq!(guest.told().1, "a");
}

#[test]
fn room_that_is_too_short_or_not_in_memory_is_the_driver_s_mistake() {
    let mut guest = guest(HostEdits::Told);
    guest.give(20);
    std::fs::write(guest.place.path().join("a"), "").unwrap();
    assert_eq!(guest.driver.wait_used(NOTES).1, 20);
    guest.driver.queues[NOTES].push(&[Buffer::Writable {
        addr: 1 << 40,
        len: 304,
    }]);
    guest.driver.notify(NOTES as u32);
    std::fs::write(guest.place.path().join("b"), "").unwrap();
    let begun = std::time::Instant::now();
    while guest.driver.read(0x070) & status::NEEDS_RESET == 0 {
        assert!(begun.elapsed().as_secs() < 60);
        std::thread::yield_now();
    }
}

#[test]
fn untold_guest_has_the_queue_and_hears_nothing() {
    let mut guest = guest(HostEdits::Untold);
    guest.give(304);
    std::fs::write(guest.place.path().join("a"), "").unwrap();
    guest.push(REQUESTS as u32, &look_up(c"a"), 4096);
    assert!(guest.driver.wait_used(REQUESTS).1 > 0);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(guest.driver.queues[NOTES].used_index(), 0);
}

#[test]
fn driver_without_the_feature_has_its_requests_in_that_queue() {
    let place = tempfile::tempdir().unwrap();
    let ram = guest_ram(8 << 20);
    let irq = Arc::new(CountingIrq::default());
    let device = Box::new(device(&place, HostEdits::Told));
    let transport = Arc::new(VirtioMmio::new(ram.clone(), irq.clone(), device));
    let driver = Driver::start_without(&ram, transport, irq, RINGS, &[64, 64], F_NOTIFICATION);
    let mut guest = Guest { ram, driver, place };
    assert_eq!(guest.node(c"none"), 0);
    std::fs::write(guest.place.path().join("a"), "").unwrap();
    assert!(guest.node(c"a") > ROOT);
}
