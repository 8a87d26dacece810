//! The contract of the C ABI, error codes included. One VM per process: the
//! tests take turns.

mod interrupts;

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hvf::sys::*;
use supermachine_softhv::abi::api;
use supermachine_softhv::faults::FAULTS;

static TURN: Mutex<()> = Mutex::new(());
const PAGE: usize = PAGE_BYTES;
const GICD: u64 = 0x0800_0000;
const GICR: u64 = 0x080a_0000;

/// Host memory, aligned as mappings must be.
struct Ram(*mut c_void, usize);

impl Ram {
    fn new(pages: usize) -> Self {
        let layout = std::alloc::Layout::from_size_align(pages * PAGE, PAGE).unwrap();
        // SAFETY: the layout has a size.
        Self(unsafe { std::alloc::alloc_zeroed(layout) }.cast(), pages)
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        let layout = std::alloc::Layout::from_size_align(self.1 * PAGE, PAGE).unwrap();
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.0.cast(), layout) };
    }
}

/// The engine, this test's alone, without a VM before and after.
struct Engine(
    Api,
    #[allow(dead_code, reason = "held")] MutexGuard<'static, ()>,
);

impl Engine {
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        FAULTS.clear();
        Self(api(), turn)
    }

    fn with_vm() -> Self {
        let engine = Self::new();
        assert_eq!(engine.create_vm(), Return::SUCCESS);
        engine
    }

    fn with_gic() -> Self {
        let engine = Self::with_vm();
        engine.create_gic();
        engine
    }

    fn create_vm(&self) -> Return {
        // SAFETY: null is the default configuration.
        unsafe { (self.0.vm_create)(VmConfig::NULL) }
    }

    fn gic(&self) -> GicApi {
        self.0.gic.unwrap()
    }

    fn create_gic(&self) {
        let gic = self.gic();
        // SAFETY: handles are used as the ABI says.
        unsafe {
            let config = (gic.config_create)();
            assert_eq!(
                (gic.config_set_distributor_base)(config, GICD),
                Return::SUCCESS
            );
            assert_eq!(
                (gic.config_set_redistributor_base)(config, GICR),
                Return::SUCCESS
            );
            assert_eq!((gic.create)(config), Return::SUCCESS);
            (self.0.os_release)(config.0);
        }
    }

    fn create_vcpu(&self) -> Result<(VcpuId, *const VcpuExit), Return> {
        let (mut id, mut exit) = (VcpuId(u64::MAX), null());
        // SAFETY: both out-parameters are valid.
        match unsafe { (self.0.vcpu_create)(&raw mut id, &raw mut exit, VcpuConfig::NULL) } {
            Return::SUCCESS => Ok((id, exit)),
            error => Err(error),
        }
    }

    fn destroy_vcpu(&self, id: VcpuId) -> Return {
        // SAFETY: nobody keeps the exit structure.
        unsafe { (self.0.vcpu_destroy)(id) }
    }

    fn map(&self, ram: &Ram, ipa: u64, size: usize) -> Return {
        // SAFETY: the tests keep `ram` until the VM is gone or no guest runs.
        unsafe { (self.0.vm_map)(ram.0, ipa, size, MemoryFlags::RWX) }
    }

    fn unmap(&self, ipa: u64, size: usize) -> Return {
        // SAFETY: has no precondition.
        unsafe { (self.0.vm_unmap)(ipa, size) }
    }

    fn protect(&self, ipa: u64, size: usize, flags: u64) -> Return {
        // SAFETY: has no precondition.
        unsafe { (self.0.vm_protect)(ipa, size, MemoryFlags(flags)) }
    }

    fn sys_reg(&self, id: VcpuId, reg: SysReg) -> Result<u64, Return> {
        let mut value = 0;
        // SAFETY: the out-parameter is valid.
        match unsafe { (self.0.vcpu_get_sys_reg)(id, reg, &raw mut value) } {
            Return::SUCCESS => Ok(value),
            error => Err(error),
        }
    }

    fn set_sys_reg(&self, id: VcpuId, reg: SysReg, value: u64) -> Return {
        // SAFETY: has no precondition.
        unsafe { (self.0.vcpu_set_sys_reg)(id, reg, value) }
    }

    fn kick(&self, ids: &[VcpuId]) -> Return {
        // SAFETY: the slice is valid.
        unsafe { (self.0.vcpus_exit)(ids.as_ptr(), u32::try_from(ids.len()).unwrap()) }
    }

    fn run(&self, id: VcpuId, exit: *const VcpuExit) -> VcpuExit {
        // SAFETY: the vCPU is this thread's, its exit structure lives as long.
        unsafe {
            assert_eq!((self.0.vcpu_run)(id), Return::SUCCESS);
            exit.read()
        }
    }

    fn save_gic(&self) -> Option<Vec<u8>> {
        let gic = self.gic();
        // SAFETY: the buffer is as long as the state says.
        unsafe {
            let state = (gic.state_create)();
            if state == GicState::NULL {
                return None;
            }
            let mut bytes = 0;
            assert_eq!((gic.state_get_size)(state, &raw mut bytes), Return::SUCCESS);
            let mut data = vec![0u8; bytes];
            let copied = (gic.state_get_data)(state, data.as_mut_ptr().cast());
            assert_eq!(copied, Return::SUCCESS);
            (self.0.os_release)(state.0);
            Some(data)
        }
    }

    fn restore_gic(&self, data: &[u8]) -> Return {
        // SAFETY: the slice is valid.
        unsafe { (self.gic().set_state)(data.as_ptr().cast(), data.len()) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: the tests have destroyed their vCPUs, or get an error.
        let _ = unsafe { (self.0.vm_destroy)() };
        FAULTS.clear();
    }
}

