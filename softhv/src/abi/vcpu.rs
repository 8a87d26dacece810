//! `hv_vcpu_*`: a vCPU lives in thread-local storage of the thread that created
//! it, which is how "owner thread only" and "one per thread" keep themselves.

use super::objects::{self, Object};
use super::{machine, put, registers};
use crate::counter::{counter, ticks_of};
use crate::cpu::{Cpu, RunExit};
use crate::faults::{FAULTS, Faults};
use crate::link::attention;
use hvf::sys::{
    ExitException, ExitReason, FeatureReg, InterruptType, Reg, Return, SimdReg, SimdValue, SysReg,
    VcpuConfig, VcpuExit, VcpuId,
};
use std::cell::RefCell;
use std::sync::atomic::Ordering;

/// The vCPU of this thread.
pub(super) struct Vcpu {
    pub(super) cpu: Box<Cpu>,
    /// From a `Box`; the caller reads it between runs.
    exit: *mut VcpuExit,
    /// Ticks spent in runs, while the guest waited for interrupts too.
    run_ticks: u64,
}

impl Vcpu {
    fn id(&self) -> VcpuId {
        VcpuId(self.cpu.index as u64)
    }

    fn run(&mut self) -> VcpuExit {
        if Faults::take(&FAULTS.spurious_cancels) {
            return report(RunExit::Canceled);
        }
        if Faults::take(&FAULTS.vtimer_exits) {
            return report(RunExit::VtimerActivated);
        }
        let start = counter();
        let exit = self.cpu.run();
        self.run_ticks += counter().saturating_sub(start);
        // The framework forgets asserted lines at every exit.
        self.cpu.pending_lines = [false; 2];
        report(exit)
    }
}

impl Vcpu {
    /// Ticks in which it executed guest code.
    fn exec_ticks(&self) -> u64 {
        let idle = ticks_of(self.cpu.rest.idle());
        self.run_ticks.saturating_sub(idle)
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.cpu.shared.code.close();
        self.cpu.vm.remove_vcpu(&self.cpu.shared);
        // SAFETY: `exit` came from `Box::into_raw` in `create`, and only this
        // frees it. The ABI ends its validity here.
        drop(unsafe { Box::from_raw(self.exit) });
    }
}

thread_local! {
    static VCPU: RefCell<Option<Vcpu>> = const { RefCell::new(None) };
}

fn report(exit: RunExit) -> VcpuExit {
    let plain = |reason| VcpuExit {
        reason,
        exception: ExitException::default(),
    };
    match exit {
        RunExit::Canceled => plain(ExitReason::CANCELED),
        RunExit::VtimerActivated => plain(ExitReason::VTIMER_ACTIVATED),
        RunExit::Exception {
            syndrome,
            virtual_address,
            physical_address,
        } => VcpuExit {
            reason: ExitReason::EXCEPTION,
            exception: ExitException {
                syndrome,
                virtual_address,
                physical_address,
            },
        },
    }
}

/// Runs `f` on this thread's vCPU if that is `id`.
pub(super) fn with_owned(id: VcpuId, f: impl FnOnce(&mut Vcpu) -> Return) -> Return {
    let done = VCPU.try_with(|slot| match slot.try_borrow_mut() {
        Ok(mut vcpu) => match vcpu.as_mut().filter(|vcpu| vcpu.id() == id) {
            Some(vcpu) => f(vcpu),
            None => Return::BAD_ARGUMENT,
        },
        Err(_) => Return::BUSY,
    });
    // Thread-local storage is gone: the thread is ending.
    done.unwrap_or(Return::BAD_ARGUMENT)
}

pub(super) unsafe extern "C" fn create(
    id: *mut VcpuId,
    exit: *mut *const VcpuExit,
    config: VcpuConfig,
) -> Return {
    if id.is_null() || exit.is_null() || !is_config_or_null(config) {
        return Return::BAD_ARGUMENT;
    }
    let done = VCPU.try_with(|slot| {
        let Ok(mut slot) = slot.try_borrow_mut() else {
            return Return::BUSY;
        };
        if slot.is_some() {
            return Return::BUSY;
        }
        let vcpu = match new_vcpu() {
            Ok(vcpu) => vcpu,
            Err(error) => return error,
        };
        // SAFETY: neither is null, so both are valid by the caller's promise.
        unsafe {
            id.write_unaligned(vcpu.id());
            exit.write_unaligned(vcpu.exit);
        }
        *slot = Some(vcpu);
        Return::SUCCESS
    });
    done.unwrap_or(Return::ERROR)
}

