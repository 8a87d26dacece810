//! Interrupts of a vCPU's own that are made pending while it stands still.

use supermachine_vmm_core::arch::aarch64::layout::HOLD_INTID;

use super::*;

const VBAR_EL1: SysReg = [3, 0, 12, 0, 0];
const ELR_EL1: SysReg = [3, 0, 4, 0, 1];
const SPSR_EL1: SysReg = [3, 0, 4, 0, 0];
const ERET: u32 = 0xd69f_03e0;
const NOP: u32 = 0xd503_201f;
/// Where exceptions lead, and from there to the vector of interrupts of lower levels
/// in AArch64 state (Arm ARM DDI 0487, D1.3.1.5).
const VECTORS: i32 = 0x800;
const OF_USER: i32 = 0x480;

/// Fills up with instructions that do nothing.
fn up_to(mut program: Program, offset: i32) -> Program {
    assert!(program.len() * 4 <= offset);
    while program.len() * 4 < offset {
        program = program.raw(NOP);
    }
    program
}

pub fn private_interrupts_come_before_the_next_user_instruction<H: Hypervisor>(engine: &H) {
    const USER: i32 = 0x1000;
    let at = |offset: i32| RAM + u64::from(offset.unsigned_abs());
    let program = with_interrupts()
        .poke(GIC_REDISTRIBUTORS + 0x1_0100, 1 << HOLD_INTID)
        .set(1, DEVICE)
        .set(2, at(VECTORS))
        .msr(VBAR_EL1, 2)
        .set(2, at(USER))
        .msr(ELR_EL1, 2)
        // User mode with nothing masked.
        .msr(SPSR_EL1, 31)
        .isb()
        .raw(ERET);
    let program = up_to(program, VECTORS + OF_USER)
        .mrs(0, ICC_IAR1_EL1)
        .str_w(0, 1)
        .msr(ICC_EOIR1_EL1, 0)
        .mrs(0, ICC_IAR1_EL1)
        .str_w(0, 1)
        .raw(ERET);
    // One report after the other, with nothing between at which it could stop.
    let program = up_to(program, USER)
        .set(5, 101)
        .set(6, 102)
        .set(7, 103)
        .str_w(5, 1)
        .str_w(6, 1)
        .str_w(7, 1)
        .spin();
    let guest = Guest::new(engine, 1, &program);
    let mut vcpu = guest.boot();
    for number in [101, 102] {
        assert_eq!(report(&mut vcpu), number);
        // As a copy of it would begin.
        let state = vcpu.save().unwrap();
        vcpu.load(&state, guest.vm.counter()).unwrap();
        vcpu.interrupt(HOLD_INTID).unwrap();
        assert_eq!(report(&mut vcpu), u64::from(HOLD_INTID), "{number}");
        assert_eq!(report(&mut vcpu), 1023, "it is one interrupt");
    }
    assert_eq!(report(&mut vcpu), 103);
    let refused = vcpu.interrupt(32);
    assert_eq!(refused, Err(EngineError::NotPrivate { intid: 32 }));
    assert!(vcpu.interrupt(u32::MAX).is_err());
}

pub fn private_interrupts_wake_a_waiting_guest<H: Hypervisor>(engine: &H) {
    let program = with_interrupts()
        .poke(GIC_REDISTRIBUTORS + 0x1_0100, 1 << HOLD_INTID)
        .set(1, DEVICE)
        .str_w(31, 1)
        .wfi()
        .mrs(0, ICC_IAR1_EL1)
        .str_w(0, 1)
        .off();
    let guest = Guest::new(engine, 1, &program);
    let mut vcpu = guest.boot();
    assert_eq!(report(&mut vcpu), 0, "set up");
    let kick = vcpu.kick();
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        kick.kick();
    });
    // In the middle of waiting, or before it.
    while vcpu.run().unwrap() != Exit::Kicked {}
    waker.join().unwrap();
    vcpu.interrupt(HOLD_INTID).unwrap();
    assert_eq!(report(&mut vcpu), u64::from(HOLD_INTID));
    assert_eq!(run(&mut vcpu), Exit::Shutdown);
}
