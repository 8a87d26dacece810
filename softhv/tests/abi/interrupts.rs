//! Interrupt lines and the interrupt controller.

use super::*;

#[test]
fn interrupt_lines_exist_only_without_an_interrupt_controller() {
    for with_gic in [false, true] {
        let engine = if with_gic {
            Engine::with_gic()
        } else {
            Engine::with_vm()
        };
        let api = engine.0;
        let (id, exit) = engine.create_vcpu().unwrap();
        let mut pending = false;
        // SAFETY: the out-parameter is valid.
        unsafe {
            let set = (api.vcpu_set_pending_interrupt)(id, InterruptType::FIQ, true);
            let get = (api.vcpu_get_pending_interrupt)(id, InterruptType::FIQ, &raw mut pending);
            if with_gic {
                assert_eq!((set, get), (Return::UNSUPPORTED, Return::UNSUPPORTED));
            } else {
                assert_eq!((set, get), (Return::SUCCESS, Return::SUCCESS));
                assert!(pending);
                let bad = (api.vcpu_set_pending_interrupt)(id, InterruptType(2), true);
                assert_eq!(bad, Return::BAD_ARGUMENT);
                let _ = engine.kick(&[id]);
                engine.run(id, exit);
                let _ = (api.vcpu_get_pending_interrupt)(id, InterruptType::FIQ, &raw mut pending);
                assert!(!pending, "an exit forgets the line");
            }
        }
        assert_eq!(engine.destroy_vcpu(id), Return::SUCCESS);
    }
}

#[test]
fn the_interrupt_controller_comes_after_the_vm_and_before_vcpus() {
    let engine = Engine::new();
    let gic = engine.gic();
    // SAFETY: handles are used as the ABI says.
    unsafe {
        let config = (gic.config_create)();
        assert_eq!(
            (gic.config_set_distributor_base)(config, !0xffff),
            Return::BAD_ARGUMENT
        );
        assert_eq!(
            (gic.config_set_distributor_base)(config, GICD + 0x1000),
            Return::BAD_ARGUMENT
        );
        assert_eq!(
            (gic.config_set_msi_interrupt_range)(config, 31, 1),
            Return::BAD_ARGUMENT
        );
        assert_eq!(
            (gic.config_set_msi_interrupt_range)(config, 32, 1000),
            Return::BAD_ARGUMENT
        );
        assert_eq!((gic.create)(config), Return::NO_DEVICE);
        assert_eq!(engine.create_vm(), Return::SUCCESS);
        assert_eq!((gic.create)(config), Return::BAD_ARGUMENT, "no bases");
        let _ = (gic.config_set_distributor_base)(config, GICD);
        let _ = (gic.config_set_redistributor_base)(config, GICD);
        assert_eq!((gic.create)(config), Return::BAD_ARGUMENT, "overlap");
        let _ = (gic.config_set_redistributor_base)(config, GICR);
        let (id, _) = engine.create_vcpu().unwrap();
        assert_eq!((gic.create)(config), Return::BUSY);
        assert_eq!(engine.destroy_vcpu(id), Return::SUCCESS);
        assert_eq!((gic.create)(config), Return::SUCCESS);
        assert_eq!((gic.create)(config), Return::EXISTS);
        (engine.0.os_release)(config.0);
    }
}

#[test]
fn interrupt_numbers_and_geometry_agree_with_the_registers() {
    let engine = Engine::with_gic();
    let gic = engine.gic();
    // SAFETY: out-parameters are valid or null where that is the point.
    unsafe {
        let (mut first, mut count, mut typer) = (0, 0, 0);
        let read = (gic.get_spi_interrupt_range)(&raw mut first, &raw mut count);
        assert_eq!((read, first), (Return::SUCCESS, 32));
        let _ = (gic.get_distributor_reg)(GicDistributorReg::TYPER, &raw mut typer);
        assert_eq!(u64::from(first + count), (typer & 31) * 32 + 32);
        assert_eq!((gic.set_spi)(first + count - 1, true), Return::SUCCESS);
        for intid in [0, 31, first + count, 1020] {
            assert_eq!((gic.set_spi)(intid, true), Return::BAD_ARGUMENT);
        }
        assert_eq!((gic.send_msi)(0x0802_0040, 40), Return::BAD_ARGUMENT);
        let mut intid = 0;
        let _ = (gic.get_intid)(GicIntid::EL1_VIRTUAL_TIMER, &raw mut intid);
        assert_eq!(intid, 27);
        assert_eq!(
            (gic.get_intid)(GicIntid::MAINTENANCE, &raw mut intid),
            Return::UNSUPPORTED
        );
        for (get, wanted) in [
            (gic.get_distributor_size, 0x1_0000),
            (gic.get_distributor_base_alignment, 0x1_0000),
            (gic.get_redistributor_size, 0x2_0000),
            (gic.get_redistributor_region_size, 0x200_0000),
            (gic.get_msi_region_size, 0x1_0000),
        ] {
            let mut bytes = 0;
            assert_eq!(get(&raw mut bytes), Return::SUCCESS);
            assert_eq!(bytes, wanted);
            assert_eq!(get(null_mut()), Return::BAD_ARGUMENT);
        }
    }
}

