//! What the vCPUs of a machine are to do, and what they are doing.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error::ExitReason;
use crate::arch::Arch;
use crate::hypervisor::{EngineError, ExitCounters, PowerReply, VcpuState};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// How long a vCPU may take to notice a kick before it gets another.
const KICK_AGAIN: Duration = Duration::from_millis(10);
/// How long a vCPU sleeps whose engine leaves waiting to us. The engine knows
/// when an interrupt comes and we do not, so it may not be long.
const IDLE_SLICE: Duration = Duration::from_millis(1);

/// Interrupts one vCPU.
pub(super) type KickFn = Box<dyn Fn() + Send + Sync>;

pub(super) struct Control {
    arch: &'static dyn Arch,
    state: Mutex<State>,
    changed: Condvar,
    /// Whether vCPUs must look at `state` before they run again.
    attention: AtomicBool,
}

struct State {
    wanted: Wanted,
    cpus: Vec<Cpu>,
    ended: Option<ExitReason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Running,
    Paused,
    Stopped,
}

struct Cpu {
    power: Power,
    place: Place,
    kick: KickFn,
    exits: ExitCounters,
    work: Option<Work>,
}

/// Whether a vCPU is on, as its guest and PSCI see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Power {
    Off,
    /// To be reset to this entry and argument when it next runs.
    Starting(u64, u64),
    On,
}

/// What a resting vCPU is asked to do on its thread, and what came of it.
enum Work {
    Asked(Task),
    Underway,
    Done(Result<Option<Box<VcpuState>>, EngineError>),
}

/// Something only the thread of a vCPU can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Capture its state.
    Save,
    /// Restore a state at this value of the engine's counter, and make this
    /// interrupt of the vCPU's own pending.
    Load(Arc<VcpuState>, u64, u32),
    /// Have the guest's counter, first, agree with the engine's.
    Count(u64, u64),
    /// Make an interrupt of the vCPU's own pending.
    Interrupt(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Holding still, its state whole.
    Resting,
    /// In the guest or on the way there or back.
    Running,
    /// The thread has ended.
    Gone,
}

/// What a vCPU thread does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Run,
    /// Reset to this entry and argument, then run.
    Start(u64, u64),
    /// Do this and tell [`Control::finished`].
    Do(Task),
    Leave,
}

