//! Threads for what blocks: started when needed, gone when idle for a while.

use crate::sync::{Condvar, Mutex, MutexGuard, thread};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long a thread without work stays.
const LINGER: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Threads that wait for a job.
    free: usize,
    closed: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Jobs(Arc<(Mutex<Queue>, Condvar)>);

/// Locks, even after a panic of another thread: every change is whole before
/// anything that could panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Jobs {
    /// Runs `job` on a thread that no other job blocks. Gives the job back
    /// when the system has no thread for it.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<(), std::io::Error> {
        let (queue, wake) = &*self.0;
        let mut queue = lock(queue);
        queue.jobs.push_back(Box::new(job));
        if queue.free >= queue.jobs.len() {
            wake.notify_one();
            return Ok(());
        }
        let jobs = self.clone();
        let started = thread::Builder::new()
            .name("pool-job".to_owned())
            .spawn(move || jobs.work());
        if let Err(error) = started {
            queue.jobs.pop_back();
            return Err(error);
        }
        Ok(())
    }

    /// Lets threads without work go.
    pub(crate) fn close(&self) {
        let (queue, wake) = &*self.0;
        lock(queue).closed = true;
        wake.notify_all();
    }

    fn work(&self) {
        let (mutex, wake) = &*self.0;
        let mut queue = lock(mutex);
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                job();
                queue = lock(mutex);
                continue;
            }
            if queue.closed {
                return;
            }
            queue.free += 1;
            let (guard, timeout) = wake
                .wait_timeout(queue, LINGER)
                .unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            queue.free -= 1;
            if timeout.timed_out() && queue.jobs.is_empty() {
                return;
            }
        }
    }
}
