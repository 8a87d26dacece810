//! Shared memory regions (virtio 1.2 §2.10 and §4.2.2): SHMSel at 0x0ac,
//! SHMLen at 0x0b0, SHMBase at 0x0b8.

use super::*;

/// Base and length of the region that SHMSel names.
fn region(driver: &Driver, id: u32) -> (u64, u64) {
    driver.write(0x0ac, id);
    let wide = |at| u64::from(driver.read(at)) | u64::from(driver.read(at + 4)) << 32;
    (wide(0x0b8), wide(0x0b0))
}

#[test]
fn region_shows_its_base_and_length() {
    let (_probe, _ram, driver) = probe();
    assert_eq!(region(&driver, 3), (0x8_1234_0000, 0x2_0000_4000));
}

#[test]
fn absent_regions_have_length_and_base_minus_one() {
    let (_probe, _ram, driver) = probe();
    for id in [0, 2, 4, 255, 256, 256 + 3, u32::MAX] {
        assert_eq!(region(&driver, id), (u64::MAX, u64::MAX), "{id}");
    }
    let (ram, irq) = (guest_ram(1 << 20), Arc::new(CountingIrq::default()));
    let device = VirtioMmio::new(ram, irq.clone(), Box::new(Rng::host()));
    let without = Driver {
        device: Arc::new(device),
        irq,
        queues: Vec::new(),
    };
    assert_eq!(region(&without, 0), (u64::MAX, u64::MAX));
}

#[test]
fn selection_cannot_be_read_and_the_region_cannot_be_written() {
    let (_probe, _ram, driver) = probe();
    let before = region(&driver, 3);
    assert_eq!(driver.read(0x0ac), 0, "it is write-only");
    for at in [0x0b0, 0x0b4, 0x0b8, 0x0bc] {
        driver.write(at, 7);
        driver.device.write(at, &[1, 2]);
    }
    assert_eq!(region(&driver, 3), before);
    // Only whole registers can be read.
    let mut byte = [0x55];
    driver.device.read(0x0b8, &mut byte);
    assert_eq!(byte, [0]);
}

#[test]
fn selection_is_saved_and_gone_after_a_reset() {
    let (_probe, _ram, driver) = started();
    let wanted = region(&driver, 3);
    let state = driver.device.state();
    region(&driver, 4);
    driver.device.reset_to(&state).unwrap();
    assert_eq!(u64::from(driver.read(0x0b8)), wanted.0 & 0xffff_ffff);
    driver.write(0x070, 0);
    assert_eq!(driver.read(0x0b8), u32::MAX, "region 0 is absent");
}