impl Control {
    /// Of a machine whose vCPUs are being created; it is paused.
    pub(super) fn new(arch: &'static dyn Arch) -> Self {
        Self {
            arch,
            state: Mutex::new(State {
                wanted: Wanted::Paused,
                cpus: Vec::new(),
                ended: None,
            }),
            changed: Condvar::new(),
            attention: AtomicBool::new(true),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the next vCPU, turned off.
    pub(super) fn add_cpu(&self, kick: KickFn, exits: ExitCounters) {
        self.lock().cpus.push(Cpu {
            power: Power::Off,
            place: Place::Resting,
            kick,
            exits,
            work: None,
        });
    }

    /// Exit counters of each vCPU.
    pub(super) fn exits(&self) -> Vec<ExitCounters> {
        self.lock()
            .cpus
            .iter()
            .map(|cpu| cpu.exits.clone())
            .collect()
    }

    /// Kicks the vCPUs that run, and gives the counters of each and its exits until
    /// then.
    pub(super) fn kick(&self) -> Vec<(ExitCounters, u64)> {
        let state = self.lock();
        let running = state.cpus.iter().filter(|c| c.place == Place::Running);
        // Before the kick, of which the exit is to be seen.
        let before = running.map(|cpu| (cpu.exits.clone(), cpu.exits.total()));
        let before = before.collect();
        kick_running(&state);
        before
    }

    /// Whether a vCPU must ask [`Control::next`] before it runs again.
    pub(super) fn wants_attention(&self) -> bool {
        self.attention.load(Ordering::Acquire)
    }

    /// What vCPU `index` does next; waits while there is nothing.
    pub(super) fn next(&self, index: u32) -> Next {
        let mut state = self.lock();
        loop {
            let Some(cpu) = state.cpus.get(index as usize) else {
                return Next::Leave;
            };
            let next = match (state.wanted, cpu.power, &cpu.work) {
                (Wanted::Stopped, ..) => return Next::Leave,
                (Wanted::Paused, _, Some(Work::Asked(task))) => Some(Next::Do(task.clone())),
                (Wanted::Paused, ..) | (_, Power::Off, _) => None,
                (_, Power::Starting(entry, argument), _) => Some(Next::Start(entry, argument)),
                (_, Power::On, _) => Some(Next::Run),
            };
            let cpu = &mut state.cpus[index as usize];
            match next {
                // It holds still while it does what was asked.
                Some(Next::Do(task)) => {
                    cpu.work = Some(Work::Underway);
                    return Next::Do(task);
                }
                Some(next) => {
                    cpu.power = Power::On;
                    cpu.place = Place::Running;
                    return next;
                }
                None => {}
            }
            // Only the change is news. Telling it again after each wake-up would
            // wake the other resting vCPUs, and they this one, without end.
            if cpu.place != Place::Resting {
                cpu.place = Place::Resting;
                self.changed.notify_all();
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets a waiting vCPU sleep a little.
    pub(super) fn idle(&self) {
        let state = self.lock();
        if state.wanted == Wanted::Running {
            let _ = self.changed.wait_timeout(state, IDLE_SLICE);
        }
    }

    /// What came of a task of vCPU `index`.
    pub(super) fn finished(&self, index: u32, outcome: Result<Option<VcpuState>, EngineError>) {
        if let Some(cpu) = self.lock().cpus.get_mut(index as usize) {
            cpu.work = Some(Work::Done(outcome.map(|state| state.map(Box::new))));
        }
        self.changed.notify_all();
    }

    /// Gives each resting vCPU of a paused machine a task, by index, and waits
    /// for all; `None` if they take longer than `timeout` or the machine
    /// has ended.
    pub(super) fn perform(
        &self,
        tasks: Vec<(u32, Task)>,
        timeout: Duration,
    ) -> Option<Result<Vec<Option<Box<VcpuState>>>, EngineError>> {
        let indexes: Vec<usize> = tasks.iter().map(|(index, _)| *index as usize).collect();
        let mut state = self.lock();
        if state.wanted != Wanted::Paused {
            return None;
        }
        for (index, task) in tasks {
            state.cpus.get_mut(index as usize)?.work = Some(Work::Asked(task));
        }
        self.changed.notify_all();
        let start = Instant::now();
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            let done = |index: &usize| matches!(state.cpus[*index].work, Some(Work::Done(_)));
            if indexes.iter().all(done) {
                break;
            }
            if left.is_zero() || state.wanted == Wanted::Stopped {
                return None;
            }
            state = self.wait_for(state, left);
        }
        let outcomes = indexes.iter().map(|index| {
            match state.cpus[*index].work.take() {
                Some(Work::Done(outcome)) => outcome,
                // All were done a moment ago, and the lock is held.
                _ => Ok(None),
            }
        });
        Some(outcomes.collect())
    }

    /// Whether each vCPU is on.
    pub(super) fn power(&self) -> Vec<Power> {
        self.lock().cpus.iter().map(|cpu| cpu.power).collect()
    }

    /// Sets whether each vCPU of a paused machine is on; those not named are
    /// off.
    pub(super) fn set_power(&self, power: &[Power]) {
        for (n, cpu) in self.lock().cpus.iter_mut().enumerate() {
            cpu.power = power.get(n).copied().unwrap_or(Power::Off);
        }
    }

    /// Lets all vCPUs of a paused machine run, those that are off included: their
    /// engine knows which of them are on.
    pub(super) fn run_all(&self) {
        for cpu in &mut self.lock().cpus {
            if cpu.power == Power::Off {
                cpu.power = Power::On;
            }
        }
    }

    /// Starts the vCPU that the guest names so.
    pub(super) fn cpu_on(&self, target: u64, entry: u64, argument: u64) -> PowerReply {
        let mut state = self.lock();
        let Some(cpu) = self.find(&mut state.cpus, target) else {
            return PowerReply::InvalidParameters;
        };
        match cpu.power {
            Power::On => PowerReply::AlreadyOn,
            Power::Starting(..) => PowerReply::OnPending,
            Power::Off => {
                cpu.power = Power::Starting(entry, argument);
                self.changed.notify_all();
                PowerReply::Done
            }
        }
    }

    /// Whether the vCPU that the guest names so is on.
    pub(super) fn cpu_status(&self, target: u64) -> PowerReply {
        match self
            .find(&mut self.lock().cpus, target)
            .map(|cpu| cpu.power)
        {
            None => PowerReply::InvalidParameters,
            Some(Power::On) => PowerReply::Done,
            Some(Power::Off) => PowerReply::Off,
            Some(Power::Starting(..)) => PowerReply::Pending,
        }
    }

    /// Turns vCPU `index` off; its thread then asks for [`Control::next`].
    pub(super) fn cpu_off(&self, index: u32) {
        if let Some(cpu) = self.lock().cpus.get_mut(index as usize) {
            cpu.power = Power::Off;
        }
    }

    /// The thread of vCPU `index` has ended.
    pub(super) fn gone(&self, index: u32) {
        if let Some(cpu) = self.lock().cpus.get_mut(index as usize) {
            cpu.place = Place::Gone;
        }
        self.changed.notify_all();
    }

    /// Ends the machine; the first reason counts.
    pub(super) fn end(&self, reason: ExitReason) {
        let mut state = self.lock();
        state.ended.get_or_insert(reason);
        state.wanted = Wanted::Stopped;
        self.call(&state);
    }

    /// Lets the vCPUs run. Without effect once the machine has ended.
    pub(super) fn resume(&self) {
        let mut state = self.lock();
        if state.wanted == Wanted::Paused {
            state.wanted = Wanted::Running;
            self.attention.store(false, Ordering::Release);
            self.changed.notify_all();
        }
    }

    /// Asks the vCPUs to rest and waits until they do; false if they do not
    /// in time.
    pub(super) fn pause(&self, timeout: Duration) -> bool {
        let mut state = self.lock();
        if state.wanted == Wanted::Running {
            state.wanted = Wanted::Paused;
            self.call(&state);
        }
        self.until(state, timeout, |place| place != Place::Running)
    }

    /// Waits until every thread has ended; false if they do not in time.
    pub(super) fn wait_gone(&self, timeout: Duration) -> bool {
        self.until(self.lock(), timeout, |place| place == Place::Gone)
    }

    /// Waits until the machine ends, or not longer than `timeout`.
    pub(super) fn wait_ended(&self, timeout: Option<Duration>) -> Option<ExitReason> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        loop {
            if let Some(reason) = &state.ended {
                return Some(reason.clone());
            }
            state = match deadline {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.wait_for(state, left)
                }
            };
        }
    }

    fn until(
        &self,
        mut state: MutexGuard<'_, State>,
        timeout: Duration,
        reached: impl Fn(Place) -> bool,
    ) -> bool {
        let start = Instant::now();
        loop {
            if state.cpus.iter().all(|cpu| reached(cpu.place)) {
                return true;
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return false;
            }
            // Again and again: a kick may have come while its vCPU was busy
            // with an exit and been taken for an older one. Without a word to
            // those who sleep: two who wait here would wake each other all the
            // time.
            kick_running(&state);
            state = self.wait_for(state, left.min(KICK_AGAIN));
        }
    }

    fn wait_for<'a>(
        &self,
        state: MutexGuard<'a, State>,
        timeout: Duration,
    ) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, timeout)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Makes every vCPU look at the state.
    fn call(&self, state: &State) {
        self.attention.store(true, Ordering::Release);
        self.changed.notify_all();
        kick_running(state);
    }

    /// The vCPU that the guest names so.
    fn find<'a>(&self, cpus: &'a mut [Cpu], id: u64) -> Option<&'a mut Cpu> {
        cpus.get_mut(self.arch.vcpu_index(id)? as usize)
    }
}

fn kick_running(state: &State) {
    for cpu in state.cpus.iter().filter(|c| c.place == Place::Running) {
        (cpu.kick)();
    }
}

#[cfg(test)]
#[path = "control/tests.rs"] // Said for the model, which includes this file by path.
mod tests;
