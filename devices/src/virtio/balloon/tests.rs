use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::testing::{Buffer, CountingIrq, Driver, RecordingMemory, guest_ram};
use crate::virtio::mmio::{MmioState, VirtioMmio, status};
use crate::{GuestRam, MmioDevice};

const RAM_BYTES: usize = 16 << 20;
const RINGS: u64 = 0x1_0000;
const NUMBERS: u64 = 0x8_0000;

struct Machine {
    ram: GuestRam,
    driver: Driver,
    balloon: Arc<Balloon>,
    memory: Arc<RecordingMemory>,
}

fn machine(page_bytes: u64) -> Machine {
    let ram = guest_ram(RAM_BYTES);
    let memory = RecordingMemory::new(page_bytes);
    let balloon = Arc::new(Balloon::new(memory.clone()));
    let irq = Arc::new(CountingIrq::default());
    let device = Box::new(balloon.clone());
    let device = Arc::new(VirtioMmio::new(ram.clone(), irq.clone(), device));
    let driver = Driver::start(&ram, device, irq, RINGS, QUEUE_SIZES);
    Machine {
        ram,
        driver,
        balloon,
        memory,
    }
}

impl Machine {
    /// Sends page numbers, cut into two descriptors.
    fn send(&mut self, queue: u16, numbers: &[u32]) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.ram.write_slice(&bytes, GuestAddress(NUMBERS)).unwrap();
        let len = u32::try_from(bytes.len()).unwrap();
        let cut = len / 2;
        self.driver.queues[usize::from(queue)].push(&[
            Buffer::Readable {
                addr: NUMBERS,
                len: cut,
            },
            Buffer::Readable {
                addr: NUMBERS + u64::from(cut),
                len: len - cut,
            },
        ]);
        self.driver.notify(queue.into());
    }

    fn inflate(&mut self, numbers: &[u32]) {
        self.send(INFLATE, numbers);
        assert_eq!(self.driver.wait_used(INFLATE.into()).1, 0);
    }

    fn report(&mut self, ranges: &[(u64, u32)]) {
        let buffers: Vec<_> = ranges
            .iter()
            .map(|&(addr, len)| Buffer::Writable { addr, len })
            .collect();
        self.driver.queues[2].push(&buffers);
        self.driver.notify(2);
    }

    fn discarded(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.memory.discarded.lock().unwrap())
    }

    fn config(&self, offset: u64) -> u32 {
        self.driver.read(0x100 + offset)
    }
}

#[test]
fn guest_is_not_offered_to_take_pages_back_before_it_kills() {
    let deflate_on_oom = 1 << 2;
    assert_eq!(Pages::FEATURES & deflate_on_oom, 0);
}

#[test]
fn inflating_discards_neighbours_together() {
    let mut machine = machine(4096);
    machine.inflate(&[300, 7, 5, 6, 5, 301, 900]);
    assert_eq!(
        machine.discarded(),
        [
            (5 * 4096, 3 * 4096),
            (300 * 4096, 2 * 4096),
            (900 * 4096, 4096)
        ]
    );
    machine.inflate(&[4095]);
    assert_eq!(machine.discarded(), [(4095 * 4096, 4096)]);
}

#[test]
fn only_whole_host_pages_are_discarded() {
    let mut machine = machine(16 << 10);
    machine.inflate(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100, 101, 102]);
    assert_eq!(machine.discarded(), [(16 << 10, 16 << 10)]);
    machine.report(&[(0x5000, 0x7000), (0x10_1000, 0x8000)]);
    machine.driver.wait_used(2);
    assert_eq!(machine.discarded(), [(0x8000, 0x4000), (0x10_4000, 0x4000)]);
}

#[test]
fn deflating_takes_nothing_away() {
    let mut machine = machine(4096);
    machine.send(DEFLATE, &[1, 2, 3]);
    assert_eq!(machine.driver.wait_used(DEFLATE.into()).1, 0);
    assert!(machine.discarded().is_empty());
}

#[test]
fn reported_pages_are_discarded_as_they_come() {
    let mut machine = machine(4096);
    let ranges: Vec<_> = (0..32)
        .map(|n| (0x20_0000 + n * 0x4_0000, 0x2_0000))
        .collect();
    machine.report(&ranges);
    assert_eq!(machine.driver.wait_used(2).1, 0);
    let expected: Vec<_> = ranges.iter().map(|&(a, len)| (a, len.into())).collect();
    assert_eq!(machine.discarded(), expected);
}

