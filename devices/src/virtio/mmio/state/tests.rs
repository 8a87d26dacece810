use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::GuestRam;
use crate::legacy::{pl011::Pl011State, pl031::Pl031State};
use crate::testing::{Buffer, CountingIrq, Driver, DriverQueue, guest_ram};
use crate::virtio::balloon::BalloonState;
use crate::virtio::blk::BlkState;
use crate::virtio::mem::MemState;
use crate::virtio::rng::{Rng, RngState};
use crate::virtio::vsock::VsockState;
use crate::virtio::{DeviceState, StateFormat};

const RAM_BYTES: usize = 1 << 20;
const RINGS: u64 = 0x1_0000;
const DATA: u64 = 0x8_0000;

fn rng() -> (GuestRam, Driver) {
    let ram = guest_ram(RAM_BYTES);
    let irq = Arc::new(CountingIrq::default());
    let rng = Rng::new(Box::new(std::io::repeat(3)));
    let device = VirtioMmio::new(ram.clone(), irq.clone(), Box::new(rng));
    let driver = Driver {
        device: Arc::new(device),
        irq,
        queues: Vec::new(),
    };
    (ram, driver)
}

fn started() -> (GuestRam, Driver) {
    let (ram, driver) = rng();
    let driver = Driver::start(&ram, driver.device, driver.irq, RINGS, &[8]);
    (ram, driver)
}

fn request(driver: &mut Driver) {
    driver.queues[0].push(&[Buffer::Writable { addr: DATA, len: 4 }]);
    driver.notify(0);
    assert_eq!(driver.wait_used(0).1, 4);
}

/// A moment of a machine with one device.
struct Moment {
    state: MmioState,
    ram: Vec<u8>,
    queues: Vec<DriverQueue>,
}

impl Moment {
    fn of(ram: &GuestRam, driver: &Driver) -> Self {
        driver.device.pause();
        let mut bytes = vec![0; RAM_BYTES];
        ram.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        let state = driver.device.state();
        driver.device.resume();
        Self {
            state,
            ram: bytes,
            queues: driver.queues.clone(),
        }
    }

    fn bring_back(&self, ram: &GuestRam, driver: &mut Driver) {
        driver.device.pause();
        ram.write_slice(&self.ram, GuestAddress(0)).unwrap();
        driver.device.reset_to(&self.state).unwrap();
        driver.queues.clone_from(&self.queues);
        driver.device.resume();
    }
}

#[test]
fn device_that_goes_back_in_a_pause_leaves_memory_alone_until_its_end() {
    let (ram, mut driver) = started();
    // A request that the device has not heard of.
    driver.queues[0].push(&[Buffer::Writable { addr: DATA, len: 4 }]);
    driver.device.pause();
    let state = driver.device.state();
    let mut before = vec![0; RAM_BYTES];
    ram.read_slice(&mut before, GuestAddress(0)).unwrap();
    driver.device.reset_to(&state).unwrap();
    driver.notify(0);
    let mut after = vec![0; RAM_BYTES];
    ram.read_slice(&mut after, GuestAddress(0)).unwrap();
    assert!(after == before, "the paused device wrote to memory");
    driver.device.resume();
    assert_eq!(driver.wait_used(0).1, 4);
}

#[test]
fn ring_positions_that_no_device_was_saved_with_are_refused() {
    let (_ram, mut driver) = started();
    request(&mut driver);
    let good = driver.device.state();
    for change in [
        (|s| s.queues[0].next_avail = 0) as fn(&mut MmioState),
        |s| s.queues[0].next_used = 0,
        |s| s.queues[0].next_used = u16::MAX,
        |s| s.queues[0].next_avail = 9,
        |s| s.active = false,
        |s| s.queues[0].ready = false,
    ] {
        let mut bad = good.clone();
        change(&mut bad);
        let refused = driver.device.reset_to(&bad);
        assert_eq!(refused, Err(RestoreError::Invalid("ring positions")));
        assert_eq!(driver.device.state(), good);
    }
    // A device that gave up may have one in hand.
    let mut given_up = good;
    given_up.needs_reset = true;
    given_up.queues[0].next_avail += 1;
    driver.device.reset_to(&given_up).unwrap();
}

#[test]
fn rings_that_disagree_with_saved_positions_end_in_a_reset() {
    let (_ram, mut driver) = started();
    request(&mut driver);
    let good = driver.device.state();
    // Positions that agree with each other, far from the driver's.
    for position in [0x8001, 2, 1_u16.wrapping_sub(9)] {
        let mut other = good.clone();
        other.queues[0].next_avail = position;
        other.queues[0].next_used = position;
        driver.device.reset_to(&other).unwrap();
        assert_ne!(driver.status() & status::NEEDS_RESET, 0, "{position:#x}");
        driver.device.reset_to(&good).unwrap();
        request(&mut driver);
        driver.device.reset_to(&good).unwrap();
        driver.queues[0].set_position(1);
    }
}

#[test]
fn device_in_use_goes_back_to_a_saved_state_again_and_again() {
    let (ram, mut driver) = started();
    for _ in 0..5 {
        request(&mut driver);
    }
    let moment = Moment::of(&ram, &driver);
    for round in 0..40 {
        for _ in 0..round {
            request(&mut driver);
        }
        moment.bring_back(&ram, &mut driver);
        assert_eq!(driver.device.state(), moment.state);
        request(&mut driver);
        assert_eq!(driver.device.state().queues[0].next_used, 6);
    }
}

