use std::sync::Arc;
use std::time::Duration;

use hvf::sys::{ExitReason, GicRedistributorReg, Reg, SysReg, VcpuExit};
use hvf::{ExceptionClass, VcpuKick};

use super::Shared;
use crate::arch::aarch64::psci::{self, Call};
use crate::arch::aarch64::syndrome::{self, DataAbort, SystemAccess, Transfer};
use crate::arch::aarch64::{inject, mpidr};
use crate::hypervisor::{
    EngineError, Exit, ExitCount, ExitCounters, GuestFault, Kick, Vcpu, VcpuState,
};

/// EL1 with its own stack pointer, debug, SError, IRQ and FIQ masked.
const BOOT_CPSR: u64 = 0x3c5;
/// `SCTLR_EL1` with translation and caches off and the bits that are one by
/// definition set.
const BOOT_SCTLR: u64 = 0x00c5_0078;
/// `ID_AA64DFR0_EL1.PMUVer`.
const PMU_VERSION: u64 = 0xf << 8;
/// `ID_AA64PFR0_EL1.GIC`, and its value for system register access.
const GIC_FIELD: u64 = 0xf << 24;
const GIC_SYSTEM_REGISTERS: u64 = 1 << 24;

/// A vCPU on its thread.
#[derive(Debug)]
pub struct TableVcpu {
    /// Dropped before `shared`, which holds what the guest can reach.
    pub(super) vcpu: hvf::Vcpu,
    pub(super) shared: Arc<Shared>,
    pub(super) index: u32,
    unanswered: Unanswered,
    /// Whether a guest ran here, so that registers are no longer as created.
    used: bool,
    counters: ExitCounters,
}

/// What [`Vcpu::complete`] still has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unanswered {
    Nothing,
    /// Finish a load from a device.
    Load(Transfer),
    /// Return from a firmware call.
    Firmware,
}

/// Interrupts a vCPU from any thread.
#[derive(Clone, Copy, Debug)]
pub struct TableKick(VcpuKick);

impl Kick for TableKick {
    fn kick(&self) {
        // It fails for a vCPU that is gone, which is what kicks are for.
        let _ = self.0.kick();
    }
}

impl TableVcpu {
    pub(super) fn new(shared: Arc<Shared>, index: u32) -> Result<Self, EngineError> {
        let mut vcpu = shared.vm.create_vcpu()?;
        // The interrupt controller finds a vCPU by this, so it comes first.
        vcpu.set_sys_reg(SysReg::MPIDR_EL1, mpidr(index))?;
        show_features(&mut vcpu);
        vcpu.set_vtimer_offset(shared.first_counter)?;
        vcpu.set_vtimer_mask(false)?;
        Ok(Self {
            vcpu,
            shared,
            index,
            unanswered: Unanswered::Nothing,
            used: false,
            counters: ExitCounters::default(),
        })
    }

    fn interpret(&mut self, exit: &VcpuExit) -> Result<Option<Exit>, EngineError> {
        match exit.reason {
            ExitReason::CANCELED => {
                self.counters.add(ExitCount::Kicked);
                Ok(Some(Exit::Kicked))
            }
            ExitReason::VTIMER_ACTIVATED => {
                self.counters.add(ExitCount::Vtimer);
                // The controller in the engine delivers the interrupt; left
                // masked, the timer would never fire again.
                self.vcpu.set_vtimer_mask(false)?;
                Ok(Some(Exit::VtimerFired))
            }
            ExitReason::EXCEPTION => self.exception(exit),
            reason => {
                self.counters.add(ExitCount::Other);
                Ok(Some(Exit::GuestFault(GuestFault::Unknown {
                    pc: self.vcpu.reg(Reg::PC)?,
                    reason: reason.0,
                })))
            }
        }
    }

    fn exception(&mut self, exit: &VcpuExit) -> Result<Option<Exit>, EngineError> {
        let syndrome = exit.exception.syndrome;
        let class = ExceptionClass::of(syndrome);
        match class {
            ExceptionClass::DATA_ABORT => self.data_abort(exit),
            ExceptionClass::SYSTEM_REGISTER => self.system_register(syndrome).map(|()| None),
            ExceptionClass::HVC | ExceptionClass::SMC => self.firmware(class),
            ExceptionClass::WFX => {
                self.counters.add(ExitCount::WaitForInterrupt);
                self.vcpu.skip_instruction(class)?;
                let yields = syndrome::is_wait_for_event(syndrome);
                Ok((!yields).then_some(Exit::WaitForInterrupt))
            }
            ExceptionClass::INSTRUCTION_ABORT => {
                self.counters.add(ExitCount::Other);
                // The table walker writes on behalf of fetches too.
                if syndrome::is_permission_fault(syndrome)
                    && self.shared.may_write_now(exit.exception.physical_address)?
                {
                    return Ok(None);
                }
                self.access_fault(exit).map(Some)
            }
            _ => {
                self.counters.add(ExitCount::Other);
                let pc = self.vcpu.reg(Reg::PC)?;
                let fault = GuestFault::Exception { pc, syndrome };
                Ok(Some(Exit::GuestFault(fault)))
            }
        }
    }

