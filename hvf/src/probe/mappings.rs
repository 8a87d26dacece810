//! What memory an engine maps, and what it does with parts of mappings.

use super::machine::{BESIDE, HVC, LOAD, guest, machine, map, memory, run, told};
use super::{Probe, Question, outcome};
use crate::error::{HvfError, check};
use crate::framework::set_small_granule;
use crate::sys::{MemoryFlags, PAGE_BYTES};

pub(super) const QUESTIONS: &[Question] = &[
    Question {
        text: "mapping over a mapping",
        ask: overlap,
    },
    Question {
        text: "unmapping a hole",
        ask: hole,
    },
    Question {
        text: "unmapping a part of a mapping",
        ask: part,
    },
    Question {
        text: "mapping 4 KiB",
        ask: small,
    },
    Question {
        text: "mapping 4 KiB in a machine with that granule",
        ask: small_with_granule,
    },
    Question {
        text: "mapping what the host may only read",
        ask: read_only,
    },
];

const PAGES: usize = 4;

fn overlap(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _) = machine(probe, false)?;
    let pages = memory(PAGES * PAGE_BYTES, false)?;
    map(&vm, pages, BESIDE, PAGES * PAGE_BYTES)?;
    Ok(outcome(map(
        &vm,
        pages,
        BESIDE + PAGE_BYTES as u64,
        PAGE_BYTES,
    )))
}

fn hole(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _) = machine(probe, false)?;
    Ok(outcome(vm.unmap(BESIDE, PAGE_BYTES)))
}

fn part(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _) = machine(probe, false)?;
    map(
        &vm,
        memory(PAGES * PAGE_BYTES, false)?,
        BESIDE,
        PAGES * PAGE_BYTES,
    )?;
    let unmapped = outcome(vm.unmap(BESIDE + PAGE_BYTES as u64, PAGE_BYTES));
    let mut guest = guest(&vm, &[LOAD, HVC], BESIDE + 2 * PAGE_BYTES as u64)?;
    let exit = run(&mut guest, probe.patience.leaves)?;
    Ok(format!(
        "{unmapped}; a guest that reads behind it {}",
        told(&exit)
    ))
}

/// Maps a quarter of a page by the table itself.
fn map_small(probe: &Probe) -> Result<(), HvfError> {
    let page = memory(PAGE_BYTES, false)?;
    // SAFETY: memory of questions is never given back, and nobody has a reference to it.
    check("vm_map", unsafe {
        (probe.api.vm_map)(page.as_ptr().cast(), BESIDE + 4096, 4096, MemoryFlags::RWX)
    })
}

fn small(probe: &Probe) -> Result<String, HvfError> {
    let (_vm, _) = machine(probe, false)?;
    Ok(outcome(map_small(probe)))
}

fn small_with_granule(probe: &Probe) -> Result<String, HvfError> {
    // SAFETY: creating a configuration has no precondition.
    let config = unsafe { (probe.api.vm_config_create)() };
    let Some(chosen) = set_small_granule(&probe.api, config) else {
        return Ok("there is no call to choose it, which macOS 26 has".to_owned());
    };
    // SAFETY: the configuration was created above.
    let created =
        chosen.and_then(|()| check("vm_create", unsafe { (probe.api.vm_create)(config) }));
    // SAFETY: ours, and not used again.
    unsafe { (probe.api.os_release)(config.0) };
    created?;
    let mapped = outcome(map_small(probe));
    // SAFETY: the machine was created above and has no vCPU.
    check("vm_destroy", unsafe { (probe.api.vm_destroy)() })?;
    Ok(mapped)
}

fn read_only(probe: &Probe) -> Result<String, HvfError> {
    let (vm, _) = machine(probe, false)?;
    let mapped = map(&vm, memory(PAGE_BYTES, true)?, BESIDE, PAGE_BYTES);
    if mapped.is_err() {
        return Ok(outcome(mapped));
    }
    let mut guest = guest(&vm, &[LOAD, HVC], BESIDE)?;
    let exit = run(&mut guest, probe.patience.leaves)?;
    Ok(format!("accepted; a guest that reads it {}", told(&exit)))
}
