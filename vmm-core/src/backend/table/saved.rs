//! Which registers make up a saved vCPU, and in which order they go back.

use hvf::HvfError;
use hvf::sys::{GicIccReg, Reg, SimdReg, SysReg};

use crate::arch::aarch64::registers;
use crate::hypervisor::{EngineError, Registers, VcpuState};

/// Compared on restore: a guest keeps what it learned of its processor.
const IDENTITY: [(&str, SysReg); 10] = [
    ("MIDR_EL1", SysReg::MIDR_EL1),
    ("ID_AA64PFR0_EL1", SysReg::ID_AA64PFR0_EL1),
    ("ID_AA64PFR1_EL1", SysReg::ID_AA64PFR1_EL1),
    ("ID_AA64DFR0_EL1", SysReg::ID_AA64DFR0_EL1),
    ("ID_AA64DFR1_EL1", SysReg::ID_AA64DFR1_EL1),
    ("ID_AA64ISAR0_EL1", SysReg::ID_AA64ISAR0_EL1),
    ("ID_AA64ISAR1_EL1", SysReg::ID_AA64ISAR1_EL1),
    ("ID_AA64MMFR0_EL1", SysReg::ID_AA64MMFR0_EL1),
    ("ID_AA64MMFR1_EL1", SysReg::ID_AA64MMFR1_EL1),
    ("ID_AA64MMFR2_EL1", SysReg::ID_AA64MMFR2_EL1),
];

/// Restored as they are. The timer's come last, after its offset.
const SYSTEM: [SysReg; 39] = [
    SysReg::SCTLR_EL1,
    SysReg::CPACR_EL1,
    SysReg::TTBR0_EL1,
    SysReg::TTBR1_EL1,
    SysReg::TCR_EL1,
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
    SysReg::APIAKEYLO_EL1,
    SysReg::APIAKEYHI_EL1,
    SysReg::APIBKEYLO_EL1,
    SysReg::APIBKEYHI_EL1,
    SysReg::APDAKEYLO_EL1,
    SysReg::APDAKEYHI_EL1,
    SysReg::APDBKEYLO_EL1,
    SysReg::APDBKEYHI_EL1,
    SysReg::APGAKEYLO_EL1,
    SysReg::APGAKEYHI_EL1,
    SysReg::CNTV_CVAL_EL0,
    SysReg::CNTV_CTL_EL0,
    SysReg::CNTP_CVAL_EL0,
    SysReg::CNTP_CTL_EL0,
];

/// In the order of restoring: enabling comes last.
const INTERRUPTS: [GicIccReg; 9] = [
    GicIccReg::SRE_EL1,
    GicIccReg::CTLR_EL1,
    GicIccReg::PMR_EL1,
    GicIccReg::BPR0_EL1,
    GicIccReg::BPR1_EL1,
    GicIccReg::AP0R0_EL1,
    GicIccReg::AP1R0_EL1,
    GicIccReg::IGRPEN0_EL1,
    GicIccReg::IGRPEN1_EL1,
];

/// Captures a vCPU when the engine's counter is `now`.
pub(super) fn save(vcpu: &hvf::Vcpu, now: u64) -> Result<VcpuState, EngineError> {
    let mut state = registers::Registers {
        pc: vcpu.reg(Reg::PC)?,
        cpsr: vcpu.reg(Reg::CPSR)?,
        fpcr: vcpu.reg(Reg::FPCR)?,
        fpsr: vcpu.reg(Reg::FPSR)?,
        vtimer_masked: vcpu.vtimer_mask()?,
        ..registers::Registers::default()
    };
    for (n, value) in (0..).zip(&mut state.general) {
        *value = vcpu.general(n)?;
    }
    for (n, value) in (0..).zip(&mut state.simd) {
        *value = vcpu.simd(SimdReg(n))?;
    }
    for (_, reg) in IDENTITY {
        state
            .identity
            .extend(known(vcpu.sys_reg(reg))?.map(|v| (reg.0, v)));
    }
    // Breakpoint registers a guest may use; engines refuse those past the
    // number they have.
    let debug = (0..16).flat_map(|n| {
        [
            SysReg::dbgbvr(n),
            SysReg::dbgbcr(n),
            SysReg::dbgwvr(n),
            SysReg::dbgwcr(n),
        ]
    });
    for reg in debug.chain(SYSTEM) {
        state
            .system
            .extend(known(vcpu.sys_reg(reg))?.map(|v| (reg.0, v)));
    }
    for reg in INTERRUPTS {
        state
            .interrupts
            .extend(known(vcpu.icc_reg(reg))?.map(|v| (reg.0, v)));
    }
    Ok(VcpuState {
        counter: now.wrapping_sub(vcpu.vtimer_offset()?),
        registers: Registers::Aarch64(Box::new(state)),
    })
}

pub(super) fn load(
    vcpu: &mut hvf::Vcpu,
    state: &VcpuState,
    counter: u64,
) -> Result<(), EngineError> {
    let guest = state.counter;
    let Registers::Aarch64(state) = &state.registers;
    for &(number, saved) in &state.identity {
        let here = vcpu.sys_reg(SysReg(number))?;
        if here != saved {
            let name = IDENTITY.iter().find(|(_, reg)| reg.0 == number);
            return Err(EngineError::IncompatibleState {
                register: name.map_or("of unknown name", |(name, _)| name),
                saved,
                here,
            });
        }
    }
    vcpu.set_vtimer_offset(counter.wrapping_sub(guest))?;
    for &(number, value) in &state.system {
        vcpu.set_sys_reg(SysReg(number), value)?;
    }
    for (n, value) in (0..).zip(state.simd) {
        vcpu.set_simd(SimdReg(n), value)?;
    }
    for &(number, value) in &state.interrupts {
        vcpu.set_icc_reg(GicIccReg(number), value)?;
    }
    vcpu.set_vtimer_mask(state.vtimer_masked)?;
    for (n, value) in (0..).zip(state.general) {
        vcpu.set_general(n, value)?;
    }
    vcpu.set_reg(Reg::FPCR, state.fpcr)?;
    vcpu.set_reg(Reg::FPSR, state.fpsr)?;
    vcpu.set_reg(Reg::CPSR, state.cpsr)?;
    Ok(vcpu.set_reg(Reg::PC, state.pc)?)
}

/// A register the engine does not have is not part of the state.
fn known(value: Result<u64, HvfError>) -> Result<Option<u64>, EngineError> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(HvfError::Call { .. }) => Ok(None),
        Err(other) => Err(other.into()),
    }
}