    fn access_fault(&self, exit: &VcpuExit) -> Result<Exit, EngineError> {
        Ok(Exit::GuestFault(GuestFault::Access {
            address: exit.exception.physical_address,
            pc: self.vcpu.reg(Reg::PC)?,
            syndrome: exit.exception.syndrome,
        }))
    }

    fn data_abort(&mut self, exit: &VcpuExit) -> Result<Option<Exit>, EngineError> {
        let address = exit.exception.physical_address;
        let abort = DataAbort::decode(exit.exception.syndrome);
        // Mapped memory can always be read, so that what is denied is a write,
        // be it of the page table walker or of cache maintenance.
        if abort.permission && self.shared.may_write_now(address)? {
            self.counters.add(ExitCount::Other);
            return Ok(None);
        }
        if abort.cache_maintenance {
            // Devices have no cache lines to maintain.
            self.counters.add(ExitCount::Other);
            self.vcpu.skip_instruction(ExceptionClass::DATA_ABORT)?;
            return Ok(None);
        }
        let transfer = match abort.transfer {
            Some(transfer) if !abort.page_table_walk && !self.shared.is_mapped(address) => transfer,
            _ => {
                self.counters.add(ExitCount::Other);
                return self.access_fault(exit).map(Some);
            }
        };
        let bytes = transfer.bytes;
        if transfer.write {
            self.counters.add(ExitCount::MmioWrite);
            let value = transfer.store_value(self.vcpu.general(transfer.register)?);
            self.vcpu.skip_instruction(ExceptionClass::DATA_ABORT)?;
            if self.gic_write(address, bytes, value)? {
                return Ok(None);
            }
            Ok(Some(Exit::MmioWrite {
                address,
                bytes,
                value,
            }))
        } else {
            self.counters.add(ExitCount::MmioRead);
            self.unanswered = Unanswered::Load(transfer);
            if let Some(value) = self.gic_read(address, bytes)? {
                self.complete(value)?;
                return Ok(None);
            }
            Ok(Some(Exit::MmioRead { address, bytes }))
        }
    }

    fn system_register(&mut self, syndrome: u64) -> Result<(), EngineError> {
        self.counters.add(ExitCount::SystemRegister);
        let access = SystemAccess::decode(syndrome);
        if !access.is_inert() {
            return self.undefined_instruction();
        }
        if access.read {
            self.vcpu.set_general(access.register, 0)?;
        }
        Ok(self
            .vcpu
            .skip_instruction(ExceptionClass::SYSTEM_REGISTER)?)
    }

    /// What a processor without the register would do.
    fn undefined_instruction(&mut self) -> Result<(), EngineError> {
        let taken = inject::undefined_instruction(
            self.vcpu.reg(Reg::PC)?,
            self.vcpu.reg(Reg::CPSR)?,
            self.vcpu.sys_reg(SysReg::VBAR_EL1)?,
            self.vcpu.sys_reg(SysReg::SCTLR_EL1)?,
        );
        self.vcpu.set_sys_reg(SysReg::ELR_EL1, taken.elr)?;
        self.vcpu.set_sys_reg(SysReg::SPSR_EL1, taken.spsr)?;
        self.vcpu.set_sys_reg(SysReg::ESR_EL1, taken.esr)?;
        self.vcpu.set_reg(Reg::CPSR, taken.cpsr)?;
        Ok(self.vcpu.set_reg(Reg::PC, taken.pc)?)
    }

    fn firmware(&mut self, class: ExceptionClass) -> Result<Option<Exit>, EngineError> {
        self.counters.add(ExitCount::Firmware);
        self.vcpu.skip_instruction(class)?;
        let mut registers = [0; 4];
        for (n, register) in (0..).zip(&mut registers) {
            *register = self.vcpu.general(n)?;
        }
        Ok(match psci::call(registers) {
            Call::Return(value) => {
                self.vcpu.set_reg(Reg::X0, value)?;
                None
            }
            Call::Suspend => {
                self.vcpu.set_reg(Reg::X0, 0)?;
                Some(Exit::WaitForInterrupt)
            }
            Call::CpuOn {
                target,
                entry,
                argument,
            } => {
                self.unanswered = Unanswered::Firmware;
                Some(Exit::CpuOn {
                    target,
                    entry,
                    argument,
                })
            }
            Call::CpuStatus { target } => {
                self.unanswered = Unanswered::Firmware;
                Some(Exit::CpuStatus { target })
            }
            Call::CpuOff => Some(Exit::CpuOff),
            Call::SystemOff => Some(Exit::Shutdown),
            Call::SystemReset => Some(Exit::Reset),
        })
    }
}

