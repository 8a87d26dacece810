use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::error::{HvfError, check};
use crate::exception::ExceptionClass;
use crate::owner::VmInner;
use crate::sys::{
    Api, ExitReason, GicApi, GicIccReg, GicRedistributorReg, InterruptType, Reg, Return, SimdReg,
    SimdValue, SysReg, VcpuConfig, VcpuExit, VcpuId,
};

/// One virtual CPU. It belongs to the thread that created it, so it is
/// neither `Send` nor `Sync`; other threads reach it through its [`VcpuKick`].
///
/// ```compile_fail
/// fn crosses_threads<T: Send>() {}
/// crosses_threads::<supermachine_hvf::Vcpu>();
/// ```
#[derive(Debug)]
pub struct Vcpu {
    id: VcpuId,
    exit: NonNull<VcpuExit>,
    vm: Arc<VmInner>,
    /// Every engine call on a vCPU must come from its own thread.
    owner_thread: PhantomData<*const ()>,
}

/// Makes a vCPU leave [`Vcpu::run`], from any thread.
///
/// The request latches: if the vCPU is not running, its next run returns at
/// once. Kicking one that is gone does nothing, or reaches a newer vCPU that
/// got the same number, so every canceled run means only "look again".
#[derive(Clone, Copy, Debug)]
pub struct VcpuKick {
    id: VcpuId,
    exit: unsafe extern "C" fn(*const VcpuId, u32) -> Return,
}

impl VcpuKick {
    /// Asks for the exit.
    pub fn kick(&self) -> Result<(), HvfError> {
        // SAFETY: one valid vCPU number; the engine refuses stale ones.
        check("vcpus_exit", unsafe { (self.exit)(&raw const self.id, 1) })
    }
}

impl Vcpu {
    pub(crate) fn new(vm: Arc<VmInner>) -> Result<Self, HvfError> {
        let mut id = VcpuId(0);
        let mut exit: *const VcpuExit = std::ptr::null();
        // SAFETY: both out pointers are valid; null asks for the defaults.
        check("vcpu_create", unsafe {
            (vm.api.vcpu_create)(&raw mut id, &raw mut exit, VcpuConfig::NULL)
        })?;
        let Some(exit) = NonNull::new(exit.cast_mut()) else {
            // SAFETY: the vCPU was created by this thread just now.
            let _ = unsafe { (vm.api.vcpu_destroy)(id) };
            return Err(HvfError::Call {
                call: "vcpu_create",
                code: Return::ERROR,
            });
        };
        Ok(Self {
            id,
            exit,
            vm,
            owner_thread: PhantomData,
        })
    }

    fn api(&self) -> &Api {
        &self.vm.api
    }

    fn gic(&self) -> Result<&GicApi, HvfError> {
        self.api().gic.as_ref().ok_or(HvfError::NoGic)
    }

    /// The engine's number of this vCPU.
    pub fn id(&self) -> VcpuId {
        self.id
    }

    /// A handle that makes this vCPU leave [`Vcpu::run`].
    pub fn kicker(&self) -> VcpuKick {
        VcpuKick {
            id: self.id,
            exit: self.api().vcpus_exit,
        }
    }

    /// Runs the guest until the next exit.
    pub fn run(&mut self) -> Result<VcpuExit, HvfError> {
        // SAFETY: our thread's vCPU; guest memory is vouched for by `Vm::map`.
        check("vcpu_run", unsafe { (self.api().vcpu_run)(self.id) })?;
        // SAFETY: the engine keeps the structure valid while the vCPU exists
        // and writes it only inside `vcpu_run`.
        Ok(unsafe { self.exit.as_ptr().read() })
    }

    /// Reads a register.
    pub fn reg(&self, reg: Reg) -> Result<u64, HvfError> {
        let mut value = 0;
        // SAFETY: our thread's vCPU; `value` is valid for a write.
        check("vcpu_get_reg", unsafe {
            (self.api().vcpu_get_reg)(self.id, reg, &raw mut value)
        })
        .map(|()| value)
    }

    /// Writes a register.
    pub fn set_reg(&mut self, reg: Reg, value: u64) -> Result<(), HvfError> {
        // SAFETY: our thread's vCPU.
        check("vcpu_set_reg", unsafe {
            (self.api().vcpu_set_reg)(self.id, reg, value)
        })
    }

