//! Numbers that an engine has.

use super::machine::{FRAMES, guest, machine, run, vcpu};
use super::{Probe, Question, machine::HVC};
use crate::error::HvfError;
use crate::gic::GicGeometry;
use crate::sys::{FeatureReg, GicIntid, GicRedistributorReg, Reg, SysReg};
use crate::vcpu::Vcpu;
use crate::vm::{Capabilities, feature_reg};
use std::sync::Barrier;
use std::thread;

pub(super) const QUESTIONS: &[Question] = &[
    Question {
        text: "limits",
        ask: limits,
    },
    Question {
        text: "geometry of the interrupt controller",
        ask: geometry,
    },
    Question {
        text: "frame of message interrupts",
        ask: messages,
    },
    Question {
        text: "interrupts of the engine",
        ask: intids,
    },
    Question {
        text: "counter",
        ask: counter,
    },
    Question {
        text: "identification registers",
        ask: identification,
    },
    Question {
        text: "ID_AA64PFR0_EL1 of a vCPU with a controller",
        ask: processor_features,
    },
    Question {
        text: "registers of a new vCPU that are not 0",
        ask: reset_values,
    },
    Question {
        text: "TYPER of two redistributors (bit 4: last)",
        ask: typers,
    },
    Question {
        text: "state of the controller",
        ask: state,
    },
];

fn limits(probe: &Probe) -> Result<String, HvfError> {
    let limits = Capabilities::query(&probe.api)?;
    Ok(format!(
        "{} vCPUs, {} bits of addresses, at most {}",
        limits.max_vcpus, limits.default_ipa_bits, limits.max_ipa_bits
    ))
}

fn geometry(probe: &Probe) -> Result<String, HvfError> {
    let geometry = GicGeometry::query(&probe.api)?;
    Ok(format!(
        "distributor {:#x} aligned {:#x}, redistributor {:#x} of {:#x} aligned {:#x}, \
         shared interrupts from {}: {}",
        geometry.distributor_bytes,
        geometry.distributor_alignment,
        geometry.redistributor_bytes,
        geometry.redistributor_region_bytes,
        geometry.redistributor_alignment,
        geometry.first_spi,
        geometry.spi_count
    ))
}

fn messages(probe: &Probe) -> Result<String, HvfError> {
    let gic = probe.api.gic.as_ref().ok_or(HvfError::NoGic)?;
    let (mut bytes, mut alignment) = (0, 0);
    // SAFETY: each call writes one integer through a valid pointer.
    let (first, second) = unsafe {
        (
            (gic.get_msi_region_size)(&raw mut bytes),
            (gic.get_msi_region_base_alignment)(&raw mut alignment),
        )
    };
    crate::error::check("gic.get_msi_region_size", first)?;
    crate::error::check("gic.get_msi_region_base_alignment", second)?;
    Ok(format!("{bytes:#x} aligned {alignment:#x}"))
}

fn intids(probe: &Probe) -> Result<String, HvfError> {
    let (_vm, gic) = machine(probe, true)?;
    let gic = gic.ok_or(HvfError::NoGic)?;
    let named = [
        ("performance monitor", GicIntid::PERFORMANCE_MONITOR),
        ("maintenance", GicIntid::MAINTENANCE),
        ("timer of EL2", GicIntid::EL2_PHYSICAL_TIMER),
        ("virtual timer", GicIntid::EL1_VIRTUAL_TIMER),
        ("physical timer", GicIntid::EL1_PHYSICAL_TIMER),
    ];
    let told = named.map(|(name, source)| match gic.intid(source) {
        Ok(number) => format!("{name} {number}"),
        Err(error) => format!("{name}: {}", super::outcome::<()>(Err(error))),
    });
    Ok(told.join(", "))
}

fn counter(probe: &Probe) -> Result<String, HvfError> {
    Ok(format!("{} ticks a second", probe.api.counter_hz))
}

