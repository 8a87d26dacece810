//! What an owner hears of a device, and what is counted.

use super::*;

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl VirtioEvents for Arc<Heard> {
    fn driver_mistake(&self, mistake: &QueueError) {
        self.0.lock().unwrap().push(mistake.to_string());
    }
    fn not_started(&self, error: &ActivateError) {
        self.0.lock().unwrap().push(error.to_string());
    }
    fn invalid_access(&self, offset: u64) {
        self.0.lock().unwrap().push(format!("{offset:#x}"));
    }
}

fn rng() -> (Arc<Heard>, GuestRam, Arc<VirtioMmio>, Arc<CountingIrq>) {
    let (ram, irq) = (guest_ram(1 << 20), Arc::new(CountingIrq::default()));
    let heard = Arc::new(Heard::default());
    let events = Box::new(heard.clone());
    let rng = Box::new(Rng::host());
    let device = VirtioMmio::with_events(ram.clone(), irq.clone(), rng, events);
    (heard, ram, Arc::new(device), irq)
}

impl Heard {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[test]
fn owner_hears_what_went_wrong() {
    let (heard, ram, device, irq) = rng();
    let driver = Driver::start(&ram, device.clone(), irq.clone(), RINGS, &[8]);
    assert!(heard.take().is_empty(), "a good driver is silent");
    driver.queues[0].set_descriptor(0, 1 << 40, 4, 2, 0);
    driver.queues[0].make_available(0);
    driver.notify(0);
    let outside = "descriptor of 4 bytes at 0x10000000000 is not in guest memory";
    assert_eq!(heard.take(), [outside]);
    driver.write(0x07c, 1);
    assert_eq!(heard.take(), ["0x7c"]);
    // Rings that are nowhere.
    driver.negotiate(0);
    driver.write(0x038, 8);
    for at in [0x084, 0x094, 0x0a4] {
        driver.write(at, 0x100);
    }
    driver.write(0x044, 1);
    driver.set_status(status::DRIVER_OK);
    let nowhere = "queue 0 has rings that are not in guest memory";
    assert_eq!(heard.take(), [nowhere]);
    assert_ne!(driver.status() & status::NEEDS_RESET, 0);
}

#[test]
fn counters_go_on_over_resets() {
    let (_heard, ram, device, irq) = rng();
    let mut driver = Driver::start(&ram, device.clone(), irq, RINGS, &[8]);
    let begun = device.counters();
    let buffer = Buffer::Writable {
        addr: 0x8_0000,
        len: 4,
    };
    for _ in 0..3 {
        driver.queues[0].push(&[buffer]);
        driver.notify(0);
        driver.wait_used(0);
    }
    let counters = device.counters();
    assert_eq!(counters.notifications, begun.notifications + 3);
    assert_eq!(counters.interrupts, begun.interrupts + 3);
    assert_eq!(counters.resets, begun.resets);
    let saved = device.state();
    driver.queues[0].make_available(8);
    driver.notify(0);
    assert_eq!(device.counters().mistakes, begun.mistakes + 1);
    device.reset_to(&saved).unwrap();
    driver.write(0x070, 0);
    let counters = device.counters();
    assert_eq!(counters.resets, begun.resets + 2);
    assert_eq!(counters.notifications, begun.notifications + 4);
}
