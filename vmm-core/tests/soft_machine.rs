//! Whole machines on the software engine, with kernels of a few instructions.
#![cfg(feature = "softhv")]

#[path = "conformance_suite/asm.rs"]
#[allow(dead_code)] // Shared with the conformance suite.
mod asm;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use asm::Program;
use supermachine_vmm_core::VmResources;
use supermachine_vmm_core::arch::aarch64::layout;
use supermachine_vmm_core::backend::hvf::HvfEngine;
use supermachine_vmm_core::hypervisor::ExitCount;
use supermachine_vmm_core::machine::{ExitReason, Machine, MachineOptions, RunningMachine};

static ONE: Mutex<()> = Mutex::new(());

/// Runs `test` with a machine whose kernel is `program`.
fn with_machine(name: &str, vcpus: u32, program: Program, test: impl FnOnce(&RunningMachine)) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = write_kernel(name, &program);
    let resources = VmResources::new()
        .with_kernel_path(path.to_str().unwrap())
        .with_memory_mib(16)
        .with_vcpus(vcpus);
    let engine = HvfEngine::software();
    let machine = Machine::start(&engine, &resources, MachineOptions::default()).unwrap();
    test(&machine);
    drop(machine);
    std::fs::remove_file(path).unwrap();
}

/// An arm64 Image: its first instruction jumps over the header.
fn write_kernel(name: &str, program: &Program) -> PathBuf {
    let mut image = vec![0; 64];
    image[..4].copy_from_slice(&0x1400_0010_u32.to_le_bytes());
    image[16..24].copy_from_slice(&0x1_0000_u64.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image.extend(program.bytes());
    let path = std::env::temp_dir().join(format!("vmm-soft-{}-{name}", std::process::id()));
    std::fs::write(&path, image).unwrap();
    path
}

/// Starts `count` more vCPUs at the instruction after this program's own.
fn start_others(count: u64) -> Program {
    (1..=count).fold(Program::new(), |program, cpu| {
        // Each call is 17 instructions.
        let entry = layout::RAM + 64 + count * 17 * 4;
        program.firmware([0xc400_0003, cpu, entry, 0])
    })
}

#[test]
fn a_guest_prints_and_turns_itself_off() {
    let program = b"hi\n"
        .iter()
        .fold(Program::new(), |program, c| {
            program.poke(layout::UART, u32::from(*c))
        })
        .off();
    with_machine("print", 1, program, |machine| {
        assert_eq!(machine.wait(), ExitReason::PowerOff);
        assert_eq!(machine.console().text(), "hi\n");
        assert_eq!(machine.exit_count(ExitCount::MmioWrite), 3);
    });
}

#[test]
fn busy_and_sleeping_guests_pause_and_stop() {
    for (name, program) in [
        ("spin", start_others(3).spin()),
        ("sleep", start_others(3).sleep_forever()),
    ] {
        with_machine(name, 4, program, |machine| {
            for _ in 0..50 {
                machine.pause().unwrap();
                machine.resume();
            }
            let start = Instant::now();
            machine.stop().unwrap();
            assert!(start.elapsed() < Duration::from_secs(5));
            assert_eq!(machine.wait(), ExitReason::Stopped);
        });
    }
}

#[test]
fn a_machine_whose_vcpus_are_all_off_still_stops() {
    let program = Program::new().firmware([0x8400_0002, 0, 0, 0]);
    with_machine("off", 1, program, |machine| {
        assert_eq!(machine.wait_timeout(Duration::from_millis(50)), None);
        machine.pause().unwrap();
        machine.resume();
        machine.stop().unwrap();
    });
}

#[test]
fn any_vcpu_can_end_the_machine() {
    // The first vCPU sleeps, the second restarts the machine.
    let program = Program::new()
        .firmware([0xc400_0003, 1, layout::RAM + 64 + 19 * 4, 0])
        .sleep_forever()
        .firmware([0x8400_0009, 0, 0, 0]);
    with_machine("reset", 2, program, |machine| {
        assert_eq!(machine.wait(), ExitReason::Reset);
    });
}

#[test]
fn a_jump_into_nothing_ends_the_machine_with_the_address() {
    let nowhere = 0x4000_0000;
    let program = Program::new().set(1, nowhere).raw(0xd61f_0020);
    with_machine("nowhere", 1, program, |machine| {
        match machine.wait_timeout(Duration::from_secs(10)) {
            Some(ExitReason::GuestFault(fault)) => {
                assert!(fault.to_string().contains("0x40000000"), "{fault}");
            }
            other => panic!("{other:?}"),
        }
    });
}
