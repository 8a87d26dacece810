//! All orders in which the threads of a machine can meet in its control, as far as
//! the memory model lets them come about: that file, compiled with loom's types.
//!
//! What a machine at rest promises is a [`Memory`], which whoever paused it may
//! write to. Loom fails on a use by a guest that does not come before or after
//! that, on a thread that is never woken (no time passes, so that nothing is tried
//! again), and on a failed assertion.

// Not all of it is used here, and its unit tests are not.
#![allow(dead_code, unused_imports)]

mod sync {
    pub use loom::sync::atomic;
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
}
mod arch {
    pub use supermachine_vmm_core::arch::{Arch, of};
}
mod hypervisor {
    pub use supermachine_vmm_core::hypervisor::{
        Architecture, EngineError, ExitCounters, PowerReply, VcpuState,
    };
}

#[path = "../src/machine"]
mod machine {
    pub mod error {
        pub use supermachine_vmm_core::machine::ExitReason;
    }
    mod control;

    use super::arch;
    use super::hypervisor::{Architecture, ExitCounters, PowerReply};
    use control::{Control, Next, Power, Task};
    use error::ExitReason;
    use loom::cell::UnsafeCell;
    use loom::sync::Notify;
    use loom::thread::{JoinHandle, spawn};
    use std::sync::Arc;
    use std::time::Duration;

    /// Nothing here takes time.
    const LONG: Duration = Duration::from_secs(600);

    /// Guest memory.
    struct Memory(UnsafeCell<u32>);

    // SAFETY: loom checks every access.
    unsafe impl Sync for Memory {}
    // SAFETY: as above.
    unsafe impl Send for Memory {}

    impl Memory {
        /// By a vCPU that runs: others do the same at once.
        fn touch(&self) {
            self.0.with(|at| {
                // SAFETY: loom checks that nobody writes it.
                let _value = unsafe { at.read() };
            });
        }

        /// By who has been promised that no vCPU runs.
        fn replace(&self) {
            // SAFETY: loom checks that nobody else uses it.
            self.0.with_mut(|at| unsafe { at.write(1) });
        }
    }

    /// A machine whose vCPUs run until they are kicked.
    struct Machine {
        control: Arc<Control>,
        kicks: Vec<Arc<Notify>>,
        memory: Arc<Memory>,
    }

    impl Machine {
        fn new(vcpus: u32) -> Self {
            let control = Arc::new(Control::new(arch::of(Architecture::Aarch64)));
            let kicks: Vec<_> = (0..vcpus).map(|_| Arc::new(Notify::new())).collect();
            for kick in &kicks {
                let kick = Arc::clone(kick);
                control.add_cpu(Box::new(move || kick.notify()), ExitCounters::default());
            }
            let memory = Arc::new(Memory(UnsafeCell::new(0)));
            Self {
                control,
                kicks,
                memory,
            }
        }

        /// The loop of `vcpu_thread`, with `guest` for what a vCPU does when it
        /// comes to run.
        fn vcpu(
            &self,
            index: u32,
            guest: impl Fn(&Control) + Send + Sync + 'static,
        ) -> JoinHandle<()> {
            let (control, memory) = (self.control.clone(), self.memory.clone());
            let kick = self.kicks[index as usize].clone();
            spawn(move || {
                loop {
                    match control.next(index) {
                        Next::Leave => break,
                        Next::Start(..) | Next::Run => {}
                        Next::Do(_) => {
                            control.finished(index, Ok(None));
                            continue;
                        }
                    }
                    while !control.wants_attention() {
                        memory.touch();
                        guest(&control);
                        kick.wait();
                    }
                }
                control.gone(index);
            })
        }

        fn end(self, vcpus: impl IntoIterator<Item = JoinHandle<()>>) {
            self.control.end(ExitReason::Stopped);
            assert!(self.control.wait_gone(LONG));
            self.memory.replace();
            for vcpu in vcpus {
                vcpu.join().unwrap();
            }
        }
    }

