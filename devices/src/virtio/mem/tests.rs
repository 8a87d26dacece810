use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::testing::{Buffer, CountingIrq, Driver, RecordingMemory, guest_ram};
use crate::virtio::mmio::{MmioState, VirtioMmio, status};
use crate::virtio::{SavedState, VirtioDevice};
use crate::{GuestRam, MmioDevice};

const RINGS: u64 = 0x1_0000;
const REQUEST: u64 = 0x8_0000;
const RESPONSE: u64 = 0x8_1000;
const ADDRESS: u64 = 4 << 30;
/// Not a multiple of 64 blocks.
const BLOCKS: u64 = 100;
const REGION: MemConfig = MemConfig {
    address: ADDRESS,
    region_bytes: BLOCKS * BLOCK_BYTES,
};

const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const STATE: u16 = 3;
const ACK: (u16, u16) = (0, 0);
const NACK: (u16, u16) = (1, 0);
const BUSY: (u16, u16) = (2, 0);
const ERROR: (u16, u16) = (3, 0);
const UNPLUGGED: (u16, u16) = (0, 1);
const MIXED: (u16, u16) = (0, 2);

struct Machine {
    ram: GuestRam,
    driver: Driver,
    mem: Arc<Mem>,
    memory: Arc<RecordingMemory>,
}

fn machine() -> Machine {
    let ram = guest_ram(1 << 20);
    let memory = RecordingMemory::new(4096);
    let mem = Arc::new(Mem::new(REGION, memory.clone()).unwrap());
    let irq = Arc::new(CountingIrq::default());
    let device = Arc::new(VirtioMmio::new(
        ram.clone(),
        irq.clone(),
        Box::new(mem.clone()),
    ));
    let driver = Driver::start(&ram, device, irq, RINGS, &[16]);
    Machine {
        ram,
        driver,
        mem,
        memory,
    }
}

fn block(index: u64) -> u64 {
    ADDRESS + index * BLOCK_BYTES
}

impl Machine {
    fn put(&mut self, kind: u16, address: u64, blocks: u16) {
        let mut request = [0; 24];
        request[..2].copy_from_slice(&kind.to_le_bytes());
        request[8..16].copy_from_slice(&address.to_le_bytes());
        request[16..18].copy_from_slice(&blocks.to_le_bytes());
        let ram = &self.ram;
        ram.write_slice(&request, GuestAddress(REQUEST)).unwrap();
        self.driver.queues[0].push(&[
            Buffer::Readable {
                addr: REQUEST,
                len: 24,
            },
            Buffer::Writable {
                addr: RESPONSE,
                len: 10,
            },
        ]);
    }

    /// Type and state of the answer.
    fn answer(&mut self) -> (u16, u16) {
        assert_eq!(self.driver.wait_used(0).1, 10);
        let at = |addr| self.ram.read_obj(GuestAddress(addr)).unwrap();
        (at(RESPONSE), at(RESPONSE + 8))
    }

    fn ask(&mut self, kind: u16, address: u64, blocks: u16) -> (u16, u16) {
        self.put(kind, address, blocks);
        self.driver.notify(0);
        self.answer()
    }

    fn config(&self, offset: u64) -> u64 {
        let mut data = [0; 8];
        self.driver.device.read(0x100 + offset, &mut data);
        u64::from_le_bytes(data)
    }

    fn plugged(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.memory.plugged.lock().unwrap())
    }

    fn unplugged(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.memory.unplugged.lock().unwrap())
    }
}

#[test]
fn configuration_says_where_the_region_is_and_what_is_asked_for() {
    let machine = machine();
    let fields = [0, 8, 16, 24, 32, 40, 48].map(|at| machine.config(at));
    let region = REGION.region_bytes;
    assert_eq!(fields, [2 << 20, 0, ADDRESS, region, region, 0, 0]);
    let pulses = machine.driver.irq.pulses();
    machine.mem.request_bytes(4 * BLOCK_BYTES).unwrap();
    assert_eq!(machine.driver.irq.pulses(), pulses + 1);
    assert_eq!(machine.config(48), 4 * BLOCK_BYTES);
    machine.driver.write(0x130, 0);
    assert_eq!(machine.mem.requested_bytes(), 4 * BLOCK_BYTES);
    for bad in [1, BLOCK_BYTES - 1, region + BLOCK_BYTES, u64::MAX] {
        assert!(machine.mem.request_bytes(bad).is_err());
    }
    assert_eq!(machine.config(48), 4 * BLOCK_BYTES);
}

