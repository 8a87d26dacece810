use std::sync::atomic::AtomicUsize;

use virtio_queue::QueueState;
use vm_memory::Bytes;

use super::*;
use crate::GuestRam;
use crate::testing::{Buffer, CountingIrq, Driver, DriverQueue, guest_ram};
use crate::virtio::rng::Rng;
use crate::virtio::{RestoreError, SavedState, StateFormat};

mod observed;
mod shared;

const RINGS: u64 = 0x1_0000;
const ALL: u32 = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;

/// What the probe's states are called: none of this crate's devices.
const PROBE: StateFormat = StateFormat {
    kind: "probe",
    version: 1,
};

/// A device that records what the transport does to it.
#[derive(Default)]
struct Probe {
    active: Mutex<Option<Activation>>,
    activations: AtomicUsize,
    resets: AtomicUsize,
    notifications: Mutex<Vec<u16>>,
    config: Mutex<[u8; 8]>,
}

struct Shared(Arc<Probe>);

impl VirtioDevice for Shared {
    fn device_id(&self) -> u32 {
        4
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &[16, 8]
    }
    fn features(&self) -> u64 {
        F_VERSION_1 | F_RING_EVENT_IDX | 0b101
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.0.config.lock().unwrap();
        crate::virtio::read_config_space(&*config, offset, data);
    }
    fn write_config(&self, offset: u64, data: &[u8]) {
        let mut config = self.0.config.lock().unwrap();
        let at = usize::try_from(offset).unwrap();
        if let Some(field) = config.get_mut(at..at + data.len()) {
            field.copy_from_slice(data);
        }
    }
    fn activate(&self, activation: Activation) -> Result<(), ActivateError> {
        self.0.activations.fetch_add(1, Ordering::SeqCst);
        *self.0.active.lock().unwrap() = Some(activation);
        Ok(())
    }
    fn reset(&self) -> Vec<Queue> {
        self.0.resets.fetch_add(1, Ordering::SeqCst);
        let active = self.0.active.lock().unwrap().take();
        active.map_or(Vec::new(), |a| a.queues)
    }
    fn notify(&self, queue: u16) {
        self.0.notifications.lock().unwrap().push(queue);
    }
    fn queue_states(&self) -> Vec<QueueState> {
        let active = self.0.active.lock().unwrap();
        let queues = active.iter().flat_map(|a| &a.queues);
        queues.map(Queue::state).collect()
    }
    fn state_format(&self) -> StateFormat {
        PROBE
    }
    fn state(&self) -> SavedState {
        SavedState {
            kind: PROBE.kind.into(),
            version: PROBE.version,
            bytes: b"probe".to_vec(),
        }
    }
    fn restore(&self, state: &SavedState) -> Result<(), RestoreError> {
        assert_eq!(*state, self.state());
        Ok(())
    }
    fn shared_memory(&self, id: u8) -> Option<SharedMemory> {
        (id == 3).then_some(SharedMemory {
            address: 0x8_1234_0000,
            bytes: 0x2_0000_4000,
        })
    }
}

/// The probe behind a transport, with a driver that has done nothing yet.
fn probe() -> (Arc<Probe>, GuestRam, Driver) {
    let ram = guest_ram(1 << 20);
    let probe = Arc::new(Probe::default());
    let irq = Arc::new(CountingIrq::default());
    let device = Box::new(Shared(probe.clone()));
    let driver = Driver {
        device: Arc::new(VirtioMmio::new(ram.clone(), irq.clone(), device)),
        irq,
        queues: Vec::new(),
    };
    (probe, ram, driver)
}

/// The same, with both queues in use.
fn started() -> (Arc<Probe>, GuestRam, Driver) {
    let (probe, ram, driver) = probe();
    let driver = Driver::start(&ram, driver.device, driver.irq, RINGS, &[16, 8]);
    assert_eq!(driver.status(), ALL);
    (probe, ram, driver)
}

/// Sizes and addresses of the queues the device was given.
fn given(probe: &Probe) -> Vec<QueueState> {
    let active = probe.active.lock().unwrap();
    active
        .iter()
        .flat_map(|a| &a.queues)
        .map(Queue::state)
        .collect()
}

