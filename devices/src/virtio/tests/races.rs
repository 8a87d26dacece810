//! A second vCPU that rewrites descriptors and requests while they are used.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::virtio::mmio::status;

const ROUNDS: usize = 2000;
/// Memory that no descriptor ever names.
const CANARY: u64 = 0x30_0000;
const CANARY_BYTES: usize = 0x1_0000;

/// Rewrites both descriptors of a request again and again: as they were, other
/// addresses, lengths, flags and followers, and what is not in RAM at all.
fn rewrite(rig: &Rig, queue: usize, buffers: &[Buffer], until: &AtomicBool) {
    let queue = &rig.driver.queues[queue];
    let good: Vec<(u64, u32, u16)> = buffers
        .iter()
        .map(|buffer| match *buffer {
            Buffer::Readable { addr, len } => (addr, len, 0),
            Buffer::Writable { addr, len } => (addr, len, 2),
        })
        .collect();
    let header: Vec<u8> = (0_u8..64).map(|n| n ^ 0x5a).collect();
    let mut request = vec![0; 64];
    rig.ram
        .read_slice(&mut request, GuestAddress(good[0].0))
        .unwrap();
    let set = |index: usize, addr, len, flags: u16| {
        let next = u16::from(index + 1 < good.len());
        let follower = u16::try_from(index + 1).unwrap();
        queue.set_descriptor(
            u16::try_from(index).unwrap(),
            addr,
            len,
            flags | next,
            follower,
        );
    };
    while !until.load(Ordering::SeqCst) {
        for (index, &(addr, len, flags)) in good.iter().enumerate() {
            set(index, addr + 0x8000, len, flags);
            set(index, addr, len + 1, flags);
            set(index, 1 << 40, len, flags);
            set(index, addr, u32::MAX, flags);
            set(index, addr, len, flags ^ 2);
            set(index, addr, 0, flags);
            queue.set_descriptor(u16::try_from(index).unwrap(), addr, len, 5, 0);
            set(index, addr, len, flags);
        }
        rig.write(good[0].0, &header);
        rig.write(good[0].0, &request);
    }
    for (index, &(addr, len, flags)) in good.iter().enumerate() {
        set(index, addr, len, flags);
    }
    rig.write(good[0].0, &request);
}

#[test]
fn descriptors_that_change_under_a_device_harm_nobody_else() {
    for mut rig in rigs() {
        rig.write(CANARY, &vec![0x77; CANARY_BYTES]);
        for Request { queue, buffers } in rig.requests.clone() {
            let ended = AtomicBool::new(false);
            let number = u32::try_from(queue).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| rewrite(&rig, queue, &buffers, &ended));
                for _ in 0..ROUNDS {
                    rig.driver.queues[queue].make_available(0);
                    rig.driver.notify(number);
                    rig.driver.acknowledge();
                    if rig.driver.status() & status::NEEDS_RESET != 0 {
                        // Its driver starts again, over the same rings.
                        rig.driver.negotiate(0);
                        for (index, queue) in (0..).zip(&rig.driver.queues) {
                            queue.clone().set_position(0);
                            rig.driver.set_up_queue(index, queue);
                        }
                        rig.driver.set_status(status::DRIVER_OK);
                    }
                }
                ended.store(true, Ordering::SeqCst);
            });
            // A driver that behaves gets what it asks for.
            let sizes = vec![QUEUE; rig.driver.queues.len()];
            let (device, irq) = (rig.driver.device.clone(), rig.driver.irq.clone());
            rig.driver = Driver::start(&rig.ram, device, irq, RINGS, &sizes);
            rig.driver.queues[queue].push(&buffers);
            rig.driver.notify(number);
            rig.driver.wait_used(queue);
        }
        let mut canary = vec![0; CANARY_BYTES];
        rig.ram
            .read_slice(&mut canary, GuestAddress(CANARY))
            .unwrap();
        assert!(canary.iter().all(|byte| *byte == 0x77), "{}", rig.name);
    }
}
