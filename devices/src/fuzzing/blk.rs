//! Block requests of any shape.

use std::fs::File;
use std::os::unix::fs::FileExt;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::{Input, MAX_OPS, RAM_BYTES, patterned_ram};
use crate::GuestRam;
use crate::testing::DriverQueue;
use crate::virtio::blk::RequestRunner;
use crate::virtio::chain::Chain;

const RINGS: u64 = 0x1_0000;
const HEADER: u64 = 0x8000;
const QUEUE: u16 = 16;
const DISK_BYTES: usize = 16 << 10;

/// Runs block requests one after another. Fails if the disk changes its
/// length, a read-only disk or the base of one changes at all, or a request writes to
/// guest RAM outside its writable descriptors.
pub fn fuzz_blk(data: &[u8]) {
    let mut input = Input(data);
    let how = input.u8() % 4;
    let (read_only, is_base) = (how == 0, how == 1);
    let write_through = input.u8() % 8 == 0;
    let Ok(file) = tempfile::tempfile() else {
        return;
    };
    let content = vec![0x3c; DISK_BYTES];
    if file.write_all_at(&content, 0).is_err() {
        return;
    }
    let ram = patterned_ram();
    let mut driver = DriverQueue::new(ram.clone(), RINGS, QUEUE);
    let mut queue = device_queue(&driver);
    let mut runner = match (is_base, tempfile::tempfile()) {
        (true, Ok(own)) => RequestRunner::over(&file, own, write_through),
        (true, Err(_)) => return,
        (false, _) => RequestRunner::new(&file, read_only, write_through),
    };
    for _ in 0..MAX_OPS {
        if input.is_empty() {
            break;
        }
        put_chain(&mut input, &ram, &driver);
        let Ok(Some(chain)) = Chain::pop(&mut queue, &*ram, usize::from(QUEUE)) else {
            // The driver broke its ring: a reset and a new start.
            driver = DriverQueue::new(ram.clone(), RINGS, QUEUE);
            queue = device_queue(&driver);
            continue;
        };
        run(&mut runner, &ram, &chain);
        check_disk(&file, read_only || is_base);
    }
}

fn device_queue(driver: &DriverQueue) -> Queue {
    let mut queue = Queue::new(QUEUE).expect("size is a power of two");
    let [table, avail, used] = driver.addresses().map(GuestAddress);
    queue.try_set_desc_table_address(table).expect("aligned");
    queue.try_set_avail_ring_address(avail).expect("aligned");
    queue.try_set_used_ring_address(used).expect("aligned");
    queue.set_ready(true);
    queue
}

/// Writes a header and a chain around it, and makes it available.
fn put_chain(input: &mut Input<'_>, ram: &GuestRam, driver: &DriverQueue) {
    let kind = match input.u8() {
        0 => input.u32(),
        _ => input.pick(&[0, 1, 4, 8, 11, 13]),
    };
    let sector = match input.u8() {
        0 => input.u64(),
        _ => u64::from(input.u8() % 40),
    };
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    ram.write_slice(&header, GuestAddress(HEADER))
        .expect("header is in RAM");
    // Ranges for DISCARD and WRITE_ZEROES, which only these look at.
    let range: [u8; 16] = match input.u8() {
        0 => input.bytes(),
        _ => {
            let mut range = [0; 16];
            range[0] = input.u8() % 40;
            range[8] = input.u8() % 40;
            range[12] = input.u8() & 3;
            range
        }
    };
    ram.write_slice(&range, GuestAddress(HEADER + 16))
        .expect("range is in RAM");
    let data = u16::from(input.u8() % 6);
    let header_len = match input.u8() {
        0 => input.len(),
        1 => 32,
        _ => 16,
    };
    driver.set_descriptor(0, HEADER, header_len, 1, 1);
    for index in 1..=data {
        let (addr, len) = (input.address(), input.len());
        let write = match input.u8() {
            0 => input.u16() & 6,
            _ if kind == 1 || kind > 8 => 0,
            _ => 2,
        };
        driver.set_descriptor(index, addr, len, write | 1, index + 1);
    }
    let flags = if input.u8() == 0 { input.u16() & 7 } else { 2 };
    driver.set_descriptor(data + 1, HEADER + 64, 1, flags, input.u16() % 20);
    driver.make_available(if input.u8() == 0 { input.u16() } else { 0 });
}

fn run(runner: &mut RequestRunner, ram: &GuestRam, chain: &Chain) {
    let snapshot = || {
        let mut bytes = vec![0; RAM_BYTES];
        ram.read_slice(&mut bytes, GuestAddress(0))
            .expect("RAM is there");
        bytes
    };
    let before = snapshot();
    let len = runner.run(&**ram, chain);
    let mut after = snapshot();
    for part in chain.writable.range(0, chain.writable.len()) {
        let start = usize::try_from(part.addr.0).expect("RAM fits the host");
        after[start..start + part.len].copy_from_slice(&before[start..start + part.len]);
    }
    assert!(before == after, "wrote outside the writable descriptors");
    assert!(len.is_none_or(|len| len <= chain.writable.len()));
}

fn check_disk(file: &File, read_only: bool) {
    let len = file.metadata().map_or(0, |m| m.len());
    assert_eq!(len, DISK_BYTES as u64, "disk changed its length");
    if read_only {
        let mut content = vec![0; DISK_BYTES];
        file.read_exact_at(&mut content, 0).expect("disk is whole");
        assert!(content.iter().all(|&byte| byte == 0x3c), "disk changed");
    }
}