/// Hides the performance monitors, which no engine virtualises for us, and
/// shows the interrupt controller. Where an engine keeps its own values, the
/// guest's accesses are emulated instead.
fn show_features(vcpu: &mut hvf::Vcpu) {
    let debug = vcpu.sys_reg(SysReg::ID_AA64DFR0_EL1).unwrap_or(0);
    if debug & PMU_VERSION != 0 {
        let _ = vcpu.set_sys_reg(SysReg::ID_AA64DFR0_EL1, debug & !PMU_VERSION);
    }
    let processor = vcpu
        .sys_reg(SysReg::ID_AA64PFR0_EL1)
        .unwrap_or(GIC_SYSTEM_REGISTERS);
    if processor & GIC_FIELD == 0 {
        let _ = vcpu.set_sys_reg(SysReg::ID_AA64PFR0_EL1, processor | GIC_SYSTEM_REGISTERS);
    }
}

/// How long so many ticks of such a counter are.
fn time_of(ticks: u64, hz: u64) -> Duration {
    const NANOS: u64 = 1_000_000_000;
    let hz = hz.max(1);
    // At each exit, so without a division of 128 bits: no counter is near 18 GHz.
    let rest = (ticks % hz).saturating_mul(NANOS) / hz;
    Duration::from_secs(ticks / hz) + Duration::from_nanos(rest)
}

impl Vcpu for TableVcpu {
    type Kick = TableKick;

    fn kick(&self) -> TableKick {
        TableKick(self.vcpu.kicker())
    }

    fn reset(&mut self, entry: u64, argument: u64) -> Result<(), EngineError> {
        self.unanswered = Unanswered::Nothing;
        if self.used {
            self.vcpu.set_sys_reg(SysReg::SCTLR_EL1, BOOT_SCTLR)?;
        }
        for n in 0..31 {
            self.vcpu.set_general(n, 0)?;
        }
        self.vcpu.set_reg(Reg::X0, argument)?;
        self.vcpu.set_reg(Reg::CPSR, BOOT_CPSR)?;
        Ok(self.vcpu.set_reg(Reg::PC, entry)?)
    }

    fn run(&mut self) -> Result<Exit, EngineError> {
        if self.unanswered != Unanswered::Nothing {
            return Err(EngineError::OutOfTurn);
        }
        self.used = true;
        loop {
            let exit = self.vcpu.run()?;
            let hz = self.shared.vm.api().counter_hz;
            self.counters.ran(time_of(self.vcpu.exec_time()?, hz));
            if let Some(exit) = self.interpret(&exit)? {
                return Ok(exit);
            }
        }
    }

    fn complete(&mut self, value: u64) -> Result<(), EngineError> {
        match std::mem::replace(&mut self.unanswered, Unanswered::Nothing) {
            Unanswered::Nothing => Err(EngineError::OutOfTurn),
            Unanswered::Firmware => Ok(self.vcpu.set_reg(Reg::X0, value)?),
            Unanswered::Load(transfer) => {
                self.vcpu
                    .set_general(transfer.register, transfer.load_value(value))?;
                Ok(self.vcpu.skip_instruction(ExceptionClass::DATA_ABORT)?)
            }
        }
    }

    fn save(&mut self) -> Result<VcpuState, EngineError> {
        if self.unanswered != Unanswered::Nothing {
            return Err(EngineError::OutOfTurn);
        }
        let now = (self.shared.vm.api().counter)();
        super::saved::save(&self.vcpu, now)
    }

    fn load(&mut self, state: &VcpuState, counter: u64) -> Result<(), EngineError> {
        self.unanswered = Unanswered::Nothing;
        self.used = true;
        super::saved::load(&mut self.vcpu, state, counter)
    }

    fn set_counter(&mut self, guest: u64, counter: u64) -> Result<(), EngineError> {
        Ok(self.vcpu.set_vtimer_offset(counter.wrapping_sub(guest))?)
    }

    fn interrupt(&mut self, intid: u32) -> Result<(), EngineError> {
        // Interrupts private to a vCPU are the first word of its redistributor.
        let pending = 1_u64
            .checked_shl(intid)
            .filter(|bit| u32::try_from(*bit).is_ok())
            .ok_or(EngineError::NotPrivate { intid })?;
        let register = GicRedistributorReg::ISPENDR0;
        Ok(self.vcpu.set_redistributor_reg(register, pending)?)
    }

    fn exits(&self) -> &ExitCounters {
        &self.counters
    }
}
