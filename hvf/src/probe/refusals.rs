//! With which code an engine refuses what is not allowed.

use super::machine::{HVC, guest, machine, run, vcpu};
use super::{Probe, Question, outcome};
use crate::error::{HvfError, check};
use crate::sys::{
    GicRedistributorReg, InterruptType, Reg, SysReg, VcpuConfig, VcpuExit, VcpuId, VmConfig,
};
use crate::vm::{Capabilities, Vm};
use std::thread;

pub(super) const QUESTIONS: &[Question] = &[
    Question {
        text: "a second machine",
        ask: second_machine,
    },
    Question {
        text: "a vCPU without a machine",
        ask: vcpu_without_machine,
    },
    Question {
        text: "a second vCPU of one thread",
        ask: second_vcpu,
    },
    Question {
        text: "ending a machine that has a vCPU",
        ask: end_with_vcpu,
    },
    Question {
        text: "a register, asked from another thread",
        ask: another_thread,
    },
    Question {
        text: "a system register that there is not",
        ask: unknown_register,
    },
    Question {
        text: "addresses wider than the host has",
        ask: too_wide,
    },
    Question {
        text: "an interrupt line beside a controller",
        ask: line_beside_controller,
    },
    Question {
        text: "writing identification registers",
        ask: identification,
    },
    Question {
        text: "state of the controller, set after a run",
        ask: state_after_run,
    },
    Question {
        text: "state of the controller, cut short",
        ask: state_cut_short,
    },
    Question {
        text: "registers of a redistributor, set after a run",
        ask: redistributor_after_run,
    },
];

fn second_machine(probe: &Probe) -> Result<String, HvfError> {
    let (_vm, _) = machine(probe, false)?;
    // SAFETY: no configuration. If there can be two, the process ends with both.
    Ok(outcome(check("vm_create", unsafe {
        (probe.api.vm_create)(VmConfig::NULL)
    })))
}

/// A vCPU by the table itself, which is not destroyed.
fn raw_vcpu(probe: &Probe) -> Result<(), HvfError> {
    let mut id = VcpuId(0);
    let mut exit: *const VcpuExit = std::ptr::null();
    // SAFETY: both pointers are valid for the call.
    check("vcpu_create", unsafe {
        (probe.api.vcpu_create)(&raw mut id, &raw mut exit, VcpuConfig::NULL)
    })?;
    // SAFETY: this thread's vCPU, never used again.
    check("vcpu_destroy", unsafe { (probe.api.vcpu_destroy)(id) })
}

fn vcpu_without_machine(probe: &Probe) -> Result<String, HvfError> {
    Ok(outcome(raw_vcpu(probe)))
}

fn second_vcpu(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _) = machine(probe, false)?;
    let _first = vm.create_vcpu()?;
    Ok(outcome(raw_vcpu(probe)))
}

fn end_with_vcpu(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _) = machine(probe, false)?;
    let _vcpu = vm.create_vcpu()?;
    // SAFETY: if it ends, what is dropped later is refused by the engine, which has no
    // machine then.
    Ok(outcome(check("vm_destroy", unsafe {
        (probe.api.vm_destroy)()
    })))
}

fn another_thread(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _) = machine(probe, false)?;
    let vcpu = vm.create_vcpu()?;
    let (id, api) = (vcpu.id(), &probe.api);
    let asked = thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut value = 0;
            // SAFETY: `value` is valid for a write. The engine is asked whether it
            // refuses the thread; nothing runs meanwhile.
            check("vcpu_get_reg", unsafe {
                (api.vcpu_get_reg)(id, Reg::PC, &raw mut value)
            })
        });
        other.join()
    });
    Ok(asked.map_or_else(|_| "the thread panicked".to_owned(), outcome))
}

fn unknown_register(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _) = machine(probe, false)?;
    let mut vcpu = vm.create_vcpu()?;
    let register = SysReg::new(3, 7, 15, 15, 7);
    Ok(format!(
        "read: {}, written: {}",
        outcome(vcpu.sys_reg(register)),
        outcome(vcpu.set_sys_reg(register, 0))
    ))
}

fn too_wide(probe: &Probe) -> Result<String, HvfError> {
    let most = Capabilities::query(&probe.api)?.max_ipa_bits;
    Ok(outcome(Vm::new(probe.api, Some(most + 1))))
}

fn line_beside_controller(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _gic) = machine(probe, true)?;
    let mut vcpu = vcpu(&vm, 0)?;
    Ok(outcome(
        vcpu.set_pending_interrupt(InterruptType::IRQ, true),
    ))
}

fn identification(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _gic) = machine(probe, true)?;
    let mut vcpu = vcpu(&vm, 0)?;
    let mut told = Vec::new();
    for (name, register, field) in [
        ("DFR0.PMUVer", SysReg::ID_AA64DFR0_EL1, 0xf << 8),
        ("PFR0.GIC", SysReg::ID_AA64PFR0_EL1, 0xf << 24),
        ("PFR1.SME", SysReg::ID_AA64PFR1_EL1, 0xf << 24),
    ] {
        let before = vcpu.sys_reg(register)?;
        let written = vcpu.set_sys_reg(register, before & !field);
        let took = vcpu.sys_reg(register)? & field == 0;
        told.push(format!(
            "{name} cleared: {}, reads as 0: {took}",
            outcome(written)
        ));
    }
    Ok(told.join("; "))
}

fn state_after_run(probe: &Probe) -> Result<String, HvfError> {
    let (vm, gic) = machine(probe, true)?;
    let gic = gic.ok_or(HvfError::NoGic)?;
    let mut guest = guest(&vm, &[HVC], 0)?;
    let state = gic.capture()?;
    run(&mut guest, probe.patience.leaves)?;
    Ok(outcome(gic.restore(&state)))
}

fn state_cut_short(probe: &Probe) -> Result<String, HvfError> {
    let (vm, gic) = machine(probe, true)?;
    let gic = gic.ok_or(HvfError::NoGic)?;
    let _vcpu = vcpu(&vm, 0)?;
    let state = gic.capture()?;
    let short = state.get(..state.len() / 2).unwrap_or_default();
    let mut other = state.clone();
    if let Some(first) = other.first_mut() {
        *first ^= 0xff;
    }
    Ok(format!(
        "half of it: {}, another first byte: {}",
        outcome(gic.restore(short)),
        outcome(gic.restore(&other))
    ))
}

fn redistributor_after_run(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _gic) = machine(probe, true)?;
    let mut guest = guest(&vm, &[HVC], 0)?;
    run(&mut guest, probe.patience.leaves)?;
    let register = GicRedistributorReg::IGROUPR0;
    let value = guest.redistributor_reg(register)?;
    Ok(outcome(guest.set_redistributor_reg(register, value)))
}
