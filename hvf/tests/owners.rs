//! What the safe owners do with an engine's table.

use std::ptr::NonNull;

use supermachine_hvf::sys::*;
use supermachine_hvf::testing::{engine, with_engine};
use supermachine_hvf::{
    Capabilities, ExceptionClass, GicAddresses, GicGeometry, HvfError, Vm, feature_reg,
};

const GIC: GicAddresses = GicAddresses {
    distributor: 0x800_0000,
    redistributors: 0x80a_0000,
};

fn exception(class: ExceptionClass) -> VcpuExit {
    VcpuExit {
        reason: ExitReason::EXCEPTION,
        exception: ExitException {
            syndrome: u64::from(class.0) << 26,
            ..ExitException::default()
        },
    }
}

#[test]
fn zero_register_writes_never_reach_the_program_counter() {
    with_engine(|api| {
        let vm = Vm::new(api, None).unwrap();
        let mut vcpu = vm.create_vcpu().unwrap();
        vcpu.set_reg(Reg::PC, 0x8000_0000).unwrap();
        vcpu.set_general(31, 0xdead).unwrap();
        assert_eq!(vcpu.reg(Reg::PC).unwrap(), 0x8000_0000);
        assert_eq!(vcpu.general(31).unwrap(), 0);
        vcpu.set_general(30, 5).unwrap();
        assert_eq!(vcpu.general(30).unwrap(), 5);
        assert_eq!(vcpu.reg(Reg::LR).unwrap(), 5);
        assert_eq!(vcpu.reg(Reg::PC).unwrap(), 0x8000_0000);
    });
}

#[test]
fn irq_is_line_zero() {
    with_engine(|api| {
        let vm = Vm::new(api, None).unwrap();
        let mut vcpu = vm.create_vcpu().unwrap();
        vcpu.set_pending_interrupt(InterruptType::IRQ, true)
            .unwrap();
        engine(|e| assert!(e.vcpus[&0].irq && !e.vcpus[&0].fiq));
    });
}

#[test]
fn hypercalls_keep_their_program_counter_and_other_exits_advance_it() {
    with_engine(|api| {
        let vm = Vm::new(api, None).unwrap();
        let mut vcpu = vm.create_vcpu().unwrap();
        let cases = [
            (ExceptionClass::HVC, 0),
            (ExceptionClass::SMC, 4),
            (ExceptionClass::SYSTEM_REGISTER, 4),
            (ExceptionClass::WFX, 4),
            (ExceptionClass::DATA_ABORT, 4),
            (ExceptionClass::INSTRUCTION_ABORT, 0),
        ];
        for (class, advance) in cases {
            engine(|e| {
                e.scripts
                    .entry(0)
                    .or_default()
                    .push_back(exception(class).into())
            });
            vcpu.set_reg(Reg::PC, 0x1000).unwrap();
            let exit = vcpu.run().unwrap();
            assert_eq!(exit.exception_class(), Some(class));
            vcpu.skip_instruction(class).unwrap();
            assert_eq!(vcpu.reg(Reg::PC).unwrap(), 0x1000 + advance, "{class:?}");
        }
    });
}

#[test]
fn vectors_round_trip_through_an_aligned_pointer() {
    with_engine(|api| {
        let vm = Vm::new(api, None).unwrap();
        let mut vcpu = vm.create_vcpu().unwrap();
        let value = std::array::from_fn(|i| u8::try_from(i).unwrap());
        vcpu.set_simd(SimdReg(31), value).unwrap();
        assert_eq!(vcpu.simd(SimdReg(31)).unwrap(), value);
        assert_eq!(vcpu.simd(SimdReg(30)).unwrap(), [0; 16]);
    });
}

