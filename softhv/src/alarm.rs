//! Wakes running vCPUs at their timer deadlines, so that none looks at the clock
//! while it executes.
//!
//! One thread per VM sleeps until the earliest deadline of a running vCPU.
//! Setting a later deadline than that is one atomic load. A vCPU asleep in WFI
//! keeps its own time and is left alone.

use crate::counter::{NEVER, counter, duration_of};
use crate::link::{State, VcpuShared, attention};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};

/// What the alarm thread and the vCPUs share.
#[derive(Debug)]
struct Watch {
    /// Counter value the thread will wake at; [`NEVER`] also while it scans,
    /// so that a deadline set meanwhile makes it scan again.
    wakes_at: AtomicU64,
    vcpus: Mutex<Vec<Arc<VcpuShared>>>,
    stop: AtomicBool,
}

impl Watch {
    /// Raises the timers that are due; the earliest deadline of the rest.
    fn scan(&self) -> u64 {
        self.wakes_at.store(NEVER, Ordering::SeqCst);
        let now = counter();
        let mut earliest = NEVER;
        let vcpus = self.vcpus.lock().unwrap_or_else(PoisonError::into_inner);
        for vcpu in vcpus.iter() {
            let deadline = vcpu.deadline.load(Ordering::SeqCst);
            if deadline == NEVER || !matches!(vcpu.state(), State::Running | State::Waiting) {
                continue;
            }
            if deadline <= now {
                // The deadline stays until the vCPU looks at its timers: should
                // it be about to sleep, it finds that its time has passed.
                vcpu.raise(attention::TIMER);
            } else {
                earliest = earliest.min(deadline);
            }
        }
        earliest
    }

    fn run(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let earliest = self.scan();
            self.wakes_at.fetch_min(earliest, Ordering::SeqCst);
            match earliest {
                NEVER => std::thread::park(),
                _ => std::thread::park_timeout(duration_of(earliest.saturating_sub(counter()))),
            }
        }
    }
}

/// The alarm clock of one VM.
#[derive(Debug)]
pub struct Alarm {
    watch: Arc<Watch>,
    thread: Mutex<Option<JoinHandle<()>>>,
    handle: std::sync::OnceLock<Thread>,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self {
            watch: Arc::new(Watch {
                wakes_at: AtomicU64::new(NEVER),
                vcpus: Mutex::default(),
                stop: AtomicBool::new(false),
            }),
            thread: Mutex::new(None),
            handle: std::sync::OnceLock::new(),
        }
    }

    pub(crate) fn add(&self, vcpu: &Arc<VcpuShared>) {
        self.vcpus().push(Arc::clone(vcpu));
    }

    pub(crate) fn remove(&self, vcpu: &Arc<VcpuShared>) {
        self.vcpus().retain(|v| !Arc::ptr_eq(v, vcpu));
    }

    fn vcpus(&self) -> std::sync::MutexGuard<'_, Vec<Arc<VcpuShared>>> {
        self.watch
            .vcpus
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that `vcpu`, whose deadline is already stored, gets
    /// `attention::TIMER` when the counter reaches `deadline`.
    #[inline]
    pub(crate) fn set(&self, vcpu: &VcpuShared, deadline: u64) {
        if deadline < self.watch.wakes_at.load(Ordering::SeqCst) {
            self.wake_earlier(vcpu, deadline);
        }
    }

    #[cold]
    fn wake_earlier(&self, vcpu: &VcpuShared, deadline: u64) {
        // Outside a run nothing is to be woken: a run looks at its timers first.
        if vcpu.state() != State::Running {
            return;
        }
        self.watch.wakes_at.fetch_min(deadline, Ordering::SeqCst);
        match self.handle.get().or_else(|| self.start()) {
            Some(thread) => thread.unpark(),
            // No thread to be had: the vCPU polls the clock until there is one.
            None => vcpu.raise(attention::TIMER),
        }
    }

    fn start(&self) -> Option<&Thread> {
        let mut slot = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            let watch = Arc::clone(&self.watch);
            let started = std::thread::Builder::new()
                .name("softhv-alarm".into())
                .spawn(move || watch.run());
            *slot = started.ok();
        }
        let thread = slot.as_ref()?.thread();
        Some(self.handle.get_or_init(|| thread.clone()))
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let slot = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = slot.take() {
            self.watch.stop.store(true, Ordering::SeqCst);
            thread.thread().unpark();
            // Its result is nothing; a panic in it has already been reported.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn wait_for_timer(vcpu: &VcpuShared) {
        let start = Instant::now();
        while vcpu.take(attention::TIMER) == 0 {
            assert!(start.elapsed() < Duration::from_secs(10), "never woken");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn arm(alarm: &Alarm, vcpu: &VcpuShared, ticks: u64) -> u64 {
        let deadline = counter() + ticks;
        vcpu.deadline.store(deadline, Ordering::SeqCst);
        alarm.set(vcpu, deadline);
        deadline
    }

    #[test]
    fn a_running_vcpu_is_woken_at_its_deadline_and_again_at_the_next() {
        let alarm = Alarm::new();
        let vcpu = Arc::new(VcpuShared::new(0));
        alarm.add(&vcpu);
        vcpu.enter();
        for ticks in [24_000, 1, 48_000] {
            let deadline = arm(&alarm, &vcpu, ticks);
            wait_for_timer(&vcpu);
            assert!(counter() >= deadline);
        }
    }

    #[test]
    fn an_earlier_deadline_overtakes_a_later_one() {
        let alarm = Alarm::new();
        let vcpus = [0, 1].map(|i| Arc::new(VcpuShared::new(i)));
        for vcpu in &vcpus {
            alarm.add(vcpu);
            vcpu.enter();
        }
        arm(&alarm, &vcpus[0], u64::MAX / 2);
        std::thread::sleep(Duration::from_millis(5));
        arm(&alarm, &vcpus[1], 24_000);
        wait_for_timer(&vcpus[1]);
        assert_eq!(vcpus[0].take(attention::TIMER), 0);
    }

    #[test]
    fn a_vcpu_outside_a_run_is_left_alone() {
        let alarm = Alarm::new();
        let vcpu = Arc::new(VcpuShared::new(0));
        alarm.add(&vcpu);
        arm(&alarm, &vcpu, 0);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(vcpu.take(attention::TIMER), 0);
        vcpu.enter();
        arm(&alarm, &vcpu, 0);
        wait_for_timer(&vcpu);
    }
}