#[test]
fn device_that_gave_up_or_was_reset_by_its_driver_goes_back_too() {
    let (ram, mut driver) = started();
    request(&mut driver);
    let moment = Moment::of(&ram, &driver);
    driver.queues[0].make_available(8);
    driver.notify(0);
    assert!(driver.device.state().needs_reset);
    moment.bring_back(&ram, &mut driver);
    assert_eq!(driver.device.state(), moment.state);
    request(&mut driver);
    driver.write(0x070, 0);
    moment.bring_back(&ram, &mut driver);
    request(&mut driver);
}

#[test]
fn started_device_goes_back_to_before_its_driver() {
    let (ram, driver) = rng();
    let before = driver.device.state();
    let driver = Driver::start(&ram, driver.device, driver.irq, RINGS, &[8]);
    assert!(driver.device.state().active);
    driver.device.reset_to(&before).unwrap();
    assert_eq!(driver.device.state(), before);
    let mut driver = Driver::start(&ram, driver.device, driver.irq, RINGS, &[8]);
    request(&mut driver);
}

#[test]
fn state_that_fails_the_checks_changes_nothing() {
    let (_ram, mut driver) = started();
    request(&mut driver);
    let good = driver.device.state();
    for change in [
        (|s| s.device_id = 2) as fn(&mut MmioState),
        |s| s.status = status::DRIVER_OK,
        |s| s.queues[0].size = 3,
        |s| s.interrupt_status = 4,
        |s| s.driver_features = u64::MAX,
        |s| s.queues.clear(),
    ] {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(driver.device.reset_to(&bad).is_err());
        assert_eq!(driver.device.state(), good);
    }
    request(&mut driver);
}

#[test]
fn state_of_another_kind_or_version_changes_nothing() {
    let (_ram, mut driver) = started();
    request(&mut driver);
    let good = driver.device.state();
    let blk = BlkState {
        capacity_sectors: 1,
        read_only: true,
    };
    let mut bad = good.clone();
    bad.device = SavedState::of(&blk);
    let wrong = driver.device.reset_to(&bad);
    let expected = "rng";
    let found = "blk".to_owned();
    assert_eq!(wrong, Err(RestoreError::WrongKind { expected, found }));
    bad.device = good.device.clone();
    bad.device.version += 1;
    let wrong = driver.device.reset_to(&bad);
    assert!(
        matches!(wrong, Err(RestoreError::WrongVersion { found: 2, .. })),
        "{wrong:?}"
    );
    assert_eq!(driver.device.state(), good);
    request(&mut driver);
}

#[test]
fn state_that_the_device_refuses_leaves_it_reset() {
    let (_ram, driver) = started();
    for change in [
        (|s| s.queues[0].used_ring = 1 << 40) as fn(&mut MmioState),
        |s| s.device.bytes.push(0),
    ] {
        let mut bad = driver.device.state();
        change(&mut bad);
        assert!(driver.device.reset_to(&bad).is_err());
        let after = driver.device.state();
        assert_eq!((after.status, after.active), (0, false));
    }
}

/// What it says is read back, and nothing shorter or longer is.
fn survives<S: DeviceState + PartialEq + std::fmt::Debug>(state: &S) {
    let bytes = state.to_bytes();
    assert_eq!(S::from_bytes(&bytes).as_ref(), Some(state));
    for cut in 0..bytes.len() {
        let short = S::from_bytes(&bytes[..cut]);
        assert_ne!(short.as_ref(), Some(state), "{:?}", S::FORMAT);
    }
    let long = [bytes, vec![0]].concat();
    assert_eq!(S::from_bytes(&long), None, "{:?}", S::FORMAT);
}

#[test]
fn every_device_reads_what_it_saved_and_nothing_else() {
    survives(&RngState {});
    survives(&BlkState {
        capacity_sectors: u64::MAX,
        read_only: true,
    });
    for reset_acknowledged_at in [None, Some(0), Some(u16::MAX)] {
        survives(&VsockState {
            guest_cid: 3,
            next_host_port: 1 << 31,
            reset_acknowledged_at,
            owed_resets: vec![(1027, 4000), (u32::MAX, 0)],
        });
    }
    survives(&BalloonState {
        target_pages: 1,
        actual_pages: u32::MAX,
    });
    survives(&MemState {
        address: 1 << 32,
        region_bytes: 1 << 27,
        requested_bytes: 0,
        plugged: vec![u64::MAX],
    });
}

#[test]
fn kinds_of_states_are_apart() {
    let formats: [StateFormat; 7] = [
        RngState::FORMAT,
        BlkState::FORMAT,
        VsockState::FORMAT,
        BalloonState::FORMAT,
        MemState::FORMAT,
        Pl011State::FORMAT,
        Pl031State::FORMAT,
    ];
    let mut kinds = formats.map(|format| format.kind).to_vec();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), formats.len());
}

#[test]
fn saved_states_survive_their_encoding() {
    let (_ram, driver) = started();
    let state = driver.device.state();
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<MmioState>(&text).unwrap(), state);
}

#[test]
fn legacy_devices_read_what_they_saved() {
    let uart = Pl011State {
        input: vec![1, 2, 3],
        ..Pl011State::default()
    };
    let bytes = uart.to_bytes();
    assert_eq!(Pl011State::from_bytes(&bytes), Some(uart));
    assert_eq!(Pl011State::from_bytes(&bytes[..35]), None);
    survives(&Pl031State {
        offset_seconds: -1,
        match_value: 7,
        ..Pl031State::default()
    });
}