    /// Reads general register `n` of an instruction, where 31 is the zero
    /// register (and not the program counter, which has that number here).
    pub fn general(&self, n: u8) -> Result<u64, HvfError> {
        Reg::x(n).map_or(Ok(0), |reg| self.reg(reg))
    }

    /// Writes general register `n` of an instruction; 31 discards the value.
    pub fn set_general(&mut self, n: u8, value: u64) -> Result<(), HvfError> {
        Reg::x(n).map_or(Ok(()), |reg| self.set_reg(reg, value))
    }

    /// Moves the program counter past the instruction that caused an emulated
    /// exit of `class`, which for some classes has happened already.
    pub fn skip_instruction(&mut self, class: ExceptionClass) -> Result<(), HvfError> {
        match class.instruction_bytes() {
            0 => Ok(()),
            bytes => {
                let pc = self.reg(Reg::PC)?;
                self.set_reg(Reg::PC, pc.wrapping_add(bytes))
            }
        }
    }

    /// Reads a vector register, least significant byte first.
    pub fn simd(&self, reg: SimdReg) -> Result<[u8; 16], HvfError> {
        let mut value = SimdValue::default();
        // SAFETY: our thread's vCPU; `value` is aligned and valid for a write.
        check("vcpu_get_simd_fp_reg", unsafe {
            (self.api().vcpu_get_simd_fp_reg)(self.id, reg, &raw mut value)
        })
        .map(|()| value.0)
    }

    /// Writes a vector register, least significant byte first.
    pub fn set_simd(&mut self, reg: SimdReg, value: [u8; 16]) -> Result<(), HvfError> {
        let value = SimdValue(value);
        // SAFETY: our thread's vCPU; `value` is aligned and lives over the call.
        check("vcpu_set_simd_fp_reg", unsafe {
            (self.api().vcpu_set_simd_fp_reg)(self.id, reg, &raw const value)
        })
    }

    /// Reads a system register.
    pub fn sys_reg(&self, reg: SysReg) -> Result<u64, HvfError> {
        let mut value = 0;
        either_number(reg, |reg| {
            // SAFETY: our thread's vCPU; `value` is valid for a write.
            check("vcpu_get_sys_reg", unsafe {
                (self.api().vcpu_get_sys_reg)(self.id, reg, &raw mut value)
            })
        })
        .map(|()| value)
    }

    /// Writes a system register.
    pub fn set_sys_reg(&mut self, reg: SysReg, value: u64) -> Result<(), HvfError> {
        either_number(reg, |reg| {
            // SAFETY: our thread's vCPU.
            check("vcpu_set_sys_reg", unsafe {
                (self.api().vcpu_set_sys_reg)(self.id, reg, value)
            })
        })
    }

    /// Drives an interrupt line until the next exit; only without the GIC.
    pub fn set_pending_interrupt(
        &mut self,
        kind: InterruptType,
        pending: bool,
    ) -> Result<(), HvfError> {
        // SAFETY: our thread's vCPU.
        check("vcpu_set_pending_interrupt", unsafe {
            (self.api().vcpu_set_pending_interrupt)(self.id, kind, pending)
        })
    }

    /// Masks or unmasks the virtual timer's exit.
    pub fn set_vtimer_mask(&mut self, masked: bool) -> Result<(), HvfError> {
        // SAFETY: our thread's vCPU.
        check("vcpu_set_vtimer_mask", unsafe {
            (self.api().vcpu_set_vtimer_mask)(self.id, masked)
        })
    }

    /// Whether the virtual timer's exit is masked.
    pub fn vtimer_mask(&self) -> Result<bool, HvfError> {
        let mut masked = false;
        // SAFETY: our thread's vCPU; `masked` is valid for a write.
        check("vcpu_get_vtimer_mask", unsafe {
            (self.api().vcpu_get_vtimer_mask)(self.id, &raw mut masked)
        })
        .map(|()| masked)
    }

    /// What the guest's counter is behind the engine's, in ticks.
    pub fn vtimer_offset(&self) -> Result<u64, HvfError> {
        let mut offset = 0;
        // SAFETY: our thread's vCPU; `offset` is valid for a write.
        check("vcpu_get_vtimer_offset", unsafe {
            (self.api().vcpu_get_vtimer_offset)(self.id, &raw mut offset)
        })
        .map(|()| offset)
    }