#[test]
fn a_process_has_one_vm_at_a_time() {
    let engine = Engine::with_vm();
    assert_eq!(engine.create_vm(), Return::BUSY);
    // SAFETY: no vCPU exists.
    unsafe {
        assert_eq!((engine.0.vm_destroy)(), Return::SUCCESS);
        assert_eq!((engine.0.vm_destroy)(), Return::NO_DEVICE);
    }
    assert_eq!(engine.create_vm(), Return::SUCCESS);
}

#[test]
fn a_vm_with_vcpus_is_not_destroyed() {
    let engine = Engine::with_vm();
    let (id, _) = engine.create_vcpu().unwrap();
    // SAFETY: refused.
    assert_eq!(unsafe { (engine.0.vm_destroy)() }, Return::BUSY);
    assert_eq!(engine.destroy_vcpu(id), Return::SUCCESS);
    // SAFETY: no vCPU exists.
    assert_eq!(unsafe { (engine.0.vm_destroy)() }, Return::SUCCESS);
}

#[test]
fn everything_needs_a_vm_first() {
    let engine = Engine::new();
    let ram = Ram::new(1);
    assert_eq!(engine.create_vcpu(), Err(Return::NO_DEVICE));
    assert_eq!(engine.map(&ram, 0, PAGE), Return::NO_DEVICE);
    assert_eq!(engine.unmap(0, PAGE), Return::NO_DEVICE);
    assert_eq!(engine.protect(0, PAGE, 0), Return::NO_DEVICE);
    assert_eq!(engine.kick(&[VcpuId(0)]), Return::NO_DEVICE);
    // SAFETY: out-parameters are valid.
    unsafe {
        let mut value = 0;
        assert_eq!((engine.gic().set_spi)(32, true), Return::NO_DEVICE);
        assert_eq!((engine.gic().reset)(), Return::NO_DEVICE);
        let read = (engine.gic().get_distributor_reg)(GicDistributorReg::CTLR, &raw mut value);
        assert_eq!(read, Return::NO_DEVICE);
    }
    assert_eq!(engine.save_gic(), None);
}

