//! Machines for questions: a page of code, and vCPUs that do not run for ever.

use super::Probe;
use crate::error::HvfError;
use crate::gic::{Gic, GicAddresses};
use crate::sys::{ExitReason, MemoryFlags, PAGE_BYTES, Reg, Return, SysReg, VcpuExit};
use crate::vcpu::Vcpu;
use crate::vm::Vm;
use std::ptr::NonNull;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Where guests have their code, and where questions map something beside it.
pub(super) const CODE: u64 = 0x8000_0000;
pub(super) const BESIDE: u64 = 0x9000_0000;
/// Where the controller's frames are.
pub(super) const FRAMES: GicAddresses = GicAddresses {
    distributor: 0x0800_0000,
    redistributors: 0x080a_0000,
};

/// Instructions of A64.
pub(super) const HVC: u32 = 0xd400_0002;
pub(super) const WFI: u32 = 0xd503_207f;
/// `ldr w1, [x0]` and `ldr x1, [x0]`.
pub(super) const LOAD: u32 = 0xb940_0001;
pub(super) const LOAD_LONG: u32 = 0xf940_0001;
/// `b .`, and a branch to the instruction before.
pub(super) const STAY: u32 = 0x1400_0000;
pub(super) const BACK: u32 = 0x17ff_ffff;

/// EL1 with its own stack pointer, all interrupts masked.
const EL1: u64 = 0x3c5;
/// Bit of `MPIDR_EL1` that is always set.
const MPIDR_RES1: u64 = 1 << 31;

/// Memory that is never given back: the process ends soon, and no mapping of a guest can
/// outlive it.
pub(super) fn memory(bytes: usize, readable_only: bool) -> Result<NonNull<u8>, HvfError> {
    const NONE: HvfError = HvfError::Call {
        call: "mmap",
        code: Return::NO_RESOURCES,
    };
    // SAFETY: a new mapping, wherever the system has room.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes + PAGE_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANON,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(NONE);
    }
    // Pages of the host may be smaller.
    let ahead = start.cast::<u8>().align_offset(PAGE_BYTES);
    // SAFETY: the mapping is longer by as much as this is at most.
    let aligned = unsafe { start.cast::<u8>().add(ahead) };
    if readable_only {
        // SAFETY: within the mapping, and nobody has a reference to it.
        let done = unsafe { libc::mprotect(aligned.cast(), bytes, libc::PROT_READ) };
        if done != 0 {
            return Err(NONE);
        }
    }
    NonNull::new(aligned).ok_or(NONE)
}

/// Maps memory of the process at an address of the guest.
pub(super) fn map(vm: &Vm, host: NonNull<u8>, ipa: u64, bytes: usize) -> Result<(), HvfError> {
    // SAFETY: all memory of questions is never given back, and nothing in this process
    // has a reference to it.
    unsafe { vm.map(host, ipa, bytes, MemoryFlags::RWX) }
}

/// A machine, with a controller or without.
pub(super) fn machine(probe: &Probe, with_gic: bool) -> Result<(Vm, Option<Gic>), HvfError> {
    let vm = Vm::new(probe.api, None)?;
    let gic = if with_gic {
        Some(vm.create_gic(FRAMES)?)
    } else {
        None
    };
    Ok((vm, gic))
}

/// A vCPU of this thread with its number.
pub(super) fn vcpu(vm: &Vm, number: u64) -> Result<Vcpu, HvfError> {
    let mut vcpu = vm.create_vcpu()?;
    vcpu.set_sys_reg(SysReg::MPIDR_EL1, MPIDR_RES1 | number)?;
    Ok(vcpu)
}

/// A first vCPU that is to execute `code`, with `x0`.
pub(super) fn guest(vm: &Vm, code: &[u32], x0: u64) -> Result<Vcpu, HvfError> {
    let page = memory(PAGE_BYTES, false)?;
    for (index, instruction) in code.iter().enumerate() {
        // SAFETY: questions have a few instructions, a page has room for thousands, and
        // it is aligned and ours.
        unsafe { page.cast::<u32>().add(index).write(instruction.to_le()) };
    }
    map(vm, page, CODE, PAGE_BYTES)?;
    let mut vcpu = vcpu(vm, 0)?;
    vcpu.set_reg(Reg::PC, CODE)?;
    vcpu.set_reg(Reg::CPSR, EL1)?;
    vcpu.set_reg(Reg::X0, x0)?;
    Ok(vcpu)
}

/// Runs a guest until it leaves, or until it is made to.
pub(super) fn run(vcpu: &mut Vcpu, patience: Duration) -> Result<VcpuExit, HvfError> {
    let kicker = vcpu.kicker();
    thread::scope(|scope| {
        let (left, wait) = mpsc::channel::<()>();
        scope.spawn(move || {
            // The other end is dropped as soon as the guest has left.
            if wait.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kicker.kick();
            }
        });
        let exit = vcpu.run();
        drop(left);
        exit
    })
}

/// How a guest left, in words.
pub(super) fn told(exit: &VcpuExit) -> String {
    match exit.reason {
        ExitReason::CANCELED => "stays until it is made to leave".to_owned(),
        ExitReason::VTIMER_ACTIVATED => "leaves with VTIMER_ACTIVATED".to_owned(),
        ExitReason::EXCEPTION => format!(
            "leaves with an exception: syndrome {:#x}, class {:#x}, guest physical {:#x}",
            exit.exception.syndrome,
            exit.exception.syndrome >> 26 & 0x3f,
            exit.exception.physical_address
        ),
        other => format!("leaves with reason {}", other.0),
    }
}
