//! What devices look at in guest memory, and memory that is no RAM.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::testing::{ProbedMemory, memory_at};
use crate::virtio::mmio::status;

const TABLE: u64 = 0x20_0000;
/// A window beside RAM, as files are shown to a guest through.
const WINDOW: u64 = 8 << 30;
const WINDOW_BYTES: usize = 1 << 20;

fn probed(ram: GuestRam) -> Arc<ProbedMemory> {
    Arc::new(ProbedMemory::new([ram]))
}

fn windowed(ram: GuestRam) -> Arc<ProbedMemory> {
    Arc::new(ProbedMemory::new([ram, memory_at(WINDOW, WINDOW_BYTES)]))
}

/// Makes a request and waits for its answer, which needs no interrupt.
fn answered(rig: &mut Rig<ProbedMemory>, queue: usize) {
    rig.driver.notify(u32::try_from(queue).unwrap());
    rig.driver.wait_used(queue);
    // Other threads that were woken have looked at the queue by now.
    rig.driver.device.pause();
    rig.driver.device.resume();
}

/// Each of these bytes is looked at twice: whether it is there, and then for
/// its content. A second vCPU that changes it in between, or later, decides
/// what the device sees, and never has it see two things.
fn assert_read_once(rig: &Rig<ProbedMemory>, buffers: &[Buffer]) {
    for buffer in buffers {
        if let Buffer::Readable { addr, len } = *buffer {
            let touched = rig.memory.touched(addr, len as usize);
            assert_eq!(touched, 2, "{}: request at {addr:#x}", rig.name);
        }
    }
}

#[test]
fn descriptors_and_requests_are_read_once() {
    for mut rig in rigs_in(probed) {
        for Request { queue, buffers } in rig.requests.clone() {
            let [table, ..] = rig.driver.queues[queue].addresses();
            let free = rig.driver.queues[queue].next_descriptors(buffers.len());
            rig.memory.forget();
            rig.driver.queues[queue].push(&buffers);
            answered(&mut rig, queue);
            for index in free {
                let touched = rig.memory.touched(table + 16 * u64::from(index), 16);
                assert_eq!(touched, 1, "{}: descriptor {index}", rig.name);
            }
            assert_read_once(&rig, &buffers);
        }
    }
}

#[test]
fn indirect_descriptors_and_requests_are_read_once() {
    for mut rig in rigs_in(probed) {
        for Request { queue, buffers } in rig.requests.clone() {
            let [table, ..] = rig.driver.queues[queue].addresses();
            let free = rig.driver.queues[queue].next_descriptors(1);
            rig.memory.forget();
            rig.driver.queues[queue].push_indirect(TABLE, &buffers);
            answered(&mut rig, queue);
            let at = table + 16 * u64::from(free[0]);
            assert_eq!(rig.memory.touched(at, 16), 1, "{}", rig.name);
            for (index, _) in (0..).zip(&buffers) {
                let touched = rig.memory.touched(TABLE + 16 * index, 16);
                assert_eq!(touched, 1, "{}: entry {index}", rig.name);
            }
            assert_read_once(&rig, &buffers);
        }
    }
}

/// The request with its buffers at the same places of the window.
fn in_window(rig: &Rig<ProbedMemory>, buffers: &[Buffer]) -> Vec<Buffer> {
    let window = &rig.memory.regions()[1];
    let copied = buffers.iter().map(|buffer| match *buffer {
        Buffer::Readable { addr, len } => {
            let to = WINDOW + addr % 0x8_0000;
            let mut bytes = vec![0; len as usize];
            rig.ram.read_slice(&mut bytes, GuestAddress(addr)).unwrap();
            window.show(0..WINDOW_BYTES as u64);
            rig.memory.write_slice(&bytes, GuestAddress(to)).unwrap();
            readable(to, len)
        }
        Buffer::Writable { addr, len } => writable(WINDOW + addr % 0x8_0000, len),
    });
    copied.collect()
}

#[test]
fn buffers_may_be_in_a_window_beside_ram() {
    for mut rig in rigs_in(windowed) {
        for Request { queue, buffers } in rig.requests.clone() {
            let buffers = in_window(&rig, &buffers);
            rig.driver.queues[queue].push(&buffers);
            answered(&mut rig, queue);
            assert_eq!(rig.driver.status() & status::NEEDS_RESET, 0, "{}", rig.name);
        }
    }
}

/// Starts the driver again with whole rings.
fn start_again(rig: &mut Rig<ProbedMemory>) {
    let sizes = vec![QUEUE; rig.driver.queues.len()];
    let (device, irq) = (rig.driver.device.clone(), rig.driver.irq.clone());
    rig.driver = Driver::start(&rig.ram, device, irq, RINGS, &sizes);
}

#[test]
fn buffers_where_the_window_shows_nothing_need_a_reset() {
    for mut rig in rigs_in(windowed) {
        for Request { queue, buffers } in rig.requests.clone() {
            let hidden = in_window(&rig, &buffers);
            rig.memory.regions()[1].show(0x10_0000 - 4096..0x10_0000);
            rig.driver.queues[queue].push(&hidden);
            rig.driver.notify(u32::try_from(queue).unwrap());
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
            while rig.driver.status() & status::NEEDS_RESET == 0 {
                assert!(std::time::Instant::now() < deadline, "{}", rig.name);
                std::thread::yield_now();
            }
            start_again(&mut rig);
            rig.driver.queues[queue].push(&buffers);
            answered(&mut rig, queue);
        }
    }
}

#[test]
fn window_that_changes_under_a_device_harms_nobody() {
    for mut rig in rigs_in(windowed) {
        for Request { queue, buffers } in rig.requests.clone() {
            let changing = in_window(&rig, &buffers);
            let memory = rig.memory.clone();
            let ended = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let window = &memory.regions()[1];
                    while !ended.load(Ordering::SeqCst) {
                        window.show(0..0);
                        window.show(0..WINDOW_BYTES as u64);
                    }
                });
                for _ in 0..500 {
                    if rig.driver.queues[queue].free_descriptors() < changing.len() {
                        while rig.driver.queues[queue].poll().is_some() {}
                    } else {
                        rig.driver.queues[queue].push(&changing);
                        rig.driver.notify(u32::try_from(queue).unwrap());
                    }
                    if rig.driver.status() & status::NEEDS_RESET != 0 {
                        start_again(&mut rig);
                    }
                }
                ended.store(true, Ordering::SeqCst);
            });
            start_again(&mut rig);
            rig.driver.queues[queue].push(&buffers);
            answered(&mut rig, queue);
        }
    }
}