#[test]
fn mdcr_el2_is_found_under_either_of_its_numbers() {
    for number in [SysReg::MDCR_EL2, SysReg::MDCR_EL2_MACOS_15_0] {
        with_engine(|api| {
            engine(|e| e.mdcr_number = number.0);
            let vm = Vm::new(api, None).unwrap();
            let mut vcpu = vm.create_vcpu().unwrap();
            vcpu.set_sys_reg(SysReg::MDCR_EL2, 9).unwrap();
            assert_eq!(vcpu.sys_reg(SysReg::MDCR_EL2).unwrap(), 9);
            engine(|e| assert_eq!(e.vcpus[&0].sys[&number.0], 9));
        });
    }
}

#[test]
fn the_machine_ends_after_its_last_vcpu() {
    with_engine(|api| {
        let vm = Vm::new(api, None).unwrap();
        let vcpu = vm.create_vcpu().unwrap();
        drop(vm);
        engine(|e| assert!(e.machine, "a vCPU still needs the machine"));
        drop(vcpu);
        engine(|e| assert!(!e.machine));
    });
}

#[test]
fn a_second_machine_is_refused_with_the_reason() {
    with_engine(|api| {
        let _vm = Vm::new(api, None).unwrap();
        let error = Vm::new(api, Some(40)).unwrap_err();
        assert_eq!(error.code(), Some(Return::BUSY));
        assert_eq!(
            error.to_string(),
            "vm_create failed with HV_BUSY (this process already has a virtual machine)"
        );
    });
}

#[test]
fn a_missing_entitlement_is_named() {
    with_engine(|api| {
        engine(|e| e.fail_create = Some(Return::DENIED));
        let error = Vm::new(api, None).unwrap_err().to_string();
        assert!(error.contains("com.apple.security.hypervisor"), "{error}");
    });
}

#[test]
fn address_widths_beyond_the_host_are_refused_without_leaks() {
    with_engine(|api| {
        let error = Vm::new(api, Some(48)).unwrap_err();
        assert_eq!(error.code(), Some(Return::UNSUPPORTED));
        let capabilities = Capabilities::query(&api).unwrap();
        assert_eq!(capabilities.max_vcpus, 64);
        assert_eq!(capabilities.default_ipa_bits, 36);
        assert_eq!(capabilities.max_ipa_bits, 40);
    });
}

#[test]
fn a_kick_from_another_thread_cancels_the_next_run() {
    with_engine(|api| {
        let vm = Vm::new(api, None).unwrap();
        let mut vcpu = vm.create_vcpu().unwrap();
        let kick = vcpu.kicker();
        std::thread::spawn(move || kick.kick().unwrap())
            .join()
            .unwrap();
        assert_eq!(vcpu.run().unwrap().reason, ExitReason::CANCELED);
        drop(vcpu);
        assert!(kick.kick().is_err(), "there is no vCPU left to kick");
    });
}

#[test]
fn mappings_must_be_whole_pages() {
    with_engine(|api| {
        let vm = Vm::new(api, None).unwrap();
        let host = NonNull::without_provenance(std::num::NonZero::new(0x4000_0000).unwrap());
        let crooked = NonNull::without_provenance(std::num::NonZero::new(0x4000_1000).unwrap());
        let rwx = MemoryFlags::RWX;
        // SAFETY: this engine never touches the memory it is told about.
        unsafe {
            vm.map(host, 0x8000_0000, PAGE_BYTES, rwx).unwrap();
            for (host, ipa, size) in [
                (host, 0x8000_1000, PAGE_BYTES),
                (host, 0x8000_0000, 0x1000),
                (host, 0x8000_0000, 0),
                (crooked, 0x8000_0000, PAGE_BYTES),
            ] {
                let error = vm.map(host, ipa, size, rwx).unwrap_err();
                assert!(matches!(error, HvfError::Misaligned { .. }), "{error}");
            }
        }
        vm.protect(0x8000_0000, PAGE_BYTES, MemoryFlags::READ)
            .unwrap();
        engine(|e| assert_eq!(e.maps[&0x8000_0000], (PAGE_BYTES, MemoryFlags::READ)));
        vm.unmap(0x8000_0000, PAGE_BYTES).unwrap();
        assert!(vm.unmap(0x8000_0000, PAGE_BYTES).is_err());
    });
}

