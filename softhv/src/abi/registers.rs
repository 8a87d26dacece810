//! Register numbers of the ABI and what they are in [`Cpu`].

use crate::cpu::Cpu;
use crate::faults::FAULTS;
use crate::idregs::{self, IdRegs};
use crate::regs::V;
use crate::sysreg::{FPCR_MASK, FPSR_MASK};
use crate::timer::TimerReg;
use hvf::sys::{FeatureReg, Reg, Return, SimdValue, SysReg};
use std::sync::atomic::Ordering;

/// A general register, PC, CPSR, FPCR or FPSR; `None` for an unknown number.
pub(super) fn get(cpu: &Cpu, reg: Reg) -> Option<u64> {
    Some(match reg {
        Reg::PC => cpu.pc,
        Reg::FPCR => cpu.regs.fpcr,
        Reg::FPSR => cpu.regs.fpsr,
        Reg::CPSR => cpu.spsr(),
        Reg(n @ 0..=30) => cpu.regs.x[n as usize],
        _ => return None,
    })
}

/// Writes such a register; `false` for an unknown number.
pub(super) fn set(cpu: &mut Cpu, reg: Reg, value: u64) -> bool {
    match reg {
        Reg::PC => cpu.pc = value,
        Reg::FPCR => cpu.regs.fpcr = value & FPCR_MASK,
        Reg::FPSR => cpu.regs.fpsr = value & FPSR_MASK,
        Reg::CPSR => cpu.set_spsr(value),
        Reg(n @ 0..=30) => cpu.regs.x[n as usize] = value,
        _ => return false,
    }
    true
}

pub(super) fn simd_bytes(v: V) -> SimdValue {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&v.0[0].to_le_bytes());
    bytes[8..].copy_from_slice(&v.0[1].to_le_bytes());
    SimdValue(bytes)
}

pub(super) fn simd_value(value: SimdValue) -> V {
    let whole = u128::from_le_bytes(value.0);
    V([whole as u64, (whole >> 64) as u64])
}

/// Registers of `hv_sys_reg_t` that this engine does not have: EL2 (op1 = 4,
/// except SP_EL1), pointer authentication keys, SME.
fn is_absent(reg: SysReg) -> bool {
    let [_, op1, crn, crm, _] = reg.fields();
    op1 == 4 && reg != SysReg::SP_EL1
        || reg == SysReg::MDCR_EL2_MACOS_15_0
        || reg == SysReg::TPIDR2_EL0
        || reg == SysReg::SMPRI_EL1
        || reg == SysReg::SMCR_EL1
        || op1 == 0 && crn == 2 && (1..=3).contains(&crm)
}

/// What `hv_sys_reg_t` has no name for: the framework gives no access, though
/// the guest has them.
fn is_private(reg: SysReg) -> bool {
    matches!(
        reg.fields(),
        // Counter and frequency, PSTATE views, OS lock, ICC, RAS, PMU.
        [3, 3, 14, 0, _]
            | [3, 3, 14, 3, 0]
            | [3, _, 4, 2 | 4, _]
            | [2, 0, 1, ..]
            | [3, 0, 4, 6, 0]
            | [3, 0, 12, 8..=15, _]
            | [3, 0, 12, 1, _]
            | [3, _, 9, ..]
            | [3, 3, 14, 8..=15, _]
            | [3, 0, 10, 4, _]
    )
}

fn check(cpu: &Cpu, reg: SysReg) -> Result<(), Return> {
    if is_absent(reg) {
        return Err(Return::UNSUPPORTED);
    }
    if is_private(reg) {
        return Err(Return::BAD_ARGUMENT);
    }
    let physical = TimerReg::from_key(reg.0).is_some_and(TimerReg::is_physical_timer);
    if physical && cpu.vm.gic().is_none() {
        return Err(Return::UNSUPPORTED);
    }
    Ok(())
}

/// A system register.
pub(super) fn get_sys(cpu: &mut Cpu, reg: SysReg) -> Result<u64, Return> {
    check(cpu, reg)?;
    let value = match reg {
        SysReg::SP_EL0 => cpu.stack_pointer(0),
        SysReg::SP_EL1 => cpu.stack_pointer(1),
        _ => cpu.read_sysreg(reg.0).ok_or(Return::BAD_ARGUMENT)?,
    };
    if reg == SysReg::ID_AA64ISAR0_EL1 {
        return Ok(value ^ FAULTS.isar0_flip.load(Ordering::Relaxed));
    }
    Ok(value)
}

/// Writes a system register. ID registers that are fixed take their own value
/// only, so that a restore to a different engine fails.
pub(super) fn set_sys(cpu: &mut Cpu, reg: SysReg, value: u64) -> Result<(), Return> {
    check(cpu, reg)?;
    match reg {
        SysReg::SP_EL0 => cpu.set_stack_pointer(0, value),
        SysReg::SP_EL1 => cpu.set_stack_pointer(1, value),
        SysReg::MPIDR_EL1 => {
            cpu.sys.mpidr = value;
            cpu.shared.note_affinity();
            if let Some(gic) = cpu.vm.gic() {
                gic.set_affinity(cpu.index, value);
            }
        }
        _ if cpu.sys.id.set(reg.0, value) || cpu.write_sysreg(reg.0, value) => {}
        _ if cpu.read_sysreg(reg.0) == Some(value) => {}
        _ => return Err(Return::BAD_ARGUMENT),
    }
    Ok(())
}

/// An ID register as new vCPUs have it; `None` for an unknown number.
pub(super) fn feature(reg: FeatureReg, isar0_flip: u64) -> Option<u64> {
    let id = |reg: SysReg| IdRegs::default().read(reg.0);
    Some(match reg {
        FeatureReg::ID_AA64DFR0_EL1 => id(SysReg::ID_AA64DFR0_EL1),
        FeatureReg::ID_AA64DFR1_EL1 => id(SysReg::ID_AA64DFR1_EL1),
        FeatureReg::ID_AA64ISAR0_EL1 => id(SysReg::ID_AA64ISAR0_EL1) ^ isar0_flip,
        FeatureReg::ID_AA64ISAR1_EL1 => id(SysReg::ID_AA64ISAR1_EL1),
        FeatureReg::ID_AA64MMFR0_EL1 => id(SysReg::ID_AA64MMFR0_EL1),
        FeatureReg::ID_AA64MMFR1_EL1 => id(SysReg::ID_AA64MMFR1_EL1),
        FeatureReg::ID_AA64MMFR2_EL1 => id(SysReg::ID_AA64MMFR2_EL1),
        FeatureReg::ID_AA64PFR0_EL1 => id(SysReg::ID_AA64PFR0_EL1),
        FeatureReg::ID_AA64PFR1_EL1 => id(SysReg::ID_AA64PFR1_EL1),
        FeatureReg::CTR_EL0 => idregs::CTR_EL0,
        FeatureReg::CLIDR_EL1 => idregs::CLIDR_EL1,
        FeatureReg::DCZID_EL0 => idregs::DCZID_EL0,
        // ID_AA64SMFR0_EL1 and ID_AA64ZFR0_EL1 of macOS 15.2: no SME, no SVE.
        FeatureReg(12 | 13) => 0,
        _ => return None,
    })
}
