use std::io::Read;
use std::sync::{Arc, Mutex};

use crate::testing::{Buffer, CountingIrq, Driver, guest_ram};
use crate::virtio::mmio::VirtioMmio;
use crate::virtio::rng::Rng;

const RINGS: u64 = 0x1_0000;
const QUEUE: u16 = 8;
/// A queue that is filled this often while it is served is filled without end.
const ENOUGH: usize = 100;

/// The other vCPU: adds a request each time one is answered, `left` times.
#[derive(Clone)]
struct Refiller(Arc<Mutex<State>>);

struct State {
    driver: Option<Driver>,
    left: usize,
    answered: usize,
}

impl Read for Refiller {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        state.answered += 1;
        if state.left > 0 {
            state.left -= 1;
            if let Some(driver) = &state.driver {
                driver.queues[0].make_available(0);
            }
        }
        Ok(buf.len())
    }
}

fn refilled(times: usize) -> (Refiller, Driver) {
    let ram = guest_ram(1 << 20);
    let refiller = Refiller(Arc::new(Mutex::new(State {
        driver: None,
        left: times,
        answered: 0,
    })));
    let irq = Arc::new(CountingIrq::default());
    let rng = Rng::new(Box::new(refiller.clone()));
    let device = Arc::new(VirtioMmio::new(ram.clone(), irq.clone(), Box::new(rng)));
    let mut driver = Driver::start(&ram, device.clone(), irq.clone(), RINGS, &[QUEUE]);
    // Descriptor 0, which every entry of the ring names.
    let buffer = Buffer::Writable {
        addr: 0x8_0000,
        len: 4,
    };
    assert_eq!(driver.queues[0].push(&[buffer]), 0);
    let other = Driver {
        device,
        irq,
        queues: driver.queues.clone(),
    };
    refiller.0.lock().unwrap().driver = Some(other);
    (refiller, driver)
}

fn answered(refiller: &Refiller) -> usize {
    refiller.0.lock().unwrap().answered
}

#[test]
fn a_queue_that_is_refilled_is_left_after_a_queues_worth() {
    let (refiller, driver) = refilled(ENOUGH);
    driver.notify(0);
    assert_eq!(answered(&refiller), usize::from(QUEUE));
    refiller.0.lock().unwrap().driver = None;
}

#[test]
fn what_is_left_is_served_as_the_driver_acknowledges_interrupts() {
    let (refiller, driver) = refilled(ENOUGH);
    // The driver wants to hear of the last answer alone.
    let all = u16::try_from(ENOUGH).unwrap() + 1;
    driver.queues[0].set_used_event(all - 1);
    driver.notify(0);
    for _ in 0..ENOUGH {
        if driver.read(0x060) == 0 {
            break;
        }
        driver.acknowledge();
    }
    assert_eq!(answered(&refiller), usize::from(all));
    assert_eq!(driver.device.state().queues[0].next_used, all);
    refiller.0.lock().unwrap().driver = None;
}

#[test]
fn a_paused_device_serves_nothing_before_it_goes_on() {
    let (refiller, driver) = refilled(0);
    driver.device.pause();
    driver.notify(0);
    assert_eq!(answered(&refiller), 0);
    driver.device.resume();
    assert_eq!(answered(&refiller), 1);
    refiller.0.lock().unwrap().driver = None;
}
