//! Page numbers and reports of any kind, to a balloon behind its registers.

use std::sync::{Arc, Mutex, PoisonError};

use vm_memory::{Bytes, GuestAddress};

use super::{Input, MAX_OPS, RAM_BYTES, patterned_ram};
use crate::testing::{CountingIrq, Driver};
use crate::virtio::balloon::Balloon;
use crate::virtio::mmio::{VirtioMmio, status};
use crate::{MmioDevice, RamAdvisor};

const RINGS: u64 = 0x1_0000;
const NUMBERS: u64 = 0x8000;
const QUEUE: u16 = 16;
/// Pages of a host whose pages are larger than the balloon's.
const PAGE_BYTES: u64 = 16 << 10;

/// Counts what is discarded, and holds the device to whole pages of RAM.
#[derive(Default)]
struct Strict(Mutex<u64>);

impl RamAdvisor for Strict {
    fn page_bytes(&self) -> u64 {
        PAGE_BYTES
    }

    fn discard(&self, address: u64, bytes: u64) {
        assert!(bytes > 0, "nothing to discard");
        assert_eq!((address | bytes) % PAGE_BYTES, 0, "part of a page");
        let end = address.checked_add(bytes);
        assert!(
            end.is_some_and(|end| end <= RAM_BYTES as u64),
            "outside RAM"
        );
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += bytes;
    }
}

/// Plays requests, configuration writes and resets in place to a [`Balloon`].
/// Fails if it discards anything but whole host pages of RAM, or if a saved
/// state does not bring it back.
pub fn fuzz_balloon(data: &[u8]) {
    let mut input = Input(data);
    let ram = patterned_ram();
    let advisor = Arc::new(Strict::default());
    let balloon = Arc::new(Balloon::new(advisor));
    let irq = Arc::new(CountingIrq::default());
    let device = VirtioMmio::new(ram.clone(), irq.clone(), Box::new(balloon.clone()));
    let device = Arc::new(device);
    let start = |device: &Arc<VirtioMmio>| {
        Driver::start(&ram, device.clone(), irq.clone(), RINGS, &[QUEUE; 3])
    };
    let mut driver = start(&device);
    for _ in 0..MAX_OPS {
        if input.is_empty() {
            break;
        }
        if driver.status() & status::NEEDS_RESET != 0 {
            driver = start(&device);
        }
        let queue = usize::from(input.u8() % 3);
        match input.u8() % 8 {
            0 => balloon.set_target_pages(input.u32()),
            1 => {
                let (offset, bytes): (_, [u8; 8]) = (u64::from(input.u8() % 16), input.bytes());
                let len = usize::from(input.u8() % 9);
                device.write(0x100 + offset, &bytes[..len]);
                let mut seen = [0; 8];
                device.read(0x100, &mut seen);
                assert_eq!(seen[..4], balloon.target_pages().to_le_bytes());
                assert_eq!(seen[4..], balloon.actual_pages().to_le_bytes());
            }
            2 => {
                device.pause();
                let state = device.state();
                assert_eq!(device.reset_to(&state), Ok(()), "own state is refused");
                assert_eq!(device.state().device, state.device);
            }
            _ => {
                put_chain(&mut input, &driver, queue);
                // Queue numbers are 0 to 2.
                driver.notify(u32::try_from(queue).unwrap_or(0));
            }
        }
    }
}

fn put_chain(input: &mut Input<'_>, driver: &Driver, queue: usize) {
    for page in 0..u64::from(input.u8() % 32) {
        let number = match input.u8() {
            0 => input.u32(),
            // RAM has 64 pages.
            near => u32::from(near % 65),
        };
        let at = GuestAddress(NUMBERS + 4 * page);
        let ring = &driver.queues[queue];
        ring.ram()
            .write_obj(number, at)
            .expect("numbers are in RAM");
    }
    let count = 1 + u16::from(input.u8() % 5);
    let write = if queue == 2 { 2 } else { 0 };
    for index in 0..count {
        let (addr, len) = match input.u8() {
            0 => (input.address(), input.len()),
            1 => (input.address() & !0xfff, 4096 * u32::from(input.u8() % 32)),
            _ => (NUMBERS, 4 * u32::from(input.u8() % 32)),
        };
        let next = u16::from(index + 1 < count);
        let flags = if input.u8() == 0 {
            input.u16() & 7
        } else {
            write | next
        };
        driver.queues[queue].set_descriptor(index, addr, len, flags, index + 1);
    }
    driver.queues[queue].make_available(if input.u8() == 0 { input.u16() } else { 0 });
}