#[test]
fn guest_plugs_up_to_what_is_asked_for_and_no_more() {
    let mut machine = machine();
    assert_eq!(machine.ask(PLUG, ADDRESS, 1), NACK);
    machine.mem.request_bytes(4 * BLOCK_BYTES).unwrap();
    assert_eq!(machine.ask(PLUG, ADDRESS, 5), NACK);
    assert_eq!(machine.ask(PLUG, ADDRESS, 3), ACK);
    assert_eq!(machine.ask(PLUG, block(3), 2), NACK);
    assert_eq!(machine.ask(PLUG, block(3), 1), ACK);
    assert_eq!(machine.mem.plugged_bytes(), 4 * BLOCK_BYTES);
    assert_eq!(machine.config(40), 4 * BLOCK_BYTES);
    assert_eq!(
        machine.plugged(),
        [(ADDRESS, 3 * BLOCK_BYTES), (block(3), BLOCK_BYTES)]
    );
    machine.mem.request_bytes(0).unwrap();
    assert_eq!(machine.ask(UNPLUG, block(1), 2), ACK);
    assert_eq!(machine.unplugged(), [(block(1), 2 * BLOCK_BYTES)]);
    assert_eq!(machine.mem.plugged_bytes(), 2 * BLOCK_BYTES);
    assert_eq!(machine.ask(UNPLUG_ALL, 0, 0), ACK);
    assert_eq!(
        machine.unplugged(),
        [(block(0), BLOCK_BYTES), (block(3), BLOCK_BYTES)]
    );
    assert_eq!(machine.mem.plugged_bytes(), 0);
}

#[test]
fn host_without_memory_asks_for_patience() {
    let mut machine = machine();
    machine.mem.request_bytes(BLOCK_BYTES).unwrap();
    machine.memory.has_room.store(false, Ordering::SeqCst);
    assert_eq!(machine.ask(PLUG, ADDRESS, 1), BUSY);
    assert_eq!(machine.mem.plugged_bytes(), 0);
    machine.memory.has_room.store(true, Ordering::SeqCst);
    assert_eq!(machine.ask(PLUG, ADDRESS, 1), ACK);
}

#[test]
fn states_of_ranges_are_told() {
    let mut machine = machine();
    machine.mem.request_bytes(REGION.region_bytes).unwrap();
    assert_eq!(machine.ask(PLUG, block(60), 10), ACK);
    assert_eq!(machine.ask(STATE, block(60), 10), ACK);
    assert_eq!(machine.ask(STATE, block(0), 60), UNPLUGGED);
    assert_eq!(machine.ask(STATE, block(70), 30), UNPLUGGED);
    assert_eq!(machine.ask(STATE, block(59), 2), MIXED);
    assert_eq!(machine.ask(STATE, block(0), 100), MIXED);
}

#[test]
fn requests_that_make_no_sense_are_errors_and_change_nothing() {
    let mut machine = machine();
    machine.mem.request_bytes(REGION.region_bytes).unwrap();
    assert_eq!(machine.ask(PLUG, block(10), 10), ACK);
    machine.plugged();
    for kind in [PLUG, UNPLUG, STATE] {
        for (address, blocks) in [
            (ADDRESS, 0),
            (ADDRESS + 1, 1),
            (ADDRESS + 4096, 1),
            (ADDRESS - BLOCK_BYTES, 2),
            (0, 1),
            (block(BLOCKS), 1),
            (block(BLOCKS - 1), 2),
            (block(0), u16::MAX),
            (u64::MAX - BLOCK_BYTES + 1, 1),
        ] {
            assert_eq!(machine.ask(kind, address, blocks), ERROR);
        }
    }
    assert_eq!(machine.ask(PLUG, block(19), 2), ERROR);
    assert_eq!(machine.ask(UNPLUG, block(19), 2), ERROR);
    for kind in [4, u16::MAX] {
        assert_eq!(machine.ask(kind, block(10), 10), ERROR);
    }
    assert_eq!(machine.mem.plugged_bytes(), 10 * BLOCK_BYTES);
    assert!(machine.plugged().is_empty() && machine.unplugged().is_empty());
}

#[test]
fn request_or_answer_cut_short_needs_a_reset_and_changes_nothing() {
    for (request, response) in [(23, 10), (24, 9)] {
        let mut machine = machine();
        machine.mem.request_bytes(BLOCK_BYTES).unwrap();
        let mut bytes = [0; 24];
        bytes[8..16].copy_from_slice(&ADDRESS.to_le_bytes());
        bytes[16] = 1;
        let ram = &machine.ram;
        ram.write_slice(&bytes, GuestAddress(REQUEST)).unwrap();
        machine.driver.queues[0].push(&[
            Buffer::Readable {
                addr: REQUEST,
                len: request,
            },
            Buffer::Writable {
                addr: RESPONSE,
                len: response,
            },
        ]);
        machine.driver.notify(0);
        assert_ne!(machine.driver.status() & status::NEEDS_RESET, 0);
        assert_eq!(machine.mem.plugged_bytes(), 0);
    }
}