#[test]
fn identity_registers_read_as_specified() {
    let (_probe, _ram, driver) = probe();
    assert_eq!(driver.read(0x000), 0x7472_6976);
    assert_eq!(driver.read(0x004), 2);
    assert_eq!(driver.read(0x008), 4);
    assert_eq!(driver.offered(), F_VERSION_1 | F_RING_EVENT_IDX | 5);
    driver.write(0x014, 2);
    assert_eq!(driver.read(0x010), 0);
    for (queue, max) in [(0, 16), (1, 8), (2, 0), (u32::MAX, 0)] {
        driver.write(0x030, queue);
        assert_eq!(driver.read(0x034), max);
    }
    // No shared memory regions.
    assert_eq!(driver.read(0x0b0), u32::MAX);
    assert_eq!(driver.read(0x0bc), u32::MAX);
}

#[test]
fn odd_register_accesses_do_nothing() {
    let (_probe, _ram, driver) = probe();
    for (offset, len) in [(0, 1), (0, 2), (0, 8), (2, 4), (0x0fe, 4), (0x100, 3)] {
        let mut data = vec![0xff; len];
        driver.device.read(offset, &mut data);
        assert_eq!(data, vec![0; len]);
    }
    driver.device.write(0x070, &[1]);
    driver.device.write(0x070, &[1, 0, 0, 0, 0, 0, 0, 0]);
    driver.device.write(0x072, &[1, 0, 0, 0]);
    assert_eq!(driver.status(), 0);
}

#[test]
fn status_bits_come_in_order_and_stay() {
    let (_probe, _ram, driver) = probe();
    driver.write(0x070, status::DRIVER);
    driver.write(0x070, status::FEATURES_OK);
    driver.write(0x070, status::DRIVER_OK);
    assert_eq!(driver.status(), 0);
    driver.write(0x070, status::ACKNOWLEDGE);
    driver.write(0x070, status::ACKNOWLEDGE | status::DRIVER_OK);
    assert_eq!(driver.status(), status::ACKNOWLEDGE);
    driver.set_status(status::DRIVER);
    // Taking one back is not possible.
    driver.write(0x070, status::DRIVER);
    assert_eq!(driver.status(), status::ACKNOWLEDGE | status::DRIVER);
    driver.set_status(status::FAILED);
    let failed = driver.status();
    driver.set_status(status::FEATURES_OK);
    assert_eq!(driver.status(), failed);
    driver.write(0x070, 0);
    assert_eq!(driver.status(), 0);
}

#[test]
fn bad_feature_sets_are_refused() {
    let (_probe, _ram, driver) = probe();
    for bad in [0, 1, F_VERSION_1 | 2, F_VERSION_1 | 1 << 63, u64::MAX] {
        driver.write(0x070, 0);
        driver.set_status(status::ACKNOWLEDGE);
        driver.set_status(status::DRIVER);
        driver.choose(bad);
        driver.set_status(status::FEATURES_OK);
        assert_eq!(driver.status() & status::FEATURES_OK, 0, "{bad:#x}");
    }
    // The driver may choose again without a reset.
    driver.choose(F_VERSION_1);
    driver.set_status(status::FEATURES_OK);
    assert_ne!(driver.status() & status::FEATURES_OK, 0);
}

#[test]
fn features_are_fixed_outside_negotiation() {
    let (probe, _ram, driver) = probe();
    driver.choose(F_VERSION_1 | 1);
    driver.negotiate(1 | 4);
    // Before DRIVER nothing was taken, and after FEATURES_OK nothing is.
    driver.choose(F_VERSION_1 | 5);
    driver.set_status(status::DRIVER_OK);
    driver.choose(0);
    let features = probe.active.lock().unwrap().as_ref().unwrap().features;
    assert_eq!(features, F_VERSION_1 | F_RING_EVENT_IDX);
    assert_eq!(driver.device.state().driver_features, features);
}

