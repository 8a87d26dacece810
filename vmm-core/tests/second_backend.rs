//! An engine of its own kind, which plays scripts: what the machine asks of an
//! engine is all in `hypervisor`, and a new one changes nothing beside itself.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use supermachine_vmm_core::MachineSpec;
use supermachine_vmm_core::arch::aarch64::layout;
use supermachine_vmm_core::hypervisor::{
    Access, Architecture, Capabilities, CpuIdentity, DirtyTracking, DynVm, EngineError, EngineId,
    Exit, ExitCounters, GicKind, Hypervisor, Kick, PowerControl, PowerReply, Registers, Vcpu,
    VcpuState, Vm, VmSpec,
};
use supermachine_vmm_core::machine::{
    ExitReason, Machine, MachineError, PrepareOptions, PreparedMachine,
};
use supermachine_vmm_core::memory::{MemoryLease, PageSet};

const LONG: Duration = Duration::from_secs(20);

/// One thing a vCPU does.
#[derive(Clone, Debug)]
enum Step {
    Exit(Exit),
    Fail,
}

/// What this engine says when it fails.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("script {0} is torn")]
struct Torn(u32);

#[derive(Default)]
struct Stage {
    scripts: BTreeMap<u32, VecDeque<Step>>,
    /// Entry and argument of each start, by vCPU.
    starts: Vec<(u32, u64, u64)>,
    /// Values that exits were answered with, by vCPU.
    answers: Vec<(u32, u64)>,
    maps: BTreeMap<u64, usize>,
    kicked: BTreeMap<u32, bool>,
    interrupts: Vec<u8>,
    /// Private interrupts that were made pending, by vCPU.
    private: Vec<(u32, u32)>,
}

/// The engine.
#[derive(Clone, Default)]
struct Scripted {
    stage: Arc<(Mutex<Stage>, Condvar)>,
    page_bytes: usize,
    /// It turns vCPUs on and off itself.
    powers: bool,
}

impl Scripted {
    fn new(scripts: &[(u32, &[Exit])]) -> Self {
        let engine = Self {
            page_bytes: 4096,
            ..Self::default()
        };
        for (index, exits) in scripts {
            let steps = exits.iter().copied().map(Step::Exit).collect();
            engine.lock().scripts.insert(*index, steps);
        }
        engine
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(
        &self,
        name: &str,
    ) -> Result<supermachine_vmm_core::machine::RunningMachine, MachineError> {
        let kernel = Kernel::new(name);
        let spec = MachineSpec {
            memory_bytes: 16 << 20,
            vcpus: 2,
            ..MachineSpec::new(&*kernel.0)
        };
        Machine::start(self, &spec, None)
    }
}

impl Hypervisor for Scripted {
    type Vm = ScriptedVm;

    fn name(&self) -> &'static str {
        "scripted"
    }

    fn id(&self) -> EngineId {
        EngineId::new("scripted")
    }

    fn identity(&self) -> Result<CpuIdentity, EngineError> {
        Ok(CpuIdentity::default())
    }

    fn after_fork(&self) -> Option<fn()> {
        None
    }

    fn capabilities(&self) -> Result<Capabilities, EngineError> {
        Ok(Capabilities {
            architecture: Architecture::Aarch64,
            max_ipa_bits: 40,
            default_ipa_bits: 40,
            page_bytes: self.page_bytes,
            max_vcpus: 4,
            dirty_tracking: DirtyTracking::Log,
            gic: GicKind::V3 {
                first_spi: 32,
                spi_count: 256,
                distributor_bytes: 0x1_0000,
                redistributor_bytes: 0x2_0000,
            },
            power: match self.powers {
                true => PowerControl::Engine,
                false => PowerControl::Machine,
            },
        })
    }

    fn create_vm(&self, _spec: &VmSpec) -> Result<ScriptedVm, EngineError> {
        Ok(ScriptedVm(self.clone(), Mutex::default()))
    }
}

struct ScriptedVm(Scripted, Mutex<BTreeMap<u64, MemoryLease>>);

impl DynVm for ScriptedVm {
    fn map(&self, memory: MemoryLease, _access: Access) -> Result<(), EngineError> {
        self.0.lock().maps.insert(memory.ipa(), memory.bytes());
        self.1.lock().unwrap().insert(memory.ipa(), memory);
        Ok(())
    }

    fn protect(&self, _ipa: u64, _bytes: usize, _access: Access) -> Result<(), EngineError> {
        Ok(())
    }

    fn unmap(&self, ipa: u64) -> Result<(), EngineError> {
        let lease = self.1.lock().unwrap().remove(&ipa);
        lease.map(drop).ok_or(EngineError::NotMapped { ipa })
    }

