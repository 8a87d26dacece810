//! Whole machines on an engine that plays scripts: every exit a real engine
//! may produce, including the odd ones, and every way to end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hvf::sys::{Api, ExitException, ExitReason as Reason, MemoryFlags, Reg, Return, VcpuExit};
use hvf::testing::{Step, engine, with_engine};
use supermachine_vmm_core::arch::aarch64::layout;
use supermachine_vmm_core::backend::table::TableEngine;
use supermachine_vmm_core::hypervisor::{ExitCount, GuestFault};
use supermachine_vmm_core::machine::{ExitReason, Machine, MachineError, RunningMachine};
use supermachine_vmm_core::{HostFile, MachineSpec, Volume};

const LONG: Duration = Duration::from_secs(20);
const ISV: u64 = 1 << 24;
const WRITE: u64 = 1 << 6;
const WORD: u64 = 2 << 22;

const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
const CPU_OFF: u64 = 0x8400_0002;
const CPU_ON: u64 = 0xc400_0003;
const AFFINITY_INFO: u64 = 0xc400_0004;

/// A directory with a kernel in it, removed at the end.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("vmm-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut kernel = vec![0; 4096];
        kernel[16..24].copy_from_slice(&0x1_0000_u64.to_le_bytes());
        kernel[56..60].copy_from_slice(b"ARM\x64");
        std::fs::write(dir.join("Image"), kernel).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn machine(&self) -> MachineSpec {
        MachineSpec {
            memory_bytes: 16 << 20,
            ..MachineSpec::new(self.path("Image"))
        }
    }

    fn machine_of(&self, vcpus: u32) -> MachineSpec {
        MachineSpec {
            vcpus,
            ..self.machine()
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(api: Api, spec: &MachineSpec) -> Result<RunningMachine, MachineError> {
    Machine::start(&TableEngine::new(api), spec, None)
}

fn exit(reason: Reason, syndrome: u64, address: u64) -> VcpuExit {
    VcpuExit {
        reason,
        exception: ExitException {
            syndrome,
            virtual_address: 0,
            physical_address: address,
        },
    }
}

fn abort(iss: u64, address: u64) -> VcpuExit {
    exit(Reason::EXCEPTION, 0x24 << 26 | iss, address)
}

fn hypercall(x: [u64; 4]) -> Step {
    let registers = x.into_iter().enumerate().collect();
    Step::Exit(exit(Reason::EXCEPTION, 0x16 << 26, 0), registers)
}

fn script(vcpu: u64, steps: impl IntoIterator<Item = Step>) {
    engine(|e| e.scripts.entry(vcpu).or_default().extend(steps));
}

/// Registers vCPU `vcpu` had when it started to run, each time.
fn runs(vcpu: u64) -> Vec<[u64; 35]> {
    engine(|e| {
        e.runs
            .iter()
            .filter(|(id, _)| *id == vcpu)
            .map(|(_, regs)| *regs)
            .collect()
    })
}

const PC: usize = Reg::PC.0 as usize;
const CPSR: usize = Reg::CPSR.0 as usize;

#[test]
fn the_first_vcpu_starts_at_the_kernel_with_the_tree() {
    let files = Files::new("boot");
    with_engine(|api| {
        script(0, [hypercall([SYSTEM_OFF, 0, 0, 0])]);
        let machine = start(api, &files.machine_of(3)).unwrap();
        assert_eq!(machine.wait(), ExitReason::PowerOff);
        machine.stop().unwrap();
        let first = runs(0)[0];
        assert_eq!(first[PC], layout::RAM);
        assert_eq!(first[0], layout::RAM + (14 << 20));
        assert_eq!(first[CPSR], 0x3c5);
        assert!(runs(1).is_empty() && runs(2).is_empty());
    });
}

#[test]
fn memory_is_mapped_whole_and_goes_with_the_machine() {
    let files = Files::new("memory");
    with_engine(|api| {
        let machine = start(api, &files.machine()).unwrap();
        engine(|e| {
            assert_eq!(e.maps[&layout::RAM], (16 << 20, MemoryFlags::RWX));
            assert!(e.gic, "the controller comes before the vCPUs");
        });
        drop(machine);
    });
}

#[test]
fn device_accesses_reach_their_device_and_reads_finish() {
    let files = Files::new("mmio");
    with_engine(|api| {
        let magic = layout::VIRTIO;
        let uart_id = layout::UART + 0xfe0;
        script(
            0,
            [
                // LDR W5 of the magic value, LDRSB X6 of the console's
                // identity 0x11, LDR XZR of it, LDR W7 of nothing.
                abort(ISV | WORD | 5 << 16, magic).into(),
                abort(ISV | 1 << 21 | 6 << 16 | 1 << 15, uart_id).into(),
                abort(ISV | WORD | 31 << 16, uart_id).into(),
                Step::Exit(
                    abort(ISV | WORD | 7 << 16, 0x0fff_0000),
                    vec![(7, u64::MAX)],
                ),
                // STR XZR to the console's data: a character that is not
                // register 31's.
                abort(ISV | 31 << 16 | WRITE, layout::UART).into(),
                hypercall([SYSTEM_OFF, 0, 0, 0]),
            ],
        );
        let machine = start(api, &files.machine()).unwrap();
        assert_eq!(machine.wait(), ExitReason::PowerOff);
        let last = *runs(0).last().unwrap();
        assert_eq!(last[5], 0x7472_6976);
        assert_eq!(last[6], 0x11);
        assert_eq!(last[7], 0);
        assert_eq!(last[PC], layout::RAM + 5 * 4);
        assert_eq!(machine.exit_count(ExitCount::MmioRead), 4);
        assert_eq!(machine.exit_count(ExitCount::MmioWrite), 1);
        assert_eq!(machine.exit_count(ExitCount::Firmware), 1);
        assert_eq!(machine.total_exits(), 6);
    });
}

#[test]
fn the_console_is_kept_and_passed_on() {
    let files = Files::new("console");
    with_engine(|api| {
        let characters = b"hello\n".map(|c| {
            let store = abort(ISV | 3 << 16 | WRITE, layout::UART);
            Step::Exit(store, vec![(3, u64::from(c))])
        });
        script(0, characters);
        script(0, [hypercall([SYSTEM_OFF, 0, 0, 0])]);
        let (reader, writer) = std::io::pipe().unwrap();
        let console = Box::new(writer);
        let machine =
            Machine::start(&TableEngine::new(api), &files.machine(), Some(console)).unwrap();
        assert_eq!(machine.wait(), ExitReason::PowerOff);
        assert_eq!(machine.console().text(), "hello\n");
        machine.stop().unwrap();
        drop(machine);
        assert_eq!(std::io::read_to_string(reader).unwrap(), "hello\n");
    });
}

#[test]
fn the_guest_starts_asks_for_and_stops_vcpus() {
    let files = Files::new("smp");
    with_engine(|api| {
        script(
            0,
            [
                hypercall([AFFINITY_INFO, 1, 0, 0]),
                hypercall([CPU_ON, 1, 0x8000_4000, 42]),
                hypercall([CPU_ON, 9, 0, 0]),
                hypercall([CPU_ON, 0, 0, 0]),
            ],
        );
        script(1, [hypercall([CPU_OFF, 0, 0, 0])]);
        let machine = start(api, &files.machine_of(2)).unwrap();
        // vCPU 0 idles in its fifth run.
        wait_until(|| runs(0).len() == 5 && runs(1).len() == 1);
        let replies: Vec<_> = runs(0).iter().skip(1).map(|regs| regs[0]).collect();
        let (off, done) = (1, 0);
        let (invalid, already_on) = ((-2_i64).cast_unsigned(), (-4_i64).cast_unsigned());
        assert_eq!(replies, [off, done, invalid, already_on]);
        let started = runs(1)[0];
        assert_eq!((started[PC], started[0]), (0x8000_4000, 42));
        assert_eq!(started[CPSR], 0x3c5);
        machine.pause().unwrap();
        machine.resume();
        machine.stop().unwrap();
        assert_eq!(runs(1).len(), 1, "it stays off");
    });
}

#[test]
fn a_running_guest_pauses_goes_on_and_stops() {
    let files = Files::new("pause");
    with_engine(|api| {
        let machine = start(api, &files.machine()).unwrap();
        for _ in 0..20 {
            wait_until(|| !runs(0).is_empty());
            machine.pause().unwrap();
            engine(|e| e.runs.clear());
            std::thread::sleep(Duration::from_millis(2));
            assert!(runs(0).is_empty(), "a paused guest does not run");
            machine.resume();
        }
        assert_eq!(machine.wait_timeout(Duration::from_millis(1)), None);
        machine.stop().unwrap();
        machine.stop().unwrap();
        assert_eq!(machine.wait(), ExitReason::Stopped);
    });
}

#[test]
fn odd_exits_of_some_systems_change_nothing() {
    let files = Files::new("odd");
    with_engine(|api| {
        let system = |iss: u64| exit(Reason::EXCEPTION, 0x18 << 26 | iss, 0);
        script(
            0,
            [
                exit(Reason::CANCELED, 0, 0).into(),
                exit(Reason::VTIMER_ACTIVATED, 0, 0).into(),
                // WFI, then WFE.
                exit(Reason::EXCEPTION, 0x01 << 26, 0).into(),
                exit(Reason::EXCEPTION, 0x01 << 26 | 1, 0).into(),
                // MRS X9, PMCR_EL0 reads as zero; MSR OSLAR_EL1, XZR.
                Step::Exit(
                    system(3 << 20 | 3 << 14 | 9 << 10 | 9 << 5 | 12 << 1 | 1),
                    vec![(9, 77)],
                ),
                system(2 << 20 | 4 << 17 | 1 << 10 | 31 << 5).into(),
                // Cache maintenance on a device.
                abort(1 << 8, layout::UART).into(),
                hypercall([SYSTEM_OFF, 0, 0, 0]),
            ],
        );
        let machine = start(api, &files.machine()).unwrap();
        assert_eq!(machine.wait(), ExitReason::PowerOff);
        let last = *runs(0).last().unwrap();
        assert_eq!(last[9], 0);
        assert_eq!(last[PC], layout::RAM + 5 * 4);
    });
}

#[test]
fn an_unknown_system_register_is_an_undefined_instruction() {
    let files = Files::new("undefined");
    with_engine(|api| {
        // MRS X1, S3_0_C15_C0_0.
        let access = 3 << 20 | 15 << 10 | 1 << 5 | 1;
        script(
            0,
            [
                exit(Reason::EXCEPTION, 0x18 << 26 | access, 0).into(),
                hypercall([SYSTEM_OFF, 0, 0, 0]),
            ],
        );
        let machine = start(api, &files.machine()).unwrap();
        assert_eq!(machine.wait(), ExitReason::PowerOff);
        assert_eq!(runs(0).last().unwrap()[PC], 0x200, "VBAR_EL1 is zero here");
    });
}

#[test]
fn accesses_to_the_interrupt_controller_are_bridged() {
    let files = Files::new("gic");
    with_engine(|api| {
        let distributor = layout::GIC_DISTRIBUTOR;
        let mine = layout::GIC_REDISTRIBUTORS;
        let other = mine + 0x2_0000;
        script(
            0,
            [
                // A priority byte is written into its word (the fake engine
                // reads a register as its offset).
                Step::Exit(
                    abort(ISV | 4 << 16 | WRITE, distributor + 0x421),
                    vec![(4, 0xa0)],
                ),
                // LDR X5 of the other vCPU's TYPER: affinity 1, number 1, last.
                abort(ISV | 3 << 22 | 5 << 16 | 1 << 15, other + 8).into(),
                // LDR W6 of our SGI enables; STR W6 to the other's is dropped.
                abort(ISV | WORD | 6 << 16, mine + 0x1_0100).into(),
                abort(ISV | WORD | 6 << 16 | WRITE, other + 0x1_0100).into(),
                hypercall([SYSTEM_OFF, 0, 0, 0]),
            ],
        );
        let machine = start(api, &files.machine_of(2)).unwrap();
        assert_eq!(machine.wait(), ExitReason::PowerOff);
        let last = *runs(0).last().unwrap();
        assert_eq!(last[5], 1 << 32 | 1 << 8 | 1 << 4);
        assert_eq!(last[6], 0x1_0100);
        engine(|e| assert_eq!(e.gic_writes, [(0x420, 0xa020)]));
    });
}

#[test]
fn guests_that_cannot_go_on_end_the_machine() {
    let cases: [(VcpuExit, GuestFault); 4] = [
        // LDP from a device: no single register.
        (
            abort(0, layout::UART),
            GuestFault::Access {
                address: layout::UART,
                pc: layout::RAM,
                syndrome: 0x24 << 26,
            },
        ),
        // Code in a hole.
        (
            exit(Reason::EXCEPTION, 0x20 << 26, 0x1000),
            GuestFault::Access {
                address: 0x1000,
                pc: layout::RAM,
                syndrome: 0x20 << 26,
            },
        ),
        (
            exit(Reason::EXCEPTION, 0x3c << 26, 0),
            GuestFault::Exception {
                pc: layout::RAM,
                syndrome: 0x3c << 26,
            },
        ),
        (
            exit(Reason(9), 0, 0),
            GuestFault::Unknown {
                pc: layout::RAM,
                reason: 9,
            },
        ),
    ];
    let files = Files::new("fault");
    for (exit, fault) in cases {
        with_engine(|api| {
            script(0, [exit.into()]);
            let machine = start(api, &files.machine_of(2)).unwrap();
            assert_eq!(machine.wait(), ExitReason::GuestFault(fault));
        });
    }
}

#[test]
fn an_engine_that_fails_ends_the_machine_with_its_reason() {
    let files = Files::new("engine");
    with_engine(|api| {
        script(0, [Step::Fail(Return::ILLEGAL_GUEST_STATE)]);
        let machine = start(api, &files.machine()).unwrap();
        match machine.wait() {
            ExitReason::EngineFailed(error) => {
                assert!(error.to_string().contains("HV_ILLEGAL_GUEST_STATE"));
            }
            other => panic!("{other:?}"),
        }
    });
    with_engine(|api| {
        engine(|e| e.fail_create = Some(Return::DENIED));
        let error = start(api, &files.machine()).unwrap_err();
        assert!(matches!(error, MachineError::Engine(_)), "{error}");
    });
}

#[test]
fn a_guest_that_ends_at_boot_is_an_error_with_its_console() {
    let files = Files::new("early");
    let cases = [
        (b"bye\n".as_slice(), SYSTEM_OFF, ExitReason::PowerOff),
        (b"bye\n", SYSTEM_RESET, ExitReason::Reset),
        (
            b"Kernel panic - not syncing: VFS\n",
            SYSTEM_RESET,
            ExitReason::GuestCrash,
        ),
    ];
    for (text, call, expected) in cases {
        with_engine(|api| {
            let store = abort(ISV | 3 << 16 | WRITE, layout::UART);
            script(
                0,
                text.iter()
                    .map(|c| Step::Exit(store, vec![(3, u64::from(*c))])),
            );
            script(0, [hypercall([call, 0, 0, 0])]);
            let machine = start(api, &files.machine()).unwrap();
            let error = machine.wait_ready(LONG, || false).unwrap_err();
            assert_eq!(error.console().unwrap().as_bytes(), text);
            match error {
                MachineError::EndedEarly { reason, .. } => assert_eq!(reason, expected),
                other => panic!("{other}"),
            }
        });
    }
}

#[test]
fn a_guest_that_hangs_at_boot_is_an_error_and_is_stopped() {
    let files = Files::new("hang");
    with_engine(|api| {
        let machine = start(api, &files.machine()).unwrap();
        let error = machine
            .wait_ready(Duration::from_millis(20), || false)
            .unwrap_err();
        assert!(matches!(error, MachineError::NotReady { .. }), "{error}");
        engine(|e| assert!(e.vcpus.is_empty(), "its vCPUs are gone"));
    });
    with_engine(|api| {
        let machine = start(api, &files.machine()).unwrap();
        machine.wait_ready(LONG, || true).unwrap();
    });
}

#[test]
fn bad_descriptions_are_refused_before_there_is_a_machine() {
    let files = Files::new("bad");
    std::fs::write(files.path("script"), "#!/bin/sh\n").unwrap();
    let script = files.path("script");
    let missing = || HostFile::from("/nonexistent");
    type Change<'a> = (&'a str, &'a dyn Fn(&mut MachineSpec));
    let cases: [Change<'_>; 14] = [
        ("it needs 16777216", &|spec| spec.memory_bytes = 0),
        ("it needs 16777216", &|spec| spec.memory_bytes = 1 << 20),
        ("bytes of memory", &|spec| spec.memory_bytes = 40 << 30),
        ("bytes of memory", &|spec| spec.memory_bytes = u64::MAX),
        ("at least one", &|spec| spec.vcpus = 0),
        ("65 vCPUs were asked for", &|spec| spec.vcpus = 65),
        ("is not a kernel", &|spec| spec.kernel = (&*script).into()),
        ("cannot read", &|spec| spec.kernel = missing()),
        ("cannot read", &|spec| spec.initrd = Some(missing())),
        ("command line", &|spec| spec.cmdline = "x".repeat(3000)),
        ("command line", &|spec| spec.cmdline = "a\0b".into()),
        ("as a disk", &|spec| spec.disks.push(missing())),
        ("as a disk", &|spec| spec.disks.push("/".into())),
        ("sockets", &|spec| {
            spec.endpoints.mux = Some("/nonexistent/dir/mux.sock".into());
        }),
    ];
    for (text, change) in cases {
        let mut spec = files.machine();
        change(&mut spec);
        with_engine(|api| {
            let error = start(api, &spec).unwrap_err().to_string();
            assert!(error.contains(text), "{error} does not say {text}");
        });
    }
}

#[test]
fn volumes_are_created_sparse_and_belong_to_one_machine() {
    let files = Files::new("volume");
    let volume = files.path("data.img");
    with_engine(|api| {
        let mut spec = files.machine();
        spec.volumes.push(Volume {
            file: (&*volume).into(),
            new_bytes: 1 << 30,
            overlay: None,
        });
        let machine = start(api, &spec).unwrap();
        assert_eq!(std::fs::metadata(&volume).unwrap().len(), 1 << 30);
        let second = std::fs::File::open(&volume).unwrap();
        assert!(second.try_lock().is_err(), "the volume is in use");
        machine.stop().unwrap();
        assert!(second.try_lock().is_ok());
    });
}

#[test]
fn sockets_lead_to_the_guest_and_are_gone_afterwards() {
    let files = Files::new("sockets");
    let exec = files.path("exec.sock");
    with_engine(|api| {
        let mut spec = files.machine();
        spec.endpoints.mux = Some(files.path("mux.sock").into());
        spec.endpoints.exec = Some(exec.clone().into());
        let machine = start(api, &spec).unwrap();
        assert!(Path::new(&exec).exists());
        machine.stop().unwrap();
        assert!(!Path::new(&exec).exists());
        assert!(!Path::new(&files.path("mux.sock")).exists());
    });
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "it does not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn more_disks_than_interrupts_are_refused() {
    let files = Files::new("disks");
    with_engine(|api| {
        let mut spec = files.machine();
        spec.disks = vec![files.path("Image").into(); 125];
        let error = start(api, &spec).unwrap_err();
        assert!(
            matches!(
                error,
                MachineError::TooManyDevices {
                    devices: 129,
                    max: 128
                }
            ),
            "{error}"
        );
    });
}
