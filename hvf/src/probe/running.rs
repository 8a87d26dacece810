//! What guests do that only a run shows.

use super::machine::{
    BACK, BESIDE, FRAMES, HVC, LOAD, LOAD_LONG, STAY, WFI, guest, machine, map, memory, run, told,
};
use super::{Probe, Question, outcome};
use crate::error::HvfError;
use crate::gic::GicGeometry;
use crate::sys::{GicRedistributorReg, PAGE_BYTES, SysReg};
use std::thread;

pub(super) const QUESTIONS: &[Question] = &[
    Question {
        text: "a hypercall",
        ask: hypercall,
    },
    Question {
        text: "WFI without a controller",
        ask: |probe| wait(probe, false, false),
    },
    Question {
        text: "WFI with a controller",
        ask: |probe| wait(probe, true, false),
    },
    Question {
        text: "WFI with a timer that is due, without a controller",
        ask: |probe| wait(probe, false, true),
    },
    Question {
        text: "WFI with a timer that is due, with a controller",
        ask: |probe| wait(probe, true, true),
    },
    Question {
        text: "reading the TYPER of its own redistributor",
        ask: |probe| read_frame(probe, 0),
    },
    Question {
        text: "reading the TYPER of a redistributor without a vCPU",
        ask: |probe| read_frame(probe, 1),
    },
    Question {
        text: "memory taken away from a running guest",
        ask: taken_away,
    },
    Question {
        text: "time in the guest, as a share of the counter's",
        ask: time,
    },
];

fn hypercall(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _) = machine(probe, false)?;
    let mut guest = guest(&vm, &[HVC], 0)?;
    let exit = run(&mut guest, probe.patience.leaves)?;
    let past = guest
        .reg(crate::sys::Reg::PC)?
        .wrapping_sub(super::machine::CODE);
    Ok(format!("{}, PC +{past}", told(&exit)))
}

fn wait(probe: &Probe, with_gic: bool, with_timer: bool) -> Result<String, HvfError> {
    let (vm, _gic) = machine(probe, with_gic)?;
    let mut guest = guest(&vm, &[WFI, BACK], 0)?;
    guest.set_vtimer_offset(0)?;
    if with_timer {
        guest.set_sys_reg(SysReg::CNTV_CVAL_EL0, 0)?;
        guest.set_sys_reg(SysReg::CNTV_CTL_EL0, 1)?;
        guest.set_vtimer_mask(false)?;
    }
    Ok(told(&run(&mut guest, probe.patience.may_stay)?))
}

fn read_frame(probe: &Probe, number: u64) -> Result<String, HvfError> {
    let bytes = GicGeometry::query(&probe.api)?.redistributor_bytes as u64;
    let (vm, _gic) = machine(probe, true)?;
    let register = u64::from(GicRedistributorReg::TYPER.0);
    let address = FRAMES.redistributors + number * bytes + register;
    let mut guest = guest(&vm, &[LOAD_LONG, HVC], address)?;
    let exit = run(&mut guest, probe.patience.leaves)?;
    Ok(format!(
        "{}, having read {:#x}",
        told(&exit),
        guest.general(1)?
    ))
}

fn taken_away(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _) = machine(probe, false)?;
    map(&vm, memory(PAGE_BYTES, false)?, BESIDE, PAGE_BYTES)?;
    let mut guest = guest(&vm, &[LOAD, BACK], BESIDE)?;
    let (exit, unmapped) = thread::scope(|scope| {
        let other = scope.spawn(|| {
            thread::sleep(probe.patience.may_stay / 4);
            vm.unmap(BESIDE, PAGE_BYTES)
        });
        let exit = run(&mut guest, probe.patience.leaves);
        (exit, other.join())
    });
    let unmapped = unmapped.map_or_else(|_| "the thread panicked".to_owned(), outcome);
    Ok(format!("{unmapped}; the guest {}", told(&exit?)))
}

fn time(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _) = machine(probe, false)?;
    let mut guest = guest(&vm, &[STAY], 0)?;
    let begun = (probe.api.counter)();
    run(&mut guest, probe.patience.may_stay)?;
    let passed = (probe.api.counter)().wrapping_sub(begun);
    let inside = guest.exec_time()?;
    Ok(format!("{inside} of {passed}"))
}
