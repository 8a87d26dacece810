use std::io::Read;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use super::Rng;
use crate::testing::{Buffer, CountingIrq, Driver, guest_ram};
use crate::virtio::mmio::{VirtioMmio, status};

const RINGS: u64 = 0x1_0000;
const DATA: u64 = 0x4_0000;

fn start(rng: Rng) -> (crate::GuestRam, Driver) {
    let ram = guest_ram(1 << 20);
    let irq = Arc::new(CountingIrq::default());
    let device = Arc::new(VirtioMmio::new(ram.clone(), irq.clone(), Box::new(rng)));
    let driver = Driver::start(&ram, device, irq, RINGS, &[8]);
    (ram, driver)
}

fn request(driver: &mut Driver, len: u32) -> u32 {
    driver.queues[0].push(&[Buffer::Writable { addr: DATA, len }]);
    driver.notify(0);
    driver.wait_used(0).1
}

#[test]
fn request_is_filled_from_the_source() {
    let (ram, mut driver) = start(Rng::new(Box::new(std::io::repeat(0x5a))));
    assert_eq!(request(&mut driver, 64), 64);
    let mut data = [0; 65];
    ram.read_slice(&mut data, GuestAddress(DATA)).unwrap();
    assert_eq!(data[..64], [0x5a; 64]);
    assert_eq!(data[64], 0);
}

#[test]
fn host_source_does_not_repeat_itself() {
    let (ram, mut driver) = start(Rng::host());
    let mut seen = Vec::new();
    for _ in 0..2 {
        assert_eq!(request(&mut driver, 32), 32);
        let mut data = [0; 32];
        ram.read_slice(&mut data, GuestAddress(DATA)).unwrap();
        seen.push(data);
    }
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn huge_request_gets_bounded_work() {
    let (_ram, mut driver) = start(Rng::new(Box::new(std::io::repeat(1))));
    assert_eq!(request(&mut driver, 0x8_0000), 4096);
}

#[test]
fn failing_source_answers_with_nothing() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::Other.into())
        }
    }
    let (_ram, mut driver) = start(Rng::new(Box::new(Broken)));
    assert_eq!(request(&mut driver, 16), 0);
    assert_eq!(request(&mut driver, 16), 0);
}

#[test]
fn buffer_outside_ram_needs_a_reset_and_reset_helps() {
    let (ram, mut driver) = start(Rng::new(Box::new(std::io::repeat(7))));
    driver.queues[0].push(&[Buffer::Writable {
        addr: 1 << 40,
        len: 16,
    }]);
    driver.notify(0);
    assert_ne!(driver.status() & status::NEEDS_RESET, 0);
    let (device, irq) = (driver.device.clone(), driver.irq.clone());
    let mut driver = Driver::start(&ram, device, irq, RINGS, &[8]);
    assert_eq!(driver.status() & status::NEEDS_RESET, 0);
    assert_eq!(request(&mut driver, 16), 16);
}
