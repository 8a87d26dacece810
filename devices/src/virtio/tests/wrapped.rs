//! 16-bit ring indices that go from 0xffff to 0, with event indices.

use super::*;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Moves both sides of all queues to where they are after `position` requests.
fn move_to(rig: &mut Rig, position: u16) {
    rig.driver.device.pause();
    let mut state = rig.driver.device.state();
    for (queue, saved) in rig.driver.queues.iter_mut().zip(&mut state.queues) {
        queue.set_position(position);
        (saved.next_avail, saved.next_used) = (position, position);
    }
    state.interrupt_status = 0;
    rig.driver.device.reset_to(&state).unwrap();
    rig.driver.device.resume();
}

/// Whether `new` went past `event`, where it was `old` before (virtio 1.2
/// §2.7.7.2), with indices that do not wrap.
fn goes_past(event: u32, old: u32, new: u32) -> bool {
    old <= event && event < new
}

fn wait_until(done: impl Fn() -> bool, what: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn every_device_asks_for_notifications_and_interrupts_across_the_wrap() {
    for mut rig in rigs() {
        let name = rig.name;
        move_to(&mut rig, 0xfff8);
        for Request { queue, buffers } in rig.requests.clone() {
            for n in 0..16 {
                let old = rig.driver.queues[queue].avail_index();
                rig.driver.queues[queue].push(&buffers);
                let asked = rig.driver.queues[queue].wants_notification(old);
                assert!(asked, "{name} {queue}: nothing asked for at {n}");
                rig.driver.notify(u32::try_from(queue).unwrap());
                // Fails if the interrupt does not come.
                rig.driver.wait_used(queue);
                // It says what it asks for after the last buffer, on its own thread.
                let queue = &rig.driver.queues[queue];
                wait_until(|| queue.is_awaited(), name);
            }
            assert_eq!(rig.driver.queues[queue].used_index(), 8, "{name} {queue}");
        }
        assert_eq!(rig.driver.status() & 0x40, 0, "{name}");
    }
}

#[test]
fn every_device_interrupts_just_as_used_event_says_across_the_wrap() {
    for mut rig in rigs() {
        let name = rig.name;
        for Request { queue, buffers } in rig.requests.clone() {
            // Unwrapped: the driver's event is up to 3 requests behind, or
            // up to 6 ahead, of 4 requests around the wrap.
            for (start, event) in (0xfffc..0x1_0001_u32).flat_map(|start| {
                let events = start - 3..start + 6;
                events.map(move |event| (start, event))
            }) {
                let low = |index: u32| u16::try_from(index & 0xffff).unwrap();
                move_to(&mut rig, low(start));
                rig.driver.acknowledge();
                let device = &mut rig.driver;
                device.queues[queue].set_used_event(low(event));
                let pulses = device.irq.pulses();
                for _ in 0..4 {
                    device.queues[queue].push(&buffers);
                }
                device.notify(u32::try_from(queue).unwrap());
                let done = device.queues[queue].clone();
                wait_until(|| done.used_index() == low(start + 4), name);
                wait_until(|| done.is_awaited(), name);
                device.device.pause();
                device.device.resume();
                let came = device.irq.pulses() > pulses;
                let wanted = goes_past(event, start, start + 4);
                assert_eq!(came, wanted, "{name} {queue}: {start:#x} {event:#x}");
                while device.queues[queue].poll().is_some() {}
            }
        }
    }
}