#[test]
fn memory_is_mapped_in_whole_16_kib_pages_without_overlap_or_holes() {
    let engine = Engine::with_vm();
    let ram = Ram::new(4);
    assert_eq!(engine.map(&ram, 0x8000_1000, PAGE), Return::BAD_ARGUMENT);
    assert_eq!(engine.map(&ram, 0x8000_0000, 4096), Return::BAD_ARGUMENT);
    assert_eq!(engine.map(&ram, 1 << 36, PAGE), Return::BAD_ARGUMENT);
    assert_eq!(
        engine.map(&Ram(null_mut(), 0), 0, PAGE),
        Return::BAD_ARGUMENT
    );
    assert_eq!(engine.map(&ram, 0x8000_0000, 4 * PAGE), Return::SUCCESS);
    assert_eq!(engine.map(&ram, 0x8000_4000, PAGE), Return::ERROR);
    assert_eq!(engine.protect(0x8000_4000, PAGE, 0), Return::SUCCESS);
    assert_eq!(engine.protect(0x8000_4000, PAGE, 8), Return::BAD_ARGUMENT);
    assert_eq!(engine.protect(0x8000_c000, 2 * PAGE, 1), Return::ERROR);
    assert_eq!(engine.unmap(0x8000_4000, PAGE), Return::SUCCESS);
    assert_eq!(engine.unmap(0x8000_0000, 4 * PAGE), Return::ERROR);
    assert_eq!(engine.unmap(0x8000_0000, PAGE), Return::SUCCESS);
    assert_eq!(engine.unmap(0x8000_8000, 2 * PAGE), Return::SUCCESS);
}

#[test]
fn host_memory_that_is_not_there_is_refused() {
    let engine = Engine::with_vm();
    let hole = Ram(std::ptr::without_provenance_mut(PAGE), 0);
    assert_eq!(engine.map(&hole, 0, PAGE), Return::BAD_ARGUMENT);
    let end = Ram(std::ptr::without_provenance_mut(usize::MAX - PAGE + 1), 0);
    assert_eq!(engine.map(&end, 0, 2 * PAGE), Return::BAD_ARGUMENT);
    std::mem::forget([hole, end]);
}

#[test]
fn address_width_is_configurable_up_to_the_maximum() {
    let engine = Engine::new();
    let ram = Ram::new(1);
    // SAFETY: handles and out-parameters are used as the ABI says.
    unsafe {
        let api = engine.0;
        let (mut most, mut default) = (0, 0);
        let _ = (api.vm_config_get_max_ipa_size)(&raw mut most);
        let _ = (api.vm_config_get_default_ipa_size)(&raw mut default);
        assert_eq!((most, default), (40, 36));
        let config = (api.vm_config_create)();
        assert_eq!(
            (api.vm_config_set_ipa_size)(config, 41),
            Return::UNSUPPORTED
        );
        assert_eq!((api.vm_config_set_ipa_size)(config, 40), Return::SUCCESS);
        assert_eq!((api.vm_create)(config), Return::SUCCESS);
        (api.os_release)(config.0);
        // Stale and foreign handles are found out.
        assert_eq!(
            (api.vm_config_set_ipa_size)(config, 36),
            Return::BAD_ARGUMENT
        );
        assert_eq!(
            (engine.gic().create)(GicConfig(config.0)),
            Return::BAD_ARGUMENT
        );
        (api.os_release)(null_mut());
    }
    assert_eq!(engine.map(&ram, 1 << 39, PAGE), Return::SUCCESS);
}

#[test]
fn a_thread_has_one_vcpu_and_others_may_not_touch_it() {
    let engine = Engine::with_vm();
    let (id, _) = engine.create_vcpu().unwrap();
    assert_eq!(engine.create_vcpu(), Err(Return::BUSY));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            assert_eq!(
                engine.sys_reg(id, SysReg::MPIDR_EL1),
                Err(Return::BAD_ARGUMENT)
            );
            assert_eq!(engine.destroy_vcpu(id), Return::BAD_ARGUMENT);
            // SAFETY: refused before anything happens.
            assert_eq!(unsafe { (engine.0.vcpu_run)(id) }, Return::BAD_ARGUMENT);
            let (mine, _) = engine.create_vcpu().unwrap();
            assert_ne!(mine, id);
            // The thread ends without destroying it: the engine does, at the
            // very end of the thread, which only a join of its own awaits.
        });
        other.join().unwrap();
    });
    assert_eq!(engine.destroy_vcpu(id), Return::SUCCESS);
    let (again, _) = engine.create_vcpu().unwrap();
    assert_eq!(again, id, "identifiers are reused");
    assert_eq!(engine.destroy_vcpu(again), Return::SUCCESS);
}