#[test]
fn driver_reset_leaves_blocks_plugged() {
    let mut machine = machine();
    machine.mem.request_bytes(BLOCK_BYTES).unwrap();
    assert_eq!(machine.ask(PLUG, ADDRESS, 1), ACK);
    machine.driver.write(0x070, 0);
    assert_eq!(machine.mem.plugged_bytes(), BLOCK_BYTES);
    assert!(machine.unplugged().is_empty());
}

#[test]
fn regions_that_are_not_whole_blocks_are_refused() {
    for (address, region_bytes) in [
        (0, 0),
        (4096, BLOCK_BYTES),
        (0, BLOCK_BYTES + 4096),
        (0, (1 << 40) + BLOCK_BYTES),
        (u64::MAX - BLOCK_BYTES + 1, 2 * BLOCK_BYTES),
    ] {
        let config = MemConfig {
            address,
            region_bytes,
        };
        assert!(Mem::<Ram>::new(config, RecordingMemory::new(4096)).is_err());
    }
}

#[test]
fn machine_goes_back_to_the_blocks_it_had() {
    let mut machine = machine();
    machine.mem.request_bytes(20 * BLOCK_BYTES).unwrap();
    assert_eq!(machine.ask(PLUG, block(5), 10), ACK);
    // A request at hand, which is answered by the machine that comes back.
    machine.put(UNPLUG, block(6), 1);
    let state = machine.driver.device.state();
    let text = serde_json::to_string(&state).unwrap();
    let state: MmioState = serde_json::from_str(&text).unwrap();
    let queues = machine.driver.queues.clone();
    let mut image = vec![0; 1 << 20];
    let ram = machine.ram.clone();
    ram.read_slice(&mut image, GuestAddress(0)).unwrap();
    machine.driver.notify(0);
    assert_eq!(machine.answer(), ACK);
    for _ in 0..3 {
        assert_eq!(machine.ask(UNPLUG, block(10), 5), ACK);
        assert_eq!(machine.ask(PLUG, block(70), 4), ACK);
        machine.mem.request_bytes(0).unwrap();
        machine.plugged();
        machine.unplugged();
        machine.driver.queues.clone_from(&queues);
        ram.write_slice(&image, GuestAddress(0)).unwrap();
        machine.driver.device.reset_to(&state).unwrap();
        let plugged = machine.plugged();
        assert_eq!(
            plugged,
            [(block(6), BLOCK_BYTES), (block(10), 5 * BLOCK_BYTES)]
        );
        let unplugged = machine.unplugged();
        assert_eq!(
            unplugged,
            [(block(70), 4 * BLOCK_BYTES), (block(6), BLOCK_BYTES)]
        );
        assert_eq!(machine.answer(), ACK);
        assert_eq!(machine.mem.plugged_bytes(), 9 * BLOCK_BYTES);
        assert_eq!(machine.mem.requested_bytes(), 20 * BLOCK_BYTES);
    }
}

#[test]
fn hostile_states_are_refused() {
    let mut machine = machine();
    machine.mem.request_bytes(BLOCK_BYTES).unwrap();
    assert_eq!(machine.ask(PLUG, ADDRESS, 1), ACK);
    let good: MemState = machine.mem.state().read().unwrap();
    let restore = |state: &MemState| machine.mem.restore(&SavedState::of(state));
    for change in [
        (|s| s.address += BLOCK_BYTES) as fn(&mut MemState),
        |s| s.region_bytes -= BLOCK_BYTES,
        |s| s.requested_bytes = 1,
        |s| s.requested_bytes = u64::MAX - BLOCK_BYTES + 1,
        |s| s.plugged.push(0),
        |s| s.plugged.clear(),
        |s| s.plugged[1] = 1 << 36,
    ] {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(restore(&bad).is_err());
    }
    assert_eq!(machine.mem.state(), SavedState::of(&good));
    let mut more = good;
    more.plugged[1] = (1 << 36) - 1;
    machine.memory.has_room.store(false, Ordering::SeqCst);
    assert_eq!(restore(&more), Err(RestoreError::Refused));
    machine.memory.has_room.store(true, Ordering::SeqCst);
    restore(&more).unwrap();
    assert_eq!(machine.mem.plugged_bytes(), 37 * BLOCK_BYTES);
}
