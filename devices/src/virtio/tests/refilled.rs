//! A second vCPU that makes buffers available as fast as they are used.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::testing::DriverQueue;

/// Longer than any access of a guest may take on the slowest host.
const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps a queue full of requests whose head is in every entry of the ring.
fn keep_full(queue: &DriverQueue, until: &AtomicBool, rounds: &AtomicUsize) {
    let deadline = Instant::now() + PATIENCE;
    while !until.load(Ordering::SeqCst) && Instant::now() < deadline {
        for _ in 0..1000 {
            queue.set_avail_index(queue.used_index().wrapping_add(QUEUE));
        }
        rounds.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_notification_ends_however_fast_the_queue_is_refilled() {
    for mut rig in rigs() {
        for Request { queue, buffers } in rig.requests.clone() {
            let head = rig.driver.queues[queue].push(&buffers);
            for _ in 1..QUEUE {
                rig.driver.queues[queue].make_available(head);
            }
            let other = rig.driver.queues[queue].clone();
            let (ended, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                scope.spawn(|| keep_full(&other, &ended, &rounds));
                while rounds.load(Ordering::SeqCst) == 0 {
                    std::hint::spin_loop();
                }
                let begun = Instant::now();
                rig.driver.notify(u32::try_from(queue).unwrap());
                // What was left over comes with the interrupt's end.
                rig.go_on();
                // The machine comes to rest: vCPUs first, then devices.
                ended.store(true, Ordering::SeqCst);
                rig.driver.device.pause();
                assert!(begun.elapsed() < PATIENCE, "{} {queue}", rig.name);
            });
            assert_eq!(rig.driver.status() & 0x40, 0, "{} {queue}", rig.name);
            rig.driver.device.resume();
            // All that is there is answered, the late requests included.
            let deadline = Instant::now() + PATIENCE;
            while rig.driver.queues[queue].used_index() != rig.driver.queues[queue].avail_index() {
                rig.go_on();
                assert!(Instant::now() < deadline, "{} {queue}", rig.name);
            }
        }
    }
}