#[test]
fn target_is_shown_and_announced_and_the_answer_is_kept() {
    let machine = machine(4096);
    let pulses = machine.driver.irq.pulses();
    machine.balloon.set_target_pages(1000);
    assert_eq!(machine.driver.irq.pulses(), pulses + 1);
    assert_eq!(machine.driver.acknowledge(), 2);
    assert_eq!(machine.config(0), 1000);
    machine.balloon.set_target_pages(1000);
    assert_eq!(machine.driver.irq.pulses(), pulses + 1);
    machine.driver.write(0x104, 998);
    assert_eq!(
        (machine.balloon.actual_pages(), machine.config(4)),
        (998, 998)
    );
    // Neither the target nor half a field can be written.
    machine.driver.write(0x100, 1);
    machine.driver.device.write(0x104, &[1, 0]);
    machine.driver.device.write(0x106, &[1, 0]);
    assert_eq!(machine.balloon.target_pages(), 1000);
    assert_eq!(machine.balloon.actual_pages(), 998);
    machine.driver.write(0x070, 0);
    assert_eq!(machine.balloon.actual_pages(), 0);
    machine.balloon.set_target_pages(5);
    assert_eq!(machine.config(0), 5);
}

#[test]
fn impossible_requests_need_a_reset_and_discard_nothing() {
    let past_the_end = u32::try_from(RAM_BYTES / 4096).unwrap();
    let too_many = vec![1; MAX_PAGE_NUMBERS + 1];
    for queue in [INFLATE, DEFLATE] {
        for numbers in [&[1, past_the_end][..], &[u32::MAX, 1], &too_many] {
            let mut machine = machine(4096);
            machine.send(queue, numbers);
            assert_ne!(machine.driver.status() & status::NEEDS_RESET, 0);
            assert!(machine.discarded().is_empty());
        }
    }
    let mut odd = machine(4096);
    odd.driver.queues[0].push(&[Buffer::Readable {
        addr: NUMBERS,
        len: 6,
    }]);
    odd.driver.notify(0);
    assert_ne!(odd.driver.status() & status::NEEDS_RESET, 0);
    let mut outside = machine(4096);
    outside.report(&[(0x1000, 0x1000), (RAM_BYTES as u64 - 0x1000, 0x2000)]);
    assert_ne!(outside.driver.status() & status::NEEDS_RESET, 0);
    assert!(outside.discarded().is_empty());
}

#[test]
fn driver_without_page_reporting_works() {
    let ram = guest_ram(RAM_BYTES);
    let memory = RecordingMemory::new(4096);
    let irq = Arc::new(CountingIrq::default());
    let device = Box::new(Balloon::new(memory.clone()));
    let device = Arc::new(VirtioMmio::new(ram.clone(), irq.clone(), device));
    let sizes = &QUEUE_SIZES[..2];
    let unwanted = feature::PAGE_REPORTING;
    let driver = Driver::start_without(&ram, device, irq, RINGS, sizes, unwanted);
    assert_eq!(driver.status() & status::NEEDS_RESET, 0);
    driver.notify(2);
}

#[test]
fn saved_balloon_continues_with_the_request_at_hand() {
    let mut machine = machine(4096);
    machine.balloon.set_target_pages(77);
    machine.driver.write(0x104, 33);
    machine.inflate(&[1]);
    machine.discarded();
    let addr = NUMBERS;
    machine.ram.write_obj(9u32, GuestAddress(addr)).unwrap();
    machine.driver.queues[0].push(&[Buffer::Readable { addr, len: 4 }]);
    let state = machine.driver.device.state();
    let text = serde_json::to_string(&state).unwrap();
    let state: MmioState = serde_json::from_str(&text).unwrap();
    machine.balloon.set_target_pages(0);
    machine.driver.device.reset_to(&state).unwrap();
    assert_eq!(machine.driver.wait_used(INFLATE.into()).1, 0);
    assert_eq!(machine.discarded(), [(9 * 4096, 4096)]);
    assert_eq!(machine.balloon.target_pages(), 77);
    assert_eq!(machine.balloon.actual_pages(), 33);
    machine.inflate(&[3]);
}