#[test]
fn queues_are_fixed_outside_their_phase() {
    let (probe, ram, driver) = probe();
    // Before FEATURES_OK.
    driver.write(0x070, status::ACKNOWLEDGE);
    driver.set_status(status::DRIVER);
    driver.write(0x038, 4);
    driver.write(0x044, 1);
    assert_eq!(driver.read(0x044), 0);
    let before = driver.device.state().queues;
    driver.negotiate(0);
    assert_eq!(driver.device.state().queues, before);
    // While ready.
    let queue = DriverQueue::new(ram, RINGS, 16);
    driver.set_up_queue(0, &queue);
    let ready = driver.device.state().queues;
    scribble(&driver);
    assert_eq!(driver.device.state().queues[0], ready[0]);
    // Taken back, it can be changed again.
    driver.write(0x030, 0);
    driver.write(0x044, 0);
    driver.write(0x038, 8);
    assert_eq!(driver.device.state().queues[0].size, 8);
    assert!(given(&probe).is_empty());
}

/// Writes every queue register of every queue, and readiness.
fn scribble(driver: &Driver) {
    for queue in 0..3 {
        driver.write(0x030, queue);
        for offset in [0x038, 0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4] {
            driver.write(offset, 0x40);
        }
    }
}

/// What CVE-2026-5747 was: the size changed under a running device.
#[test]
fn nothing_about_a_queue_changes_after_activation() {
    let (probe, _ram, driver) = started();
    let (queues, state) = (given(&probe), driver.device.state());
    scribble(&driver);
    for queue in 0..3 {
        driver.write(0x030, queue);
        driver.write(0x044, 0);
        driver.write(0x044, 1);
    }
    driver.choose(u64::MAX);
    driver.write(0x070, ALL & !status::DRIVER_OK);
    driver.write(0x070, ALL);
    assert_eq!(given(&probe), queues);
    let mut after = driver.device.state();
    // Selectors select; nothing else moved.
    after.queue_sel = state.queue_sel;
    after.driver_features_sel = state.driver_features_sel;
    assert_eq!(after, state);
    assert_eq!(probe.activations.load(Ordering::SeqCst), 1);
}

#[test]
fn unusable_queues_do_not_get_ready() {
    let (_probe, _ram, driver) = probe();
    for (size, table, avail, used) in [
        (0, 0x1000, 0x2000, 0x3000),
        (3, 0x1000, 0x2000, 0x3000),
        (32, 0x1000, 0x2000, 0x3000),
        (0x1_0010, 0x1000, 0x2000, 0x3000),
        (16, 0x1008, 0x2000, 0x3000),
        (16, 0x1000, 0x2001, 0x3000),
        (16, 0x1000, 0x2000, 0x3002),
    ] {
        driver.negotiate(0);
        driver.write(0x030, 0);
        driver.write(0x038, size);
        driver.write(0x080, table);
        driver.write(0x090, avail);
        driver.write(0x0a0, used);
        driver.write(0x044, 1);
        assert_eq!(driver.read(0x044), 0, "size {size} table {table:#x}");
    }
    driver.write(0x044, 2);
    assert_eq!(driver.read(0x044), 0);
}

#[test]
fn rings_outside_ram_need_a_reset() {
    for (register, value) in [
        (0x080, 0x0f_ff80),
        (0x084, 1),
        (0x090, 0x0f_fff0),
        (0x094, u32::MAX),
        (0x0a0, 0x0f_fffc),
        (0x0a4, u32::MAX),
    ] {
        let (probe, ram, driver) = probe();
        driver.negotiate(0);
        let queue = DriverQueue::new(ram, RINGS, 16);
        driver.set_up_queue(0, &queue);
        driver.write(0x044, 0);
        driver.write(register, value);
        driver.write(0x044, 1);
        driver.set_status(status::DRIVER_OK);
        assert_eq!(driver.status(), ALL | status::NEEDS_RESET);
        assert_eq!(driver.irq.pulses(), 1);
        assert_eq!(driver.acknowledge(), INT_CONFIG);
        assert_eq!(probe.activations.load(Ordering::SeqCst), 0);
        driver.notify(0);
        assert!(probe.notifications.lock().unwrap().is_empty());
    }
}

#[test]
fn rings_up_to_the_last_byte_of_ram_are_fine() {
    let (probe, ram, driver) = probe();
    driver.negotiate(0);
    driver.set_up_queue(0, &DriverQueue::new(ram, RINGS, 16));
    driver.write(0x044, 0);
    driver.write(0x0a0, 0x10_0000 - (6 + 8 * 16) - 2);
    driver.write(0x044, 1);
    driver.set_status(status::DRIVER_OK);
    assert_eq!(driver.status(), ALL);
    assert_eq!(probe.activations.load(Ordering::SeqCst), 1);
}