#[test]
fn vcpus_are_limited_to_the_number_the_engine_names() {
    let engine = Engine::with_vm();
    let mut most = 0;
    // SAFETY: the out-parameter is valid.
    let _ = unsafe { (engine.0.vm_get_max_vcpu_count)(&raw mut most) };
    let barrier = std::sync::Barrier::new(most as usize + 1);
    std::thread::scope(|scope| {
        for _ in 0..most {
            scope.spawn(|| {
                let (id, _) = engine.create_vcpu().unwrap();
                barrier.wait();
                barrier.wait();
                assert_eq!(engine.destroy_vcpu(id), Return::SUCCESS);
            });
        }
        barrier.wait();
        assert_eq!(engine.create_vcpu(), Err(Return::NO_RESOURCES));
        barrier.wait();
    });
}

#[test]
fn registers_hold_what_is_written_and_unknown_ones_are_refused() {
    let engine = Engine::with_vm();
    let api = engine.0;
    let (id, _) = engine.create_vcpu().unwrap();
    // SAFETY: out-parameters are valid or null where that is the point.
    unsafe {
        for n in (0..=31).chain([34]) {
            let wanted = if n == 34 {
                0x3c5
            } else {
                0x1000 + u64::from(n) * 4
            };
            let mut value = 0;
            assert_eq!((api.vcpu_set_reg)(id, Reg(n), wanted), Return::SUCCESS);
            assert_eq!(
                (api.vcpu_get_reg)(id, Reg(n), &raw mut value),
                Return::SUCCESS
            );
            assert_eq!(value, wanted, "register {n}");
        }
        let mut value = 0;
        assert_eq!(
            (api.vcpu_get_reg)(id, Reg(35), &raw mut value),
            Return::BAD_ARGUMENT
        );
        assert_eq!((api.vcpu_set_reg)(id, Reg(35), 0), Return::BAD_ARGUMENT);
        assert_eq!(
            (api.vcpu_get_reg)(id, Reg(0), null_mut()),
            Return::BAD_ARGUMENT
        );
        let vector = SimdValue(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100_u128.to_le_bytes());
        let mut read = SimdValue::default();
        assert_eq!(
            (api.vcpu_set_simd_fp_reg)(id, SimdReg(31), &raw const vector),
            Return::SUCCESS
        );
        assert_eq!(
            (api.vcpu_get_simd_fp_reg)(id, SimdReg(31), &raw mut read),
            Return::SUCCESS
        );
        assert_eq!(read, vector);
        assert_eq!(
            (api.vcpu_get_simd_fp_reg)(id, SimdReg(32), &raw mut read),
            Return::BAD_ARGUMENT
        );
        assert_eq!(
            (api.vcpu_set_simd_fp_reg)(id, SimdReg(0), null()),
            Return::BAD_ARGUMENT
        );
    }
    assert_eq!(engine.destroy_vcpu(id), Return::SUCCESS);
}

