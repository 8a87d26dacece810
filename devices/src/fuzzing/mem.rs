//! Memory requests of any kind, against a model of who has which block.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::{Bytes, GuestAddress};

use super::{Input, MAX_OPS, patterned_ram};
use crate::HotMemory;
use crate::testing::{Buffer, CountingIrq, Driver};
use crate::virtio::mem::{BLOCK_BYTES, Mem, MemConfig, MemState};
use crate::virtio::mmio::{VirtioMmio, status};

const RINGS: u64 = 0x1_0000;
const REQUEST: u64 = 0x8000;
const RESPONSE: u64 = 0x9000;
const ADDRESS: u64 = 1 << 32;
const BLOCKS: u64 = 70;

/// The host's side: which blocks are plugged, and room for some more.
#[derive(Default)]
struct Model(Mutex<(BTreeSet<u64>, u64)>);

impl Model {
    fn lock(&self) -> MutexGuard<'_, (BTreeSet<u64>, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn each(address: u64, bytes: u64) -> impl Iterator<Item = u64> {
        assert!(bytes > 0 && (address | bytes).is_multiple_of(BLOCK_BYTES));
        let end = address.checked_add(bytes).expect("range wraps");
        assert!(address >= ADDRESS && end <= ADDRESS + BLOCKS * BLOCK_BYTES);
        (address / BLOCK_BYTES)..(end / BLOCK_BYTES)
    }
}

impl HotMemory for Model {
    fn plug(&self, address: u64, bytes: u64) -> bool {
        let mut model = self.lock();
        if model.1 < bytes / BLOCK_BYTES {
            return false;
        }
        for block in Self::each(address, bytes) {
            assert!(model.0.insert(block), "plugged twice");
            model.1 -= 1;
        }
        true
    }

    fn unplug(&self, address: u64, bytes: u64) {
        let mut model = self.lock();
        for block in Self::each(address, bytes) {
            assert!(model.0.remove(&block), "unplugged twice");
            model.1 += 1;
        }
    }
}

/// Plays requests, owner's wishes and resets in place to a [`Mem`]. Fails if
/// it plugs or unplugs a block twice, goes beyond its region or beyond what
/// was asked for, or if its state is not what its owner was told.
pub fn fuzz_mem(data: &[u8]) {
    let mut input = Input(data);
    let ram = patterned_ram();
    let model = Arc::new(Model::default());
    model.lock().1 = u64::from(input.u8() % 80);
    let config = MemConfig {
        address: ADDRESS,
        region_bytes: BLOCKS * BLOCK_BYTES,
    };
    let Ok(mem) = Mem::new(config, model.clone()) else {
        panic!("region is valid");
    };
    let mem = Arc::new(mem);
    let irq = Arc::new(CountingIrq::default());
    let device = VirtioMmio::new(ram.clone(), irq.clone(), Box::new(mem.clone()));
    let device = Arc::new(device);
    let start =
        |device: &Arc<VirtioMmio>| Driver::start(&ram, device.clone(), irq.clone(), RINGS, &[16]);
    let mut driver = start(&device);
    let mut saved = device.state();
    for _ in 0..MAX_OPS {
        if input.is_empty() {
            break;
        }
        let before = mem.plugged_bytes();
        match input.u8() % 8 {
            0 => {
                let wish = match input.u8() {
                    0 => input.u64(),
                    blocks => u64::from(blocks) % (BLOCKS + 2) * BLOCK_BYTES,
                };
                // A wish that makes no sense is refused.
                let _ = mem.request_bytes(wish);
                assert!(mem.requested_bytes() <= BLOCKS * BLOCK_BYTES);
            }
            1 => saved = device.state(),
            2 => {
                // It fails for want of memory alone, or because requests that
                // the guest has left in the ring do not fit it any more.
                let _ = device.reset_to(&saved);
                driver = start(&device);
            }
            _ => {
                request(&mut input, &mut driver);
                let after = mem.plugged_bytes();
                assert!(
                    after <= before.max(mem.requested_bytes()),
                    "plugged more than asked for"
                );
                if driver.status() & status::NEEDS_RESET != 0 {
                    driver = start(&device);
                }
            }
        }
        check(&mem, &model);
    }
}

fn check(mem: &Mem, model: &Model) {
    use crate::virtio::VirtioDevice;
    let model = model.lock();
    assert_eq!(mem.plugged_bytes(), model.0.len() as u64 * BLOCK_BYTES);
    let state: MemState = mem.state().read().expect("its own state");
    for block in 0..BLOCKS {
        // Fewer than 2⁷ blocks.
        let word = state.plugged[if block < 64 { 0 } else { 1 }];
        let plugged = word >> (block % 64) & 1 != 0;
        assert_eq!(plugged, model.0.contains(&(ADDRESS / BLOCK_BYTES + block)));
    }
}

fn request(input: &mut Input<'_>, driver: &mut Driver) {
    while driver.queues[0].poll().is_some() {}
    if driver.queues[0].free_descriptors() < 2 {
        return;
    }
    let mut request = [0; 24];
    let kind = match input.u8() {
        0 => input.u16(),
        _ => input.pick(&[0, 0, 1, 1, 2, 3]),
    };
    let address = match input.u8() {
        0 => input.u64(),
        block => ADDRESS + u64::from(block) % (BLOCKS + 1) * BLOCK_BYTES,
    };
    let blocks = match input.u8() {
        0 => input.u16(),
        count => u16::from(count % 12),
    };
    request[..2].copy_from_slice(&kind.to_le_bytes());
    request[8..16].copy_from_slice(&address.to_le_bytes());
    request[16..18].copy_from_slice(&blocks.to_le_bytes());
    let ram = driver.queues[0].ram();
    ram.write_slice(&request, GuestAddress(REQUEST))
        .expect("request is in RAM");
    let cut = input.u8();
    driver.queues[0].push(&[
        Buffer::Readable {
            addr: REQUEST,
            len: if cut == 0 { input.len() } else { 24 },
        },
        Buffer::Writable {
            addr: RESPONSE,
            len: if cut == 1 { input.len() } else { 10 },
        },
    ]);
    driver.notify(0);
}