#[test]
fn notifications_reach_ready_queues_only() {
    let (probe, ram, driver) = probe();
    driver.notify(0);
    driver.negotiate(0);
    driver.set_up_queue(1, &DriverQueue::new(ram, RINGS, 8));
    driver.notify(1);
    driver.set_status(status::DRIVER_OK);
    for queue in [0, 1, 2, 0x1_0001, u32::MAX] {
        driver.notify(queue);
    }
    assert_eq!(*probe.notifications.lock().unwrap(), [1]);
    let active = probe.active.lock().unwrap();
    active
        .as_ref()
        .unwrap()
        .irq
        .needs_reset(&QueueError::BrokenChain);
    driver.notify(1);
    assert_eq!(probe.notifications.lock().unwrap().len(), 1);
}

#[test]
fn interrupts_pulse_once_until_acknowledged() {
    let (probe, _ram, driver) = started();
    let irq = probe.active.lock().unwrap().as_ref().unwrap().irq.clone();
    irq.used_buffers(0);
    irq.used_buffers(1);
    assert_eq!((driver.irq.pulses(), driver.read(0x060)), (1, INT_USED));
    let generation = driver.read(0x0fc);
    irq.config_changed();
    assert_eq!(driver.irq.pulses(), 2);
    assert_ne!(driver.read(0x0fc), generation);
    driver.write(0x064, INT_USED);
    assert_eq!(driver.read(0x060), INT_CONFIG);
    irq.used_buffers(0);
    assert_eq!(driver.irq.pulses(), 3);
    irq.needs_reset(&QueueError::BrokenChain);
    irq.needs_reset(&QueueError::BrokenChain);
    assert_eq!(driver.status(), ALL | status::NEEDS_RESET);
    assert_eq!(driver.irq.pulses(), 3);
    assert!(!driver.irq.level() && driver.irq.level_calls() == 0);
}

#[test]
fn reset_forgets_everything() {
    let (probe, _ram, driver) = started();
    let irq = probe.active.lock().unwrap().as_ref().unwrap().irq.clone();
    irq.used_buffers(0);
    irq.needs_reset(&QueueError::BrokenChain);
    let before = probe.resets.load(Ordering::SeqCst);
    driver.write(0x070, 0);
    assert_eq!((driver.status(), driver.read(0x060)), (0, 0));
    driver.write(0x030, 0);
    assert_eq!(driver.read(0x044), 0);
    assert_eq!(probe.resets.load(Ordering::SeqCst), before + 1);
    assert!(probe.active.lock().unwrap().is_none());
    let state = driver.device.state();
    assert_eq!((state.driver_features, state.active), (0, false));
    driver.notify(0);
    assert!(probe.notifications.lock().unwrap().is_empty());
}

#[test]
fn configuration_takes_every_width() {
    let (_probe, _ram, driver) = probe();
    driver.device.write(0x100, &[9; 8]);
    let mut data = [0; 8];
    driver.device.read(0x100, &mut data);
    assert_eq!(data, [0; 8], "no driver, no writes");
    driver.negotiate(0);
    driver.device.write(0x100, &[1, 2, 3, 4, 5, 6, 7, 8]);
    driver.device.write(0x102, &[0x33]);
    driver.device.write(0x104, &[0x55, 0x66]);
    driver.device.read(0x100, &mut data);
    assert_eq!(data, [1, 2, 0x33, 4, 0x55, 0x66, 7, 8]);
    let mut word = [0xff; 4];
    driver.device.read(0x106, &mut word);
    assert_eq!(word, [7, 8, 0, 0], "past the end reads zero");
    driver.device.read(0x1fc, &mut word);
    assert_eq!(word, [0; 4]);
}

fn rng(ram: &GuestRam, irq: &Arc<CountingIrq>) -> VirtioMmio {
    let rng = Rng::new(Box::new(std::io::repeat(3)));
    VirtioMmio::new(ram.clone(), irq.clone(), Box::new(rng))
}

