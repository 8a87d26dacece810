use std::sync::Arc;

use super::{Pl031, Pl031State};
use crate::MmioDevice;
use crate::testing::{CountingIrq, FixedClock};

fn read(rtc: &Pl031, offset: u64) -> u32 {
    let mut data = [0; 4];
    rtc.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn rtc(seconds: u64) -> (Arc<FixedClock>, Arc<CountingIrq>, Pl031) {
    let clock = Arc::new(FixedClock::new(seconds));
    let irq = Arc::new(CountingIrq::default());
    let rtc = Pl031::new(irq.clone(), clock.clone());
    (clock, irq, rtc)
}

#[test]
fn time_is_that_of_the_given_clock() {
    let (clock, _irq, rtc) = rtc(1_700_000_000);
    assert_eq!(read(&rtc, 0), 1_700_000_000);
    clock.set(1_700_000_100);
    assert_eq!(read(&rtc, 0), 1_700_000_100);
    clock.set(u64::MAX);
    read(&rtc, 0);
}

#[test]
fn time_set_by_the_guest_moves_on_and_survives_a_save() {
    let (clock, irq, rtc) = rtc(1000);
    rtc.write(8, &5000u32.to_le_bytes());
    clock.set(1010);
    assert_eq!(read(&rtc, 0), 5010);
    let state = rtc.state();
    let restored = Pl031::restore(state, irq, clock);
    assert_eq!(read(&restored, 0), 5010);
    assert_eq!(restored.state(), state);
}

#[test]
fn linux_finds_a_primecell() {
    let (_clock, _irq, rtc) = rtc(0);
    let ids: Vec<u32> = (0..8).map(|i| read(&rtc, 0xfe0 + 4 * i)).collect();
    assert_eq!(ids, [0x31, 0x10, 0x04, 0, 0x0d, 0xf0, 0x05, 0xb1]);
}

#[test]
fn odd_accesses_are_harmless() {
    let (_clock, _irq, rtc) = rtc(7);
    let mut byte = [0];
    rtc.read(0, &mut byte);
    assert_eq!(byte, [7]);
    let mut wide = [0xff; 8];
    rtc.read(0, &mut wide);
    assert_eq!(wide, [7, 0, 0, 0, 0, 0, 0, 0]);
    rtc.read(u64::MAX, &mut wide);
    assert_eq!(wide, [0; 8]);
    rtc.write(u64::MAX, &wide);
    rtc.write(0x10, &[]);
}

#[test]
fn restored_interrupt_drives_the_line() {
    let irq = Arc::new(CountingIrq::default());
    let state = Pl031State {
        mask: u32::MAX,
        raw: u32::MAX,
        offset_seconds: i64::MIN,
        ..Pl031State::default()
    };
    let rtc = Pl031::restore(state, irq.clone(), Arc::new(FixedClock::new(u64::MAX)));
    assert!(irq.level());
    read(&rtc, 0);
    rtc.write(0x1c, &1u32.to_le_bytes());
    assert!(!irq.level());
}

#[test]
fn clock_in_use_goes_back_to_a_saved_state_and_shows_the_time_of_now() {
    let (clock, irq, rtc) = rtc(1000);
    rtc.write(8, &1500u32.to_le_bytes());
    let state = rtc.state();
    for round in 1..10 {
        rtc.write(8, &7u32.to_le_bytes());
        rtc.write(4, &9u32.to_le_bytes());
        clock.set(1000 + round);
        rtc.reset_to(state);
        assert_eq!(rtc.state(), state);
        assert_eq!(u64::from(read(&rtc, 0)), 1500 + round);
        assert!(!irq.level());
    }
    rtc.reset_to(Pl031State {
        mask: u32::MAX,
        raw: u32::MAX,
        offset_seconds: i64::MAX,
        ..Pl031State::default()
    });
    assert!(irq.level());
    read(&rtc, 0);
}
