//! Going back to a saved moment on a machine that has run since.

use super::*;

pub fn a_vcpu_that_ran_is_brought_back<H: Hypervisor>(engine: &H) {
    let cell = RAM + 0x4_0000;
    let program = with_interrupts()
        .set(2, 3 << 20)
        .msr(CPACR_EL1, 2)
        .isb()
        .set(9, 0x1234_5678_9abc_def0)
        .ins_d0(7, 9)
        .set(3, cell)
        .ldxr_x(4, 3)
        .str_w(31, 1)
        // The exclusive access ends with the exit, in every life.
        .stxr_x(5, 9, 3)
        .str_w(5, 1)
        .mrs(0, CNTVCT_EL0)
        .str_x(0, 1)
        // Spoils what it can: registers, timer, masks.
        .set(9, 0)
        .ins_d0(7, 9)
        .set(2, 0)
        .msr(ICC_PMR_EL1, 2)
        .msr(ICC_IGRPEN1_EL1, 2)
        .msr(CNTV_TVAL_EL0, 2)
        .set(2, 1)
        .msr(CNTV_CTL_EL0, 2)
        .isb()
        .str_w(31, 1)
        .ldxr_x(4, 3)
        .str_w(31, 1)
        .off();
    let guest = Guest::new(engine, 1, &program);
    let mut vcpu = guest.boot();
    assert_eq!(report(&mut vcpu), 0, "set up");
    let state = vcpu.save().unwrap();
    let interrupts = guest.vm.save_interrupts().unwrap();
    for exits in [0, 1, 3, 4, 4] {
        for _ in 0..exits {
            report(&mut vcpu);
        }
        guest.vm.restore_interrupts(&interrupts).unwrap();
        vcpu.load(&state, guest.vm.counter()).unwrap();
        let mut again = vcpu.save().unwrap();
        assert!(again.counter >= state.counter);
        assert!(again.counter < state.counter + guest.vm.counter_hz());
        again.counter = state.counter;
        assert_eq!(again, state);
        assert_eq!(guest.vm.save_interrupts().unwrap(), interrupts);
    }
    assert_eq!(report(&mut vcpu), 1, "no exclusive access is open");
    let counter = report(&mut vcpu);
    let soon = state.counter + guest.vm.counter_hz() * 10;
    assert!((state.counter..soon).contains(&counter));
}

pub fn a_controller_in_use_gets_exactly_the_saved_state<H: Hypervisor>(engine: &H) {
    let level = SPI + 2;
    let word = GIC_DISTRIBUTOR + u64::from(SPI / 32) * 4;
    let program = with_interrupts()
        .poke(word + 0x80, !0)
        .poke(word + 0x100, !0)
        .set(1, DEVICE)
        .str_w(31, 1)
        .mrs(0, ICC_IAR1_EL1)
        .str_w(0, 1)
        .mrs(0, ICC_IAR1_EL1)
        .str_w(0, 1)
        .off();
    let guest = Guest::new(engine, 1, &program);
    let mut vcpu = guest.boot();
    assert_eq!(report(&mut vcpu), 0, "set up");
    // One edge is latched in the saved state and one line driven.
    guest.vm.set_irq(OTHER_SPI, true).unwrap();
    guest.vm.set_irq(level, true).unwrap();
    let state = vcpu.save().unwrap();
    let with_both = guest.vm.save_interrupts().unwrap();
    for _ in 0..3 {
        // Active, latched and lowered since.
        assert_eq!(report(&mut vcpu), u64::from(OTHER_SPI));
        guest.vm.set_irq(SPI, true).unwrap();
        guest.vm.set_irq(level, false).unwrap();
        guest.vm.set_irq(level + 1, true).unwrap();
        assert_ne!(guest.vm.save_interrupts().unwrap(), with_both);
        guest.vm.restore_interrupts(&with_both).unwrap();
        vcpu.load(&state, guest.vm.counter()).unwrap();
        assert_eq!(guest.vm.save_interrupts().unwrap(), with_both);
    }
    assert_eq!(report(&mut vcpu), u64::from(OTHER_SPI));
    // It is active, and the level has the same priority: nothing more until
    // it ends, as it was the first time.
    assert_eq!(report(&mut vcpu), 1023);
    assert_eq!(run(&mut vcpu), Exit::Shutdown);
}