#[test]
fn system_registers_a_snapshot_needs_round_trip() {
    let engine = Engine::with_gic();
    let (id, _) = engine.create_vcpu().unwrap();
    let all = [
        SysReg::MPIDR_EL1,
        SysReg::TTBR0_EL1,
        SysReg::TTBR1_EL1,
        SysReg::MAIR_EL1,
        SysReg::AMAIR_EL1,
        SysReg::VBAR_EL1,
        SysReg::CONTEXTIDR_EL1,
        SysReg::TPIDR_EL1,
        SysReg::TPIDR_EL0,
        SysReg::TPIDRRO_EL0,
        SysReg::SP_EL0,
        SysReg::SP_EL1,
        SysReg::SPSR_EL1,
        SysReg::ELR_EL1,
        SysReg::ESR_EL1,
        SysReg::FAR_EL1,
        SysReg::PAR_EL1,
        SysReg::AFSR0_EL1,
        SysReg::AFSR1_EL1,
        SysReg::CNTKCTL_EL1,
        SysReg::CSSELR_EL1,
        SysReg::MDSCR_EL1,
        SysReg::MDCCINT_EL1,
        SysReg::ACTLR_EL1,
        SysReg::CNTV_CVAL_EL0,
        SysReg::CNTP_CVAL_EL0,
        SysReg::dbgbvr(15),
        SysReg::dbgwcr(0),
    ];
    for (n, reg) in all.into_iter().enumerate() {
        let value = 0x8000_0000 + n as u64 * 0x1000;
        assert_eq!(
            engine.set_sys_reg(id, reg, value),
            Return::SUCCESS,
            "{reg:?}"
        );
    }
    for (n, reg) in all.into_iter().enumerate() {
        assert_eq!(
            engine.sys_reg(id, reg),
            Ok(0x8000_0000 + n as u64 * 0x1000),
            "{reg:?}"
        );
    }
    assert_eq!(engine.destroy_vcpu(id), Return::SUCCESS);
}

#[test]
fn absent_system_registers_are_unsupported_and_unknown_ones_bad() {
    let engine = Engine::with_vm();
    let (id, _) = engine.create_vcpu().unwrap();
    for reg in [
        SysReg::MDCR_EL2,
        SysReg::MDCR_EL2_MACOS_15_0,
        SysReg::new(3, 4, 1, 1, 0),
        SysReg::SMCR_EL1,
        SysReg::APIAKEYLO_EL1,
        // The physical timer needs the interrupt controller.
        SysReg::CNTP_CVAL_EL0,
        SysReg::CNTP_CTL_EL0,
    ] {
        assert_eq!(engine.sys_reg(id, reg), Err(Return::UNSUPPORTED), "{reg:?}");
        assert_eq!(
            engine.set_sys_reg(id, reg, 0),
            Return::UNSUPPORTED,
            "{reg:?}"
        );
    }
    for reg in [
        // CNTFRQ_EL0, CNTVCT_EL0, PMCR_EL0, OSLAR_EL1.
        SysReg::new(3, 3, 14, 0, 0),
        SysReg::new(3, 3, 14, 0, 2),
        SysReg::new(3, 3, 9, 12, 0),
        SysReg::new(2, 0, 1, 0, 4),
    ] {
        assert_eq!(
            engine.sys_reg(id, reg),
            Err(Return::BAD_ARGUMENT),
            "{reg:?}"
        );
    }
    assert_eq!(engine.destroy_vcpu(id), Return::SUCCESS);
}

#[test]
fn identification_is_the_same_before_and_after_a_vcpu_exists() {
    let engine = Engine::with_vm();
    let api = engine.0;
    let (id, _) = engine.create_vcpu().unwrap();
    let pairs = [
        (FeatureReg::ID_AA64DFR0_EL1, SysReg::ID_AA64DFR0_EL1),
        (FeatureReg::ID_AA64ISAR0_EL1, SysReg::ID_AA64ISAR0_EL1),
        (FeatureReg::ID_AA64ISAR1_EL1, SysReg::ID_AA64ISAR1_EL1),
        (FeatureReg::ID_AA64MMFR0_EL1, SysReg::ID_AA64MMFR0_EL1),
        (FeatureReg::ID_AA64MMFR2_EL1, SysReg::ID_AA64MMFR2_EL1),
        (FeatureReg::ID_AA64PFR0_EL1, SysReg::ID_AA64PFR0_EL1),
    ];
    let feature = |reg| {
        let mut value = 0;
        // SAFETY: handles and out-parameters are used as the ABI says.
        unsafe {
            let config = (api.vcpu_config_create)();
            let read = (api.vcpu_config_get_feature_reg)(config, reg, &raw mut value);
            (api.os_release)(config.0);
            assert_eq!(read, Return::SUCCESS);
        }
        value
    };
    for (before, after) in pairs {
        assert_eq!(engine.sys_reg(id, after), Ok(feature(before)));
    }
    // GIC system registers, no PMU.
    assert_eq!((feature(FeatureReg::ID_AA64PFR0_EL1) >> 24) & 15, 1);
    assert_eq!((feature(FeatureReg::ID_AA64DFR0_EL1) >> 8) & 15, 0);
    FAULTS
        .isar0_flip
        .store(1 << 52, std::sync::atomic::Ordering::Relaxed);
    assert_ne!(
        feature(FeatureReg::ID_AA64ISAR0_EL1) >> 52 & 1,
        0,
        "injected"
    );
    assert_eq!(engine.destroy_vcpu(id), Return::SUCCESS);
}