    fn set_irq(&self, intid: u32, _level: bool) -> Result<(), EngineError> {
        self.0.lock().interrupts = vec![intid.to_le_bytes()[0]];
        Ok(())
    }

    fn save_interrupts(&self) -> Result<Vec<u8>, EngineError> {
        Ok(self.0.lock().interrupts.clone())
    }

    fn restore_interrupts(&self, state: &[u8]) -> Result<(), EngineError> {
        self.0.lock().interrupts = state.to_vec();
        Ok(())
    }

    fn track_writes(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn take_written(&self, _into: &mut PageSet) -> Result<(), EngineError> {
        Ok(())
    }

    fn content_replaced(&self, _pages: &PageSet) -> Result<(), EngineError> {
        Ok(())
    }

    fn counter(&self) -> u64 {
        0
    }

    fn counter_hz(&self) -> u64 {
        1_000_000
    }
}

impl Vm for ScriptedVm {
    type Vcpu = ScriptedVcpu;

    fn create_vcpu(&self, index: u32) -> Result<ScriptedVcpu, EngineError> {
        Ok(ScriptedVcpu {
            engine: self.0.clone(),
            index,
            expects: false,
            state: VcpuState {
                counter: 0,
                registers: Registers::Aarch64(Box::default()),
            },
            counters: ExitCounters::default(),
        })
    }
}

struct ScriptedVcpu {
    engine: Scripted,
    index: u32,
    expects: bool,
    state: VcpuState,
    counters: ExitCounters,
}

#[derive(Clone)]
struct ScriptedKick(Scripted, u32);

impl Kick for ScriptedKick {
    fn kick(&self) {
        self.0.lock().kicked.insert(self.1, true);
        self.0.stage.1.notify_all();
    }
}

impl Vcpu for ScriptedVcpu {
    type Kick = ScriptedKick;

    fn kick(&self) -> ScriptedKick {
        ScriptedKick(self.engine.clone(), self.index)
    }

    fn reset(&mut self, entry: u64, argument: u64) -> Result<(), EngineError> {
        let Registers::Aarch64(registers) = &mut self.state.registers;
        registers.pc = entry;
        self.engine
            .lock()
            .starts
            .push((self.index, entry, argument));
        Ok(())
    }