fn new_vcpu() -> Result<Vcpu, Return> {
    // Registered while the VM cannot be destroyed; the rest can take its time.
    let (vm, link) = machine::with_current(|vm| {
        if Faults::take(&FAULTS.no_resources) {
            return Err(Return::NO_RESOURCES);
        }
        let link = vm.add_vcpu().ok_or(Return::NO_RESOURCES)?;
        Ok((std::sync::Arc::clone(vm), link))
    })??;
    let mut cpu = Cpu::new(vm, link);
    cpu.shared.code.open((&raw mut cpu.code).cast());
    Ok(Vcpu {
        cpu,
        exit: Box::into_raw(Box::new(report(RunExit::Canceled))),
        run_ticks: 0,
    })
}

fn is_config_or_null(config: VcpuConfig) -> bool {
    config == VcpuConfig::NULL
        || objects::with(config.0, |object| matches!(object, Object::Vcpu)) == Some(true)
}

pub(super) unsafe extern "C" fn destroy(id: VcpuId) -> Return {
    let taken = VCPU.try_with(|slot| match slot.try_borrow_mut() {
        Ok(mut slot) => slot
            .take_if(|vcpu| vcpu.id() == id)
            .ok_or(Return::BAD_ARGUMENT),
        Err(_) => Err(Return::BUSY),
    });
    match taken {
        Ok(Ok(vcpu)) => {
            drop(vcpu);
            Return::SUCCESS
        }
        Ok(Err(error)) => error,
        Err(_) => Return::BAD_ARGUMENT,
    }
}

pub(super) unsafe extern "C" fn run(id: VcpuId) -> Return {
    with_owned(id, |vcpu| {
        let exit = vcpu.run();
        // SAFETY: allocated in `new_vcpu`, freed on drop; the ABI lets the
        // caller read it only while no run is on.
        unsafe { vcpu.exit.write(exit) };
        Return::SUCCESS
    })
}

pub(super) unsafe extern "C" fn exit_all(ids: *const VcpuId, count: u32) -> Return {
    if count == 0 {
        return Return::SUCCESS;
    }
    if ids.is_null() {
        return Return::BAD_ARGUMENT;
    }
    let vm = match machine::current() {
        Ok(vm) => vm,
        Err(error) => return error,
    };
    let mut all = true;
    for n in 0..count as usize {
        // SAFETY: the caller gives `count` elements.
        let id = unsafe { ids.add(n).read_unaligned() };
        all &= vm.kick(&[id.0]);
    }
    if all {
        Return::SUCCESS
    } else {
        Return::BAD_ARGUMENT
    }
}

pub(super) unsafe extern "C" fn get_reg(id: VcpuId, reg: Reg, value: *mut u64) -> Return {
    with_owned(id, |vcpu| match registers::get(&vcpu.cpu, reg) {
        // SAFETY: the caller gives null or a place for the value.
        Some(found) => unsafe { put(value, found) },
        None => Return::BAD_ARGUMENT,
    })
}

pub(super) unsafe extern "C" fn set_reg(id: VcpuId, reg: Reg, value: u64) -> Return {
    with_owned(id, |vcpu| {
        if registers::set(&mut vcpu.cpu, reg, value) {
            Return::SUCCESS
        } else {
            Return::BAD_ARGUMENT
        }
    })
}

pub(super) unsafe extern "C" fn get_simd_fp_reg(
    id: VcpuId,
    reg: SimdReg,
    value: *mut SimdValue,
) -> Return {
    with_owned(id, |vcpu| match vcpu.cpu.regs.v.get(reg.0 as usize) {
        // SAFETY: the caller gives null or a place for the value.
        Some(v) => unsafe { put(value, registers::simd_bytes(*v)) },
        None => Return::BAD_ARGUMENT,
    })
}

pub(super) unsafe extern "C" fn set_simd_fp_reg(
    id: VcpuId,
    reg: SimdReg,
    value: *const SimdValue,
) -> Return {
    if value.is_null() {
        return Return::BAD_ARGUMENT;
    }
    // SAFETY: not null, so valid by the caller's promise.
    let value = unsafe { value.read_unaligned() };
    with_owned(id, |vcpu| match vcpu.cpu.regs.v.get_mut(reg.0 as usize) {
        Some(v) => {
            *v = registers::simd_value(value);
            Return::SUCCESS
        }
        None => Return::BAD_ARGUMENT,
    })
}

