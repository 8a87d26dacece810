//! Saved ring positions that are not those of the rings.

use super::*;

/// Both of each queue's positions agree with each other, as a device that was
/// saved has them, and not with what stands in the rings.
#[test]
fn positions_that_disagree_with_the_rings_harm_nobody() {
    for mut rig in rigs() {
        let name = rig.name;
        let good = {
            rig.driver.device.pause();
            let state = rig.driver.device.state();
            rig.driver.device.resume();
            state
        };
        for position in [
            1,
            2,
            QUEUE,
            QUEUE + 1,
            0x7fff,
            0x8000,
            0xffff - QUEUE,
            0xffff,
        ] {
            rig.driver.device.pause();
            let mut state = good.clone();
            for queue in &mut state.queues {
                (queue.next_avail, queue.next_used) = (position, position);
            }
            let outcome = rig.driver.device.reset_to(&state);
            assert_eq!(outcome, Ok(()), "{name} {position:#x}");
            rig.driver.device.resume();
            for (queue, _) in (0..).zip(&rig.driver.queues) {
                rig.driver.notify(queue);
                rig.driver.acknowledge();
            }
            // The machine can be saved as it is.
            rig.driver.device.pause();
            let saved = rig.driver.device.state();
            rig.driver.device.resume();
            let moved = saved
                .queues
                .iter()
                .map(|q| q.next_avail.wrapping_sub(position));
            assert!(
                moved.into_iter().all(|n| n <= QUEUE),
                "{name} {position:#x}"
            );
            // And its driver may start again.
            let sizes = vec![QUEUE; rig.driver.queues.len()];
            let (device, irq) = (rig.driver.device.clone(), rig.driver.irq.clone());
            rig.driver = Driver::start(&rig.ram, device, irq, RINGS, &sizes);
            for Request { queue, buffers } in rig.requests.clone() {
                rig.driver.queues[queue].push(&buffers);
                rig.driver.notify(u32::try_from(queue).unwrap());
                rig.driver.wait_used(queue);
            }
        }
    }
}