    /// Sets what the guest's counter is behind the engine's, in ticks. All
    /// vCPUs need the same value, or time jumps when a task moves.
    pub fn set_vtimer_offset(&mut self, offset: u64) -> Result<(), HvfError> {
        // SAFETY: our thread's vCPU.
        check("vcpu_set_vtimer_offset", unsafe {
            (self.api().vcpu_set_vtimer_offset)(self.id, offset)
        })
    }

    /// Time this vCPU spent in the guest, in ticks of the engine's counter.
    pub fn exec_time(&self) -> Result<u64, HvfError> {
        let mut ticks = 0;
        // SAFETY: our thread's vCPU; `ticks` is valid for a write.
        check("vcpu_get_exec_time", unsafe {
            (self.api().vcpu_get_exec_time)(self.id, &raw mut ticks)
        })
        .map(|()| ticks)
    }

    /// Address of this vCPU's redistributor; after `MPIDR_EL1` is set.
    pub fn redistributor_base(&self) -> Result<u64, HvfError> {
        let mut ipa = 0;
        // SAFETY: a live vCPU; `ipa` is valid for a write.
        check("gic.get_redistributor_base", unsafe {
            (self.gic()?.get_redistributor_base)(self.id, &raw mut ipa)
        })
        .map(|()| ipa)
    }

    /// Reads a register of this vCPU's redistributor.
    pub fn redistributor_reg(&self, reg: GicRedistributorReg) -> Result<u64, HvfError> {
        let mut value = 0;
        // SAFETY: our thread's vCPU; `value` is valid for a write.
        check("gic.get_redistributor_reg", unsafe {
            (self.gic()?.get_redistributor_reg)(self.id, reg, &raw mut value)
        })
        .map(|()| value)
    }

    /// Writes a register of this vCPU's redistributor.
    pub fn set_redistributor_reg(
        &mut self,
        reg: GicRedistributorReg,
        value: u64,
    ) -> Result<(), HvfError> {
        // SAFETY: our thread's vCPU.
        check("gic.set_redistributor_reg", unsafe {
            (self.gic()?.set_redistributor_reg)(self.id, reg, value)
        })
    }

    /// Reads a register of this vCPU's interrupt interface.
    pub fn icc_reg(&self, reg: GicIccReg) -> Result<u64, HvfError> {
        let mut value = 0;
        // SAFETY: our thread's vCPU; `value` is valid for a write.
        check("gic.get_icc_reg", unsafe {
            (self.gic()?.get_icc_reg)(self.id, reg, &raw mut value)
        })
        .map(|()| value)
    }

    /// Writes a register of this vCPU's interrupt interface.
    pub fn set_icc_reg(&mut self, reg: GicIccReg, value: u64) -> Result<(), HvfError> {
        // SAFETY: our thread's vCPU.
        check("gic.set_icc_reg", unsafe {
            (self.gic()?.set_icc_reg)(self.id, reg, value)
        })
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        // SAFETY: our thread's vCPU (it is not `Send`), never used again. A
        // failure could only leak it until the process ends.
        let _ = unsafe { (self.api().vcpu_destroy)(self.id) };
    }
}

/// Uses the number that this system's framework knows `MDCR_EL2` by: macOS
/// 15.0 and later ones disagree.
fn either_number(
    reg: SysReg,
    mut call: impl FnMut(SysReg) -> Result<(), HvfError>,
) -> Result<(), HvfError> {
    let first = call(reg);
    match first.map_err(HvfError::code) {
        Err(Some(Return::BAD_ARGUMENT | Return::UNSUPPORTED)) if reg == SysReg::MDCR_EL2 => {
            call(SysReg::MDCR_EL2_MACOS_15_0)
        }
        _ => first,
    }
}

impl VcpuExit {
    /// The class of the guest's exception, if that is why the run returned.
    pub fn exception_class(&self) -> Option<ExceptionClass> {
        (self.reason == ExitReason::EXCEPTION).then(|| ExceptionClass::of(self.exception.syndrome))
    }
}