#[test]
fn a_kick_is_latched_until_the_next_run_and_only_for_that_one() {
    let engine = Engine::with_gic();
    let (id, exit) = engine.create_vcpu().unwrap();
    for _ in 0..3 {
        assert_eq!(engine.kick(&[id]), Return::SUCCESS);
        assert_eq!(engine.kick(&[id]), Return::SUCCESS);
        assert_eq!(engine.run(id, exit).reason, ExitReason::CANCELED);
    }
    assert_eq!(engine.kick(&[id, VcpuId(63)]), Return::BAD_ARGUMENT);
    assert_eq!(engine.run(id, exit).reason, ExitReason::CANCELED);
    assert_eq!(engine.kick(&[]), Return::SUCCESS);
    // SAFETY: null is refused.
    let refused = unsafe { (engine.0.vcpus_exit)(null(), 1) };
    assert_eq!(refused, Return::BAD_ARGUMENT);
    assert_eq!(engine.destroy_vcpu(id), Return::SUCCESS);
}

#[test]
fn timer_offset_and_mask_are_kept_and_exec_time_starts_at_zero() {
    let engine = Engine::with_gic();
    let api = engine.0;
    let (id, _) = engine.create_vcpu().unwrap();
    // SAFETY: out-parameters are valid.
    unsafe {
        let (mut offset, mut masked, mut ticks) = (0, true, 1);
        assert_eq!((api.vcpu_set_vtimer_offset)(id, 12345), Return::SUCCESS);
        let _ = (api.vcpu_get_vtimer_offset)(id, &raw mut offset);
        assert_eq!(offset, 12345);
        let _ = (api.vcpu_get_vtimer_mask)(id, &raw mut masked);
        assert!(!masked);
        assert_eq!((api.vcpu_set_vtimer_mask)(id, true), Return::SUCCESS);
        let _ = (api.vcpu_get_vtimer_mask)(id, &raw mut masked);
        assert!(masked);
        let _ = (api.vcpu_get_exec_time)(id, &raw mut ticks);
        assert_eq!(ticks, 0);
        let trap = api.vcpu_set_trap_debug_exceptions;
        assert_eq!(trap(id, true), Return::UNSUPPORTED);
        assert_eq!(trap(id, false), Return::SUCCESS);
    }
    let before = (api.counter)();
    assert!((api.counter)() >= before);
    assert_eq!(api.counter_hz, 24_000_000);
    assert_eq!(engine.destroy_vcpu(id), Return::SUCCESS);
}

#[test]
fn injected_faults_happen_as_often_as_asked() {
    use std::sync::atomic::Ordering::Relaxed;
    let engine = Engine::new();
    FAULTS.no_resources.store(1, Relaxed);
    assert_eq!(engine.create_vm(), Return::NO_RESOURCES);
    assert_eq!(engine.create_vm(), Return::SUCCESS);
    engine.create_gic();
    FAULTS.no_resources.store(1, Relaxed);
    assert_eq!(engine.create_vcpu(), Err(Return::NO_RESOURCES));
    let (id, exit) = engine.create_vcpu().unwrap();
    FAULTS.spurious_cancels.store(1, Relaxed);
    assert_eq!(engine.run(id, exit).reason, ExitReason::CANCELED);
    FAULTS.vtimer_exits.store(1, Relaxed);
    assert_eq!(engine.run(id, exit).reason, ExitReason::VTIMER_ACTIVATED);
    let _ = engine.kick(&[id]);
    assert_eq!(engine.run(id, exit).reason, ExitReason::CANCELED);
    assert_eq!(engine.destroy_vcpu(id), Return::SUCCESS);
}