    fn memory_is_left_alone_from_pause_to_resume() {
        let machine = Machine::new(2);
        machine.control.set_power(&[Power::On, Power::On]);
        let vcpus = [0, 1].map(|index| machine.vcpu(index, |_| {}));
        machine.control.resume();
        assert!(machine.control.pause(LONG));
        machine.memory.replace();
        machine.control.resume();
        machine.end(vcpus);
    }

    fn each_of_two_that_pause_at_once_finds_the_machine_at_rest() {
        let machine = Machine::new(1);
        machine.control.set_power(&[Power::On]);
        let vcpu = machine.vcpu(0, |_| {});
        machine.control.resume();
        let other = machine.control.clone();
        let other = spawn(move || assert!(other.pause(LONG)));
        assert!(machine.control.pause(LONG));
        machine.memory.replace();
        other.join().unwrap();
        machine.end([vcpu]);
    }

    fn all_that_resting_vcpus_were_asked_for_is_done_or_the_machine_has_ended() {
        let machine = Machine::new(2);
        let vcpus = [0, 1].map(|index| machine.vcpu(index, |_| {}));
        let save = |index| vec![(index, Task::Save)];
        assert!(machine.control.perform(save(0), LONG).is_some());
        let other = machine.control.clone();
        let other = spawn(move || other.end(ExitReason::PowerOff));
        match machine.control.perform(save(1), LONG) {
            Some(outcome) => assert_eq!(outcome.unwrap().len(), 1),
            None => assert_eq!(machine.control.wait_ended(None), Some(ExitReason::PowerOff)),
        }
        other.join().unwrap();
        machine.end(vcpus);
    }

    fn a_vcpu_that_another_turned_on_starts_before_or_after_a_pause() {
        let machine = Machine::new(2);
        machine.control.set_power(&[Power::On, Power::Off]);
        let first = machine.vcpu(0, |control| {
            let reply = control.cpu_on(1, 0, 0);
            assert!(matches!(
                reply,
                PowerReply::Done | PowerReply::OnPending | PowerReply::AlreadyOn
            ));
        });
        let started = Arc::new(Notify::new());
        let second = {
            let started = started.clone();
            machine.vcpu(1, move |_| started.notify())
        };
        machine.control.resume();
        assert!(machine.control.pause(LONG));
        machine.memory.replace();
        machine.control.resume();
        started.wait();
        machine.end([first, second]);
    }

    fn who_waits_for_the_end_hears_the_first_reason() {
        let machine = Machine::new(1);
        machine.control.set_power(&[Power::On]);
        let vcpu = machine.vcpu(0, |control| control.end(ExitReason::PowerOff));
        let waiting = machine.control.clone();
        let waiting = spawn(move || waiting.wait_ended(None));
        machine.control.resume();
        assert_eq!(waiting.join().unwrap(), Some(ExitReason::PowerOff));
        machine.end([vcpu]);
    }

    /// A model's name, itself, and how many switches at a bad moment it tries.
    pub type Model = (&'static str, fn(), usize);

    macro_rules! models {
        ($($name:ident: $switches:literal),* $(,)?) => {
            &[$((stringify!($name), $name as fn(), $switches)),*]
        };
    }

    pub const MODELS: &[Model] = models![
        memory_is_left_alone_from_pause_to_resume: 2,
        each_of_two_that_pause_at_once_finds_the_machine_at_rest: 2,
        all_that_resting_vcpus_were_asked_for_is_done_or_the_machine_has_ended: 1,
        a_vcpu_that_another_turned_on_starts_before_or_after_a_pause: 1,
        who_waits_for_the_end_hears_the_first_reason: 3,
    ];
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    for (name, model, switches) in machine::MODELS {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let begun = std::time::Instant::now();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(*switches);
        builder.check(model);
        println!("model {name} ... ok, {:?}", begun.elapsed());
    }
}
