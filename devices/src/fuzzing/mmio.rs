//! Registers, configuration space and queue memory in any order.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use super::{Input, MAX_OPS, RAM_BYTES, patterned_ram};
use crate::MmioDevice;
use crate::testing::{CountingIrq, Driver};
use crate::virtio::mmio::{MmioState, VirtioMmio, status};
use crate::virtio::rng::Rng;

const RINGS: u64 = 0x1_0000;
/// Every register a driver may write, and a few that are not there.
const REGISTERS: [u64; 21] = [
    0x014, 0x020, 0x024, 0x030, 0x038, 0x044, 0x050, 0x064, 0x070, 0x080, 0x084, 0x090, 0x094,
    0x0a0, 0x0a4, 0x0ac, 0x0c0, 0x0fc, 0x100, 0x000, 0x1fc,
];

/// Plays a list of register and memory operations to a device behind
/// [`VirtioMmio`]. Fails if a configured queue changes while active, if status
/// bits vanish without a reset, or if a saved state does not restore.
pub fn fuzz_mmio(data: &[u8]) {
    let mut input = Input(data);
    let ram = patterned_ram();
    let irq = Arc::new(CountingIrq::default());
    let new_device = || {
        let rng = Rng::new(Box::new(std::io::repeat(1)));
        Arc::new(VirtioMmio::new(ram.clone(), irq.clone(), Box::new(rng)))
    };
    let mut driver = Driver {
        device: new_device(),
        irq: irq.clone(),
        queues: Vec::new(),
    };
    if input.u8() % 4 != 0 {
        driver = Driver::start(&ram, driver.device, irq.clone(), RINGS, &[8]);
    }
    for _ in 0..MAX_OPS {
        if input.is_empty() {
            break;
        }
        let before = driver.device.state();
        let mut reset = false;
        match input.u8() % 8 {
            0 | 1 => {
                let offset = input.pick(&REGISTERS);
                let value = register_value(&mut input);
                reset = offset == 0x070 && value == 0;
                driver.write(offset, value);
            }
            2 => {
                let offset = u64::from(input.u16() % 0x200);
                let data: [u8; 9] = input.bytes();
                let len = usize::from(input.u8()) % 10;
                // A reset by a random write is a reset too.
                reset = offset == 0x070;
                driver.device.write(offset, &data[..len]);
            }
            3 => {
                let offset = u64::from(input.u16());
                let mut data = [0; 9];
                let len = usize::from(input.u8()) % 10;
                driver.device.read(offset, &mut data[..len]);
            }
            4 => {
                let data: [u8; 4] = input.bytes();
                let at = RINGS + u64::from(input.u16()) % 0x2100;
                ram.write_slice(&data, GuestAddress(at))
                    .expect("rings are in RAM");
            }
            5 => {
                if let Some(queue) = driver.queues.first() {
                    let index = input.u16() % 8;
                    let (addr, len) = (input.address(), input.len());
                    queue.set_descriptor(index, addr, len, input.u16() & 7, input.u16() % 9);
                }
            }
            6 => {
                if let Some(queue) = driver.queues.first() {
                    queue.make_available(input.u16() % 9);
                }
                driver.notify(0);
            }
            _ => {
                let state = driver.device.state();
                driver.device.pause();
                assert_eq!(driver.device.reset_to(&state), Ok(()));
                let copy = new_device();
                assert_eq!(copy.restore(&state), Ok(()), "own state is refused");
                driver.device = copy;
            }
        }
        if !reset {
            check_step(&before, &driver.device.state());
        }
    }
    let mut byte = [0; 1];
    ram.read_slice(&mut byte, GuestAddress(RAM_BYTES as u64 - 1))
        .expect("RAM is there");
}

fn register_value(input: &mut Input<'_>) -> u32 {
    match input.u8() % 4 {
        0 => input.u32(),
        1 => u32::from(input.u8()) << 12,
        2 => 1 << (input.u8() % 32),
        _ => u32::from(input.u8() % 16),
    }
}

/// What must hold between two states with no reset in between.
fn check_step(before: &MmioState, after: &MmioState) {
    assert_eq!(before.status & !after.status, 0, "status bits vanished");
    assert!(
        !before.needs_reset || after.needs_reset,
        "NEEDS_RESET vanished"
    );
    if before.status & status::FEATURES_OK != 0 {
        assert_eq!(before.driver_features, after.driver_features);
    }
    if before.status & status::DRIVER_OK != 0 {
        for (old, new) in before.queues.iter().zip(&after.queues) {
            let mut new = *new;
            new.next_avail = old.next_avail;
            new.next_used = old.next_used;
            assert_eq!(*old, new, "queue changed while active");
        }
    }
}
