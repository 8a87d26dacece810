//! Whole machines on the software engine, with kernels of a few instructions.
#![cfg(feature = "softhv")]

#[path = "conformance_suite/asm.rs"]
#[allow(dead_code)] // Shared with the conformance suite.
mod asm;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use asm::Program;
use supermachine_vmm_core::MachineSpec;
use supermachine_vmm_core::arch::aarch64::layout;
use supermachine_vmm_core::backend::table::TableEngine;
use supermachine_vmm_core::hypervisor::ExitCount;
use supermachine_vmm_core::machine::{ExitReason, Machine, RunningMachine};

static ONE: Mutex<()> = Mutex::new(());

/// Runs `test` with a machine whose kernel is `program`.
fn with_machine(name: &str, vcpus: u32, program: Program, test: impl FnOnce(&RunningMachine)) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = write_kernel(name, &program);
    let spec = MachineSpec {
        memory_bytes: 16 << 20,
        vcpus,
        ..MachineSpec::new(&*path)
    };
    let engine = TableEngine::software();
    let machine = Machine::start(&engine, &spec, None).unwrap();
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

/// Writes a word to each of `pages` pages from `base`, again and again, each
/// time other words.
fn writes_pages(base: u64, pages: u64) -> Program {
    Program::new()
        .set(2, 1)
        // Each `set` is four instructions.
        .set(1, base)
        .set(3, pages)
        .raw(0xf900_0022) // str x2, [x1]
        .raw(0x9140_0421) // add x1, x1, #4096
        .raw(0x9100_0442) // add x2, x2, #1
        .raw(0x5100_0463) // sub w3, w3, #1
        .cbnz_w(3, -4)
        .b(-13)
}

fn content(machine: &RunningMachine) -> Vec<u8> {
    machine
        .store_memory(|source| {
            let mut all = vec![0; usize::try_from(source.memory_bytes()).unwrap()];
            while let Some((at, run)) = source.next_run().unwrap() {
                let at = usize::try_from(at).unwrap();
                all[at..at + run.len()].copy_from_slice(run);
            }
            Ok::<_, supermachine_vmm_core::machine::MachineError>(all)
        })
        .unwrap()
}

/// Captures a machine that writes, and lets a copy write and go back.
fn goes_back(name: &str, memory_mib: u64, pages: u64, copied: bool) {
    use snapshot::{Description, EngineId, Stamp, Store, SystemFiles, Written};
    use supermachine_vmm_core::machine::{PrepareOptions, PreparedMachine, RestoreOptions};

    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = write_kernel(name, &writes_pages(layout::RAM + (4 << 20), pages));
    let spec = MachineSpec {
        memory_bytes: memory_mib << 20,
        ..MachineSpec::new(&*path)
    };
    let engine = TableEngine::software();
    let first = Machine::start(&engine, &spec, None).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    first.pause().unwrap();
    let saved = first.save().unwrap();
    let root = path.with_extension("snapshots");
    let store = Store::new(&root).unwrap();
    let mut draft = store.lock("m", Duration::ZERO).unwrap().draft().unwrap();
    let state = saved.encode().unwrap();
    let written = first.store_memory(|memory| {
        Ok::<_, supermachine_vmm_core::machine::MachineError>(
            Written::write(&SystemFiles, draft.path(), memory, &state).unwrap(),
        )
    });
    draft.adopt(written.unwrap()).unwrap();
    let stamp = Stamp::new(EngineId::new("soft"));
    draft
        .publish(Description {
            key: String::new(),
            created_unix_s: 0,
            stamp: stamp.clone(),
            vcpus: 1,
            resources: Vec::new(),
            labels: std::collections::BTreeMap::new(),
        })
        .unwrap();
    let baseline = content(&first);
    drop(first);

    let snapshot = store.open("m", &stamp).unwrap();
    let decoded = supermachine_vmm_core::machine::SavedMachine::decode(snapshot.state()).unwrap();
    assert_eq!(decoded, saved);
    let prepared = PreparedMachine::new(&engine, PrepareOptions::default()).unwrap();
    let (copy, id) = prepared
        .restore(&snapshot, &saved, &RestoreOptions::default())
        .unwrap();
    let mut ids = vec![id];
    assert!(content(&copy) == baseline);
    // Its new generation waits to be noticed; this guest never will.
    let different = |copy: &RunningMachine| copy.save().unwrap().differences(&saved);
    assert_eq!(different(&copy), ["the interrupts"]);
    for round in 0..4 {
        copy.resume();
        std::thread::sleep(Duration::from_millis(60));
        copy.pause().unwrap();
        if round > 1 {
            // What the last reset has copied and was not written again goes
            // back to the host, and nobody in the machine sees that.
            let before = content(&copy);
            let given = copy.give_back().unwrap();
            assert!(given <= if copied { pages + 100 } else { 0 }, "{given}");
            assert!(content(&copy) == before, "{given} pages");
            assert_eq!(copy.give_back().unwrap(), 0);
        }
        assert!(content(&copy) != baseline, "the copy has written nothing");
        let report = copy.reset(&saved).unwrap();
        assert_eq!(report.pages.is_some(), copied, "{report:?}");
        assert!(content(&copy) == baseline, "memory is not what it was");
        assert_eq!(different(&copy), ["the interrupts"]);
        assert!(!ids.contains(&report.generation));
        ids.push(report.generation);
        if round > 1 && copied {
            assert_eq!(Some(copy.give_back().unwrap()), report.pages);
            assert!(content(&copy) == baseline, "not the snapshot's");
        }
    }
    drop(copy);
    std::fs::remove_dir_all(root).unwrap();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_reset_brings_back_every_byte_of_memory_and_all_state() {
    goes_back("reset-few", 16, 2000, true);
    goes_back("reset-many", 64, 6000, false);
}