#[test]
fn redistributors_are_known_once_affinity_is_set() {
    let engine = Engine::with_gic();
    let gic = engine.gic();
    let (id, _) = engine.create_vcpu().unwrap();
    let mut base = 0;
    // SAFETY: the out-parameter is valid.
    unsafe {
        assert_eq!(
            (gic.get_redistributor_base)(id, &raw mut base),
            Return::ERROR
        );
        let _ = engine.set_sys_reg(id, SysReg::MPIDR_EL1, 0x8000_0000);
        assert_eq!(
            (gic.get_redistributor_base)(id, &raw mut base),
            Return::SUCCESS
        );
        assert_eq!(base, GICR);
        assert_eq!(
            (gic.get_redistributor_base)(VcpuId(9), &raw mut base),
            Return::BAD_ARGUMENT
        );
        let mut typer = 0;
        let read = (gic.get_redistributor_reg)(id, GicRedistributorReg::TYPER, &raw mut typer);
        assert_eq!((read, typer), (Return::SUCCESS, 1 << 4));
        let far = GicRedistributorReg(0x2_0000);
        assert_eq!(
            (gic.get_redistributor_reg)(id, far, &raw mut typer),
            Return::BAD_ARGUMENT
        );
        let mut pmr = 0;
        assert_eq!(
            (gic.set_icc_reg)(id, GicIccReg::PMR_EL1, 0xff),
            Return::SUCCESS
        );
        let _ = (gic.get_icc_reg)(id, GicIccReg::PMR_EL1, &raw mut pmr);
        assert_eq!(pmr, 0xf8);
        assert_eq!(
            (gic.set_icc_reg)(id, GicIccReg::RPR_EL1, 0),
            Return::BAD_ARGUMENT
        );
        // IAR1 has side effects, SRE_EL2 needs EL2.
        assert_eq!(
            (gic.get_icc_reg)(id, GicIccReg(0xc660), &raw mut pmr),
            Return::BAD_ARGUMENT
        );
        assert_eq!(
            (gic.get_icc_reg)(id, GicIccReg(0xe64d), &raw mut pmr),
            Return::UNSUPPORTED
        );
    }
    assert_eq!(engine.destroy_vcpu(id), Return::SUCCESS);
}

#[test]
fn interrupt_controller_state_is_restored_before_the_first_run_or_after_a_reset() {
    let engine = Engine::with_gic();
    let empty = engine.save_gic().unwrap();
    let (id, exit) = engine.create_vcpu().unwrap();
    let _ = engine.set_sys_reg(id, SysReg::MPIDR_EL1, 0x8000_0000);
    let blob = engine.save_gic().unwrap();
    // vCPUs may have come since; none may be missing.
    assert_eq!(engine.restore_gic(&empty), Return::SUCCESS);
    assert_eq!(engine.restore_gic(&blob), Return::SUCCESS);
    let _ = engine.set_sys_reg(id, SysReg::MPIDR_EL1, 0x8000_0001);
    assert_eq!(engine.restore_gic(&blob), Return::BAD_ARGUMENT);
    let _ = engine.set_sys_reg(id, SysReg::MPIDR_EL1, 0x8000_0000);
    let mut bad = blob.clone();
    bad[0] = 0;
    assert_eq!(engine.restore_gic(&bad), Return::BAD_ARGUMENT);
    assert_eq!(
        engine.restore_gic(&blob[..blob.len() - 1]),
        Return::BAD_ARGUMENT
    );
    // SAFETY: null is refused.
    let refused = unsafe { (engine.gic().set_state)(null(), 8) };
    assert_eq!(refused, Return::BAD_ARGUMENT);
    FAULTS
        .refuse_gic_state
        .store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(engine.restore_gic(&blob), Return::BAD_ARGUMENT);
    FAULTS.clear();
    let _ = engine.kick(&[id]);
    engine.run(id, exit);
    assert_eq!(engine.restore_gic(&blob), Return::DENIED);
    // SAFETY: no precondition.
    assert_eq!(unsafe { (engine.gic().reset)() }, Return::SUCCESS);
    assert_eq!(engine.restore_gic(&blob), Return::SUCCESS);
    assert_eq!(engine.save_gic().unwrap(), blob);
    assert_eq!(engine.destroy_vcpu(id), Return::SUCCESS);
}

#[test]
fn a_dirty_log_is_of_mapped_ranges_and_stopped_machines() {
    const BASE: u64 = 0x8000_0000;
    let engine = Engine::with_vm();
    let dirty = engine.0.dirty.unwrap();
    let mut words = [!0_u64; 2];
    let mut take = |bytes: usize, count: usize| {
        // SAFETY: the array has at least `count` words.
        unsafe { (dirty.take)(BASE, bytes, words.as_mut_ptr(), count) }
    };
    // SAFETY: no pointers.
    let start = |ipa, bytes| unsafe { (dirty.start)(ipa, bytes) };
    assert_eq!(start(BASE, PAGE), Return::ERROR);
    let ram = Ram::new(2);
    assert_eq!(engine.map(&ram, BASE, 2 * PAGE), Return::SUCCESS);
    assert_eq!(start(BASE + 4096, PAGE), Return::BAD_ARGUMENT);
    assert_eq!(start(BASE, 0), Return::BAD_ARGUMENT);
    assert_eq!(start(BASE, 3 * PAGE), Return::ERROR);
    assert_eq!(take(2 * PAGE, 1), Return::BAD_ARGUMENT);
    assert_eq!(start(BASE, 2 * PAGE), Return::SUCCESS);
    assert_eq!(take(PAGE, 1), Return::BAD_ARGUMENT);
    assert_eq!(take(2 * PAGE, 2), Return::BAD_ARGUMENT);
    assert_eq!(take(2 * PAGE, 1), Return::SUCCESS);
    // SAFETY: null is refused.
    let refused = unsafe { (dirty.take)(BASE, 2 * PAGE, null_mut(), 1) };
    assert_eq!(refused, Return::BAD_ARGUMENT);
    assert_eq!(words, [0, !0]);
}