#[test]
fn the_interrupt_controller_comes_before_vcpus_and_owns_their_lines() {
    with_engine(|api| {
        let vm = Vm::new(api, None).unwrap();
        let gic = vm.create_gic(GIC).unwrap();
        let mut vcpu = vm.create_vcpu().unwrap();
        let error = vcpu
            .set_pending_interrupt(InterruptType::IRQ, true)
            .unwrap_err();
        assert_eq!(error.code(), Some(Return::UNSUPPORTED));
        assert!(vm.create_gic(GIC).is_err());
        gic.set_spi(33, true).unwrap();
        assert!(gic.set_spi(31, true).is_err());
        engine(|e| assert_eq!(e.spis, [(33, true)]));
        assert_eq!(gic.intid(GicIntid::EL1_VIRTUAL_TIMER).unwrap(), 27);
        assert_eq!(vcpu.icc_reg(GicIccReg::PMR_EL1).unwrap(), 0xc230);
    });
}

#[test]
fn interrupt_state_round_trips_and_foreign_state_is_refused() {
    with_engine(|api| {
        let vm = Vm::new(api, None).unwrap();
        let gic = vm.create_gic(GIC).unwrap();
        let state = gic.capture().unwrap();
        gic.restore(&state).unwrap();
        engine(|e| assert_eq!(e.restored, state));
        let error = gic.restore(b"other").unwrap_err();
        assert!(error.to_string().contains("another engine"), "{error}");
    });
}

#[test]
fn without_a_controller_the_error_says_which_system_has_one() {
    with_engine(|mut api| {
        api.gic = None;
        let vm = Vm::new(api, None).unwrap();
        assert_eq!(vm.create_gic(GIC).unwrap_err(), HvfError::NoGic);
        assert_eq!(GicGeometry::query(&api), Err(HvfError::NoGic));
    });
}

#[test]
fn geometry_and_features_need_no_machine() {
    with_engine(|api| {
        let geometry = GicGeometry::query(&api).unwrap();
        assert_eq!(geometry.redistributor_bytes, 0x2_0000);
        assert_eq!((geometry.first_spi, geometry.spi_count), (32, 988));
        assert_eq!(feature_reg(&api, FeatureReg::CTR_EL0).unwrap(), 9 << 32);
    });
}

#[test]
fn system_registers_pack_as_apple_numbers_them() {
    assert_eq!(SysReg::new(3, 0, 1, 0, 0), SysReg::SCTLR_EL1);
    assert_eq!(SysReg::new(3, 3, 14, 3, 2), SysReg::CNTV_CVAL_EL0);
    assert_eq!(SysReg::new(3, 4, 1, 1, 1), SysReg::MDCR_EL2);
    assert_eq!(SysReg::new(2, 0, 0, 2, 2), SysReg::MDSCR_EL1);
    assert_eq!(SysReg::dbgbvr(15).0, 0x8004 + 8 * 15);
    assert_eq!(SysReg::MDCR_EL2.fields(), [3, 4, 1, 1, 1]);
    assert_eq!(SysReg::CNTV_CVAL_EL0.fields(), [3, 3, 14, 3, 2]);
}

#[test]
fn return_codes_have_apples_bits() {
    assert_eq!(Return::ERROR.0, -85_377_023);
    assert_eq!(Return::UNSUPPORTED.0, -85_377_009);
    assert_eq!(Return::DENIED.to_string(), "HV_DENIED");
    assert_eq!(Return(5).to_string(), "hv_return_t 0x00000005");
}

#[test]
fn elsewhere_than_on_a_mac_the_framework_is_reported_missing() {
    if cfg!(not(all(target_os = "macos", target_arch = "aarch64"))) {
        let error = supermachine_hvf::system_api().unwrap_err();
        assert!(matches!(error, HvfError::Unavailable { .. }));
    }
}