    fn run(&mut self) -> Result<Exit, EngineError> {
        let mut stage = self.engine.lock();
        loop {
            if stage.kicked.remove(&self.index).is_some() {
                return Ok(Exit::Kicked);
            }
            match stage.scripts.entry(self.index).or_default().pop_front() {
                Some(Step::Exit(exit)) => {
                    self.expects = exit.expects_value();
                    return Ok(exit);
                }
                Some(Step::Fail) => return Err(EngineError::refused(Torn(self.index), true)),
                None => {}
            }
            let changed = &self.engine.stage.1;
            stage = changed.wait(stage).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn complete(&mut self, value: u64) -> Result<(), EngineError> {
        if !std::mem::take(&mut self.expects) {
            return Err(EngineError::OutOfTurn);
        }
        self.engine.lock().answers.push((self.index, value));
        Ok(())
    }

    fn save(&mut self) -> Result<VcpuState, EngineError> {
        Ok(self.state.clone())
    }

    fn load(&mut self, state: &VcpuState, _counter: u64) -> Result<(), EngineError> {
        self.state = state.clone();
        Ok(())
    }

    fn set_counter(&mut self, _guest: u64, _counter: u64) -> Result<(), EngineError> {
        Ok(())
    }

    fn interrupt(&mut self, intid: u32) -> Result<(), EngineError> {
        self.engine.lock().private.push((self.index, intid));
        Ok(())
    }

    fn exits(&self) -> &ExitCounters {
        &self.counters
    }
}

/// A kernel's header, removed at the end.
struct Kernel(PathBuf);

impl Kernel {
    fn new(name: &str) -> Self {
        let mut image = vec![0; 4096];
        image[16..24].copy_from_slice(&0x1_0000_u64.to_le_bytes());
        image[56..60].copy_from_slice(b"ARM\x64");
        let path = std::env::temp_dir().join(format!("vmm-second-{}-{name}", std::process::id()));
        std::fs::write(&path, image).unwrap();
        Self(path)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn another_engine_runs_a_whole_machine() {
    let read = Exit::MmioRead {
        address: layout::virtio_address(0),
        bytes: 4,
    };
    let print = |value| Exit::MmioWrite {
        address: layout::UART,
        bytes: 1,
        value,
    };
    let on = Exit::CpuOn {
        target: 1,
        entry: 0x8000_8000,
        argument: 7,
    };
    let engine = Scripted::new(&[
        (0, &[read, print(0x68), print(0x69), on, Exit::Shutdown]),
        (1, &[Exit::CpuOff]),
    ]);
    let machine = engine.start("whole").unwrap();
    assert_eq!(machine.engine(), "scripted");
    assert_eq!(machine.wait_timeout(LONG), Some(ExitReason::PowerOff));
    assert_eq!(machine.console().text(), "hi");
    machine.stop().unwrap();
    let stage = engine.lock();
    let done = PowerReply::Done.value();
    assert_eq!(stage.answers, [(0, 0x7472_6976), (0, done)]);
    assert_eq!(stage.starts[0].0, 0);
    assert!(stage.maps.contains_key(&layout::RAM));
}

#[test]
fn machine_of_another_engine_pauses_and_is_saved() {
    let engine = Scripted::new(&[(0, &[Exit::VtimerFired])]);
    let machine = engine.start("saved").unwrap();
    // Else the exit might come between the two saves.
    let begun = Instant::now();
    while !engine.lock().scripts[&0].is_empty() {
        assert!(begun.elapsed() < LONG, "the vCPU does not run");
        std::thread::yield_now();
    }
    machine.pause().unwrap();
    let saved = machine.save().unwrap();
    assert_eq!(saved.vcpus(), 2);
    machine.resume();
    machine.pause().unwrap();
    assert!(saved.differences(&machine.save().unwrap()).is_empty());
    machine.resume();
    machine.stop().unwrap();
}

#[test]
fn each_vcpu_that_is_on_is_interrupted_where_a_machine_goes_on_as_another() {
    let on = Exit::CpuOn {
        target: 1,
        entry: 0x8000_8000,
        argument: 7,
    };
    let both: &[(u32, &[Exit])] = &[(0, &[Exit::VtimerFired, on]), (1, &[Exit::VtimerFired])];
    for (scripts, vcpus) in [(both, 2), (&[(0, &[Exit::VtimerFired])], 1)] {
        let engine = Scripted::new(scripts);
        let machine = engine.start(&format!("another-{vcpus}")).unwrap();
        let begun = Instant::now();
        while !engine.lock().scripts.values().all(VecDeque::is_empty) {
            assert!(begun.elapsed() < LONG, "the vCPUs do not run");
            std::thread::yield_now();
        }
        machine.pause().unwrap();
        assert!(!machine.holds_programs(), "no kernel has said so");
        let one = machine.renew_generation().unwrap();
        let mut interrupted = std::mem::take(&mut engine.lock().private);
        interrupted.sort_unstable();
        let on = [0, 1].map(|index| (index, layout::HOLD_INTID));
        assert_eq!(interrupted, on[..vcpus]);
        machine.save().unwrap();
        assert_eq!(engine.lock().private, [], "the machine itself goes on");
        assert_ne!(machine.renew_generation().unwrap(), one);
        machine.stop().unwrap();
    }
}

#[test]
fn engine_that_turns_vcpus_on_itself_has_all_of_them_run() {
    let read = Exit::MmioRead {
        address: layout::virtio_address(0),
        bytes: 4,
    };
    let engine = Scripted {
        powers: true,
        ..Scripted::new(&[(1, &[read, Exit::Shutdown])])
    };
    let machine = engine.start("powers").unwrap();
    assert_eq!(machine.wait_timeout(LONG), Some(ExitReason::PowerOff));
    let stage = engine.lock();
    // The guest turned vCPU 1 on without a word to the machine, which did not
    // touch its registers.
    assert_eq!(stage.answers, [(1, 0x7472_6976)]);
    assert!(stage.starts.iter().all(|(index, ..)| *index == 0));
}

#[test]
fn its_errors_keep_their_kind() {
    let engine = Scripted::new(&[]);
    engine.lock().scripts.insert(0, [Step::Fail].into());
    let machine = engine.start("torn").unwrap();
    let Some(ExitReason::EngineFailed(error)) = machine.wait_timeout(LONG) else {
        panic!("the engine failed");
    };
    assert!(error.is_permanent());
    let EngineError::Refused(refusal) = &error else {
        panic!("{error}");
    };
    assert_eq!(refusal.inner().downcast_ref(), Some(&Torn(0)));
    assert_eq!(error.to_string(), "script 0 is torn");
    let forked = machine.fork(1, |_| Vec::new(), |_, _| 0);
    assert!(
        matches!(forked, Err(MachineError::Unsupported { .. })),
        "{forked:?}"
    );
}

#[test]
fn engine_with_larger_pages_than_the_layout_has_is_refused() {
    for (page_bytes, fits) in [
        (4096, true),
        (16 << 10, true),
        (64 << 10, false),
        (0, false),
    ] {
        let engine = Scripted {
            page_bytes,
            ..Scripted::new(&[])
        };
        let prepared = PreparedMachine::new(&engine, PrepareOptions::default());
        assert_eq!(prepared.is_ok(), fits, "{page_bytes}");
    }
}