fn identification(probe: &Probe) -> Result<String, HvfError> {
    let mut told = Vec::new();
    for (name, register) in [
        ("DFR0", FeatureReg::ID_AA64DFR0_EL1),
        ("ISAR0", FeatureReg::ID_AA64ISAR0_EL1),
        ("ISAR1", FeatureReg::ID_AA64ISAR1_EL1),
        ("MMFR0", FeatureReg::ID_AA64MMFR0_EL1),
        ("MMFR1", FeatureReg::ID_AA64MMFR1_EL1),
        ("MMFR2", FeatureReg::ID_AA64MMFR2_EL1),
        ("PFR0", FeatureReg::ID_AA64PFR0_EL1),
        ("PFR1", FeatureReg::ID_AA64PFR1_EL1),
        ("CTR", FeatureReg::CTR_EL0),
        ("CLIDR", FeatureReg::CLIDR_EL1),
        ("DCZID", FeatureReg::DCZID_EL0),
    ] {
        told.push(format!(
            "{name} {:#018x}",
            feature_reg(&probe.api, register)?
        ));
    }
    Ok(told.join(", "))
}

fn processor_features(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _gic) = machine(probe, true)?;
    let value = vcpu(&vm, 0)?.sys_reg(SysReg::ID_AA64PFR0_EL1)?;
    Ok(format!(
        "{value:#018x}, its field GIC is {}",
        value >> 24 & 15
    ))
}

fn reset_values(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _gic) = machine(probe, false)?;
    let vcpu = vm.create_vcpu()?;
    let mut told = Vec::new();
    for number in 0..=Reg::CPSR.0 {
        let value = vcpu.reg(Reg(number))?;
        let name = match Reg(number) {
            Reg::PC => "PC".to_owned(),
            Reg::FPCR => "FPCR".to_owned(),
            Reg::FPSR => "FPSR".to_owned(),
            Reg::CPSR => "CPSR".to_owned(),
            _ => format!("X{number}"),
        };
        told.push((name, value));
    }
    for (name, register) in [
        ("SCTLR_EL1", SysReg::SCTLR_EL1),
        ("CPACR_EL1", SysReg::CPACR_EL1),
        ("MPIDR_EL1", SysReg::MPIDR_EL1),
        ("MIDR_EL1", SysReg::MIDR_EL1),
        ("TCR_EL1", SysReg::TCR_EL1),
        ("VBAR_EL1", SysReg::VBAR_EL1),
        ("CNTKCTL_EL1", SysReg::CNTKCTL_EL1),
        ("CNTV_CTL_EL0", SysReg::CNTV_CTL_EL0),
        ("MDSCR_EL1", SysReg::MDSCR_EL1),
    ] {
        told.push((name.to_owned(), vcpu.sys_reg(register)?));
    }
    told.push(("vtimer offset".to_owned(), vcpu.vtimer_offset()?));
    told.push(("vtimer mask".to_owned(), u64::from(vcpu.vtimer_mask()?)));
    let told: Vec<String> = told
        .into_iter()
        .filter(|(_, value)| *value != 0)
        .map(|(name, value)| format!("{name} {value:#x}"))
        .collect();
    Ok(told.join(", "))
}

fn typers(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _gic) = machine(probe, true)?;
    let typer = |vcpu: &Vcpu, number: u64| {
        let base = vcpu.redistributor_base()?;
        let value = vcpu.redistributor_reg(GicRedistributorReg::TYPER)?;
        let from = base.wrapping_sub(FRAMES.redistributors);
        Ok(format!("{number}: {value:#x} at +{from:#x}"))
    };
    let first = vcpu(&vm, 0)?;
    // The second is there when the first is asked, and until that was.
    let both = Barrier::new(2);
    let (first, second) = thread::scope(|scope| {
        let second = scope.spawn(|| {
            let second = vcpu(&vm, 1);
            both.wait();
            let told = second.as_ref().map_err(|error| *error);
            let told = told.and_then(|second| typer(second, 1));
            both.wait();
            told
        });
        both.wait();
        let told = typer(&first, 0);
        both.wait();
        (told, second.join())
    });
    let second = second.unwrap_or(Err(HvfError::NoGic))?;
    Ok(format!("{}, {second}", first?))
}

fn state(probe: &Probe) -> Result<String, HvfError> {
    let (vm, gic) = machine(probe, true)?;
    let gic = gic.ok_or(HvfError::NoGic)?;
    let before = gic.capture()?;
    let mut guest = guest(&vm, &[HVC], 0)?;
    run(&mut guest, probe.patience.leaves)?;
    let after = gic.capture()?;
    let start: String = after
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(format!(
        "{} bytes before a vCPU, {} after a run, which begin {start}",
        before.len(),
        after.len()
    ))
}