#[test]
fn saved_transport_continues_where_it_was() {
    let ram = guest_ram(1 << 20);
    let irq = Arc::new(CountingIrq::default());
    let device = Arc::new(rng(&ram, &irq));
    let mut driver = Driver::start(&ram, device, irq.clone(), RINGS, &[8]);
    let buffer = [Buffer::Writable {
        addr: 0x8_0000,
        len: 4,
    }];
    for _ in 0..11 {
        driver.queues[0].push(&buffer);
        driver.notify(0);
        driver.wait_used(0);
    }
    // One request that the old device never hears of.
    driver.queues[0].push(&buffer);
    let state = driver.device.state();
    assert_eq!(state.queues[0].next_used, 11);
    driver.device = Arc::new(rng(&ram, &irq));
    driver.device.restore(&state).unwrap();
    assert_eq!(driver.wait_used(0).1, 4);
    driver.queues[0].push(&buffer);
    driver.notify(0);
    assert_eq!(driver.wait_used(0).1, 4);
    assert_eq!(driver.device.restore(&state), Err(RestoreError::Active));
}

#[test]
fn hostile_saved_states_are_refused() {
    let (_probe, ram, driver) = started();
    let good = driver.device.state();
    type Change = fn(&mut MmioState);
    let changes: [(&str, Change); 14] = [
        ("device id", |s| s.device_id = 2),
        ("status hole", |s| s.status = status::DRIVER_OK),
        ("unknown status", |s| s.status = ALL | 16),
        ("needs reset in status", |s| s.status = ALL | 64),
        ("active early", |s| s.status = ALL & !status::DRIVER_OK),
        ("features", |s| s.driver_features = u64::MAX),
        ("no version", |s| s.driver_features = 0),
        ("interrupt", |s| s.interrupt_status = 4),
        ("queue count", |s| s.queues.truncate(1)),
        ("queue size", |s| s.queues[0].size = 32),
        ("queue size 0", |s| s.queues[1].size = 0),
        ("alignment", |s| s.queues[0].desc_table += 8),
        ("outside", |s| s.queues[0].used_ring = 1 << 40),
        ("wrapping", |s| s.queues[0].desc_table = !0xf),
    ];
    for (what, change) in changes {
        let mut bad = good.clone();
        change(&mut bad);
        let probe = Arc::new(Probe::default());
        let irq = Arc::new(CountingIrq::default());
        let device = VirtioMmio::new(ram.clone(), irq, Box::new(Shared(probe.clone())));
        assert!(device.restore(&bad).is_err(), "{what}");
        let fresh = device.state();
        assert_eq!((fresh.status, fresh.active), (0, false), "{what}");
        device.restore(&good).unwrap();
        assert_eq!(device.state(), good);
    }
    drop(driver);
}

#[test]
fn broken_rings_need_a_reset() {
    // An index too far ahead, a head outside the table, a loop, a descriptor
    // outside the table, a readable one after a writable one.
    type Breakage = fn(&DriverQueue);
    let ways: [Breakage; 6] = [
        |queue| queue.set_avail_index(9),
        |queue| queue.make_available(8),
        |queue| {
            queue.set_descriptor(0, 0x8_0000, 4, 3, 0);
            queue.make_available(0);
        },
        |queue| {
            queue.set_descriptor(0, 0x8_0000, 4, 3, 8);
            queue.make_available(0);
        },
        |queue| {
            queue.set_descriptor(0, 0x8_0000, 4, 3, 1);
            queue.set_descriptor(1, 0x8_0000, 4, 0, 0);
            queue.make_available(0);
        },
        |queue| {
            // An indirect table in an indirect table.
            queue.set_descriptor(0, RINGS, 16, 4, 0);
            queue.make_available(0);
        },
    ];
    for (index, way) in ways.iter().enumerate() {
        let ram = guest_ram(1 << 20);
        let irq = Arc::new(CountingIrq::default());
        let device = Arc::new(rng(&ram, &irq));
        let driver = Driver::start(&ram, device, irq, RINGS, &[8]);
        way(&driver.queues[0]);
        driver.notify(0);
        assert_eq!(driver.status(), ALL | status::NEEDS_RESET, "way {index}");
        let mut seen = [0; 4];
        ram.read_slice(&mut seen, GuestAddress(0x8_0000)).unwrap();
    }
}
