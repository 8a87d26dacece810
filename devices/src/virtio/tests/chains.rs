//! Indirect tables and chains that are not as they should be.

use super::*;
use crate::virtio::mmio::status;

const TABLE: u64 = 0x20_0000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

fn put(rig: &Rig, index: u64, addr: u64, len: u32, flags: u16, next: u16) {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&addr.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    rig.write(TABLE + 16 * index, &bytes);
}

/// Puts a request into an indirect table; the table's length.
fn put_table(rig: &Rig, buffers: &[Buffer]) -> u32 {
    for (n, buffer) in (0_u16..).zip(buffers) {
        let last = usize::from(n) + 1 == buffers.len();
        let next = if last { 0 } else { NEXT };
        let (addr, len, flags) = match *buffer {
            Buffer::Readable { addr, len } => (addr, len, next),
            Buffer::Writable { addr, len } => (addr, len, next | WRITE),
        };
        put(
            rig,
            n.into(),
            addr,
            len,
            flags,
            if last { 0 } else { n + 1 },
        );
    }
    16 * u32::try_from(buffers.len()).unwrap()
}

fn offer(rig: &Rig, queue: usize, addr: u64, len: u32, flags: u16) {
    rig.driver.queues[queue].set_descriptor(0, addr, len, flags, 1);
    rig.driver.queues[queue].set_descriptor(1, DATA, 4, 0, 0);
    rig.driver.queues[queue].make_available(0);
    rig.driver.notify(u32::try_from(queue).unwrap());
    // Requests are taken off the queue by then, by whatever thread.
    rig.driver.device.pause();
    rig.driver.device.resume();
    rig.driver.device.pause();
    rig.driver.device.resume();
}

fn wait_for(rig: &Rig, what: &str, done: impl Fn(&Rig) -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !done(rig) {
        assert!(std::time::Instant::now() < deadline, "{}: {what}", rig.name);
        std::thread::yield_now();
    }
}

#[test]
fn whole_indirect_tables_are_followed() {
    for rig in rigs() {
        for Request { queue, buffers } in rig.requests.clone() {
            let len = put_table(&rig, &buffers);
            offer(&rig, queue, TABLE, len, INDIRECT);
            wait_for(&rig, "no answer", |rig| {
                rig.driver.queues[queue].used_index() == 1
            });
            assert_eq!(rig.driver.status() & status::NEEDS_RESET, 0);
        }
    }
}

/// A way to spoil a table: gives address, length and flags of the descriptor
/// that points to it.
type Way = fn(&Rig, u32) -> (u64, u32, u16);

#[test]
fn odd_indirect_tables_need_a_reset_and_a_reset_helps() {
    let ways: [(&str, Way); 12] = [
        ("one byte short", |_, len| (TABLE, len - 1, INDIRECT)),
        ("one byte long", |_, len| (TABLE, len + 1, INDIRECT)),
        ("half a descriptor", |_, _| (TABLE, 8, INDIRECT)),
        ("empty", |_, _| (TABLE, 0, INDIRECT)),
        ("of 4 GiB", |_, _| (TABLE, 0xffff_fff0, INDIRECT)),
        ("of 65536 entries", |_, _| (TABLE, 16 << 16, INDIRECT)),
        ("outside of RAM", |_, len| (1 << 40, len, INDIRECT)),
        ("at the end of addresses", |_, _| {
            (u64::MAX - 15, 32, INDIRECT)
        }),
        ("nested", |rig, _| {
            put(rig, 0, TABLE + 0x100, 16, INDIRECT, 0);
            (TABLE, 16, INDIRECT)
        }),
        ("next beyond the table", |rig, len| {
            put(rig, 0, DATA, 4, NEXT, u16::try_from(len / 16).unwrap());
            (TABLE, len, INDIRECT)
        }),
        ("a loop", |rig, len| {
            put(rig, 0, DATA, 4, NEXT, 0);
            (TABLE, len, INDIRECT)
        }),
        ("a buffer outside of RAM", |rig, len| {
            put(rig, 0, u64::MAX, 4, 0, 0);
            (TABLE, len, INDIRECT)
        }),
    ];
    for (what, way) in ways {
        for mut rig in rigs() {
            for Request { queue, buffers } in rig.requests.clone() {
                let len = put_table(&rig, &buffers);
                let (addr, len, flags) = way(&rig, len);
                offer(&rig, queue, addr, len, flags);
                wait_for(&rig, what, |rig| {
                    rig.driver.status() & status::NEEDS_RESET != 0
                });
                let sizes = vec![QUEUE; rig.driver.queues.len()];
                let (device, irq) = (rig.driver.device.clone(), rig.driver.irq.clone());
                rig.driver = Driver::start(&rig.ram, device, irq, RINGS, &sizes);
                rig.driver.queues[queue].push(&buffers);
                rig.driver.notify(u32::try_from(queue).unwrap());
                rig.driver.wait_used(queue);
            }
        }
    }
}