pub(super) unsafe extern "C" fn get_sys_reg(id: VcpuId, reg: SysReg, value: *mut u64) -> Return {
    with_owned(id, |vcpu| match registers::get_sys(&mut vcpu.cpu, reg) {
        // SAFETY: the caller gives null or a place for the value.
        Ok(found) => unsafe { put(value, found) },
        Err(error) => error,
    })
}

pub(super) unsafe extern "C" fn set_sys_reg(id: VcpuId, reg: SysReg, value: u64) -> Return {
    with_owned(id, |vcpu| {
        registers::set_sys(&mut vcpu.cpu, reg, value)
            .err()
            .unwrap_or(Return::SUCCESS)
    })
}

/// The line of `kind`, which exists only without an interrupt controller.
fn line(vcpu: &mut Vcpu, kind: InterruptType) -> Result<&mut bool, Return> {
    if vcpu.cpu.vm.gic().is_some() {
        return Err(Return::UNSUPPORTED);
    }
    let at = kind.0 as usize;
    vcpu.cpu
        .pending_lines
        .get_mut(at)
        .ok_or(Return::BAD_ARGUMENT)
}

pub(super) unsafe extern "C" fn get_pending_interrupt(
    id: VcpuId,
    kind: InterruptType,
    pending: *mut bool,
) -> Return {
    with_owned(id, |vcpu| match line(vcpu, kind) {
        // SAFETY: the caller gives null or a place for the value.
        Ok(line) => unsafe { put(pending, *line) },
        Err(error) => error,
    })
}

pub(super) unsafe extern "C" fn set_pending_interrupt(
    id: VcpuId,
    kind: InterruptType,
    pending: bool,
) -> Return {
    with_owned(id, |vcpu| match line(vcpu, kind) {
        Ok(line) => {
            *line = pending;
            vcpu.cpu.shared.raise(attention::IRQ);
            Return::SUCCESS
        }
        Err(error) => error,
    })
}

/// Guest debugging does not trap in this engine, which can be asked for.
pub(super) unsafe extern "C" fn set_trap_debug(id: VcpuId, trap: bool) -> Return {
    with_owned(id, |_| {
        if trap {
            Return::UNSUPPORTED
        } else {
            Return::SUCCESS
        }
    })
}

pub(super) unsafe extern "C" fn get_exec_time(id: VcpuId, ticks: *mut u64) -> Return {
    // SAFETY: the caller gives null or a place for the value.
    with_owned(id, |vcpu| unsafe { put(ticks, vcpu.exec_ticks()) })
}

pub(super) unsafe extern "C" fn get_vtimer_mask(id: VcpuId, masked: *mut bool) -> Return {
    // SAFETY: the caller gives null or a place for the value.
    with_owned(id, |vcpu| unsafe {
        put(masked, vcpu.cpu.timers.is_masked())
    })
}

pub(super) unsafe extern "C" fn set_vtimer_mask(id: VcpuId, masked: bool) -> Return {
    with_owned(id, |vcpu| {
        vcpu.cpu.timers.set_masked(masked);
        Return::SUCCESS
    })
}

pub(super) unsafe extern "C" fn get_vtimer_offset(id: VcpuId, offset: *mut u64) -> Return {
    // SAFETY: the caller gives null or a place for the value.
    with_owned(id, |vcpu| unsafe { put(offset, vcpu.cpu.timers.offset()) })
}

pub(super) unsafe extern "C" fn set_vtimer_offset(id: VcpuId, offset: u64) -> Return {
    with_owned(id, |vcpu| {
        vcpu.cpu.timers.set_offset(offset);
        Return::SUCCESS
    })
}

pub(super) unsafe extern "C" fn config_create() -> VcpuConfig {
    VcpuConfig(objects::insert(Object::Vcpu))
}

pub(super) unsafe extern "C" fn config_get_feature_reg(
    config: VcpuConfig,
    reg: FeatureReg,
    value: *mut u64,
) -> Return {
    if !is_config_or_null(config) {
        return Return::BAD_ARGUMENT;
    }
    match registers::feature(reg, FAULTS.isar0_flip.load(Ordering::Relaxed)) {
        // SAFETY: the caller gives null or a place for the value.
        Some(found) => unsafe { put(value, found) },
        None => Return::BAD_ARGUMENT,
    }
}
