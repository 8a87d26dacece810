//! Worker threads that take chains off the queues.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use virtio_queue::{Queue, QueueState, QueueT};

use super::disk::Disk;
use super::feature;
use super::request::{BUFFER_BYTES, Executor, Header};
use super::sync::{Builder, Condvar, JoinHandle, Mutex, MutexGuard};
use crate::DeviceMemory;
use crate::virtio::chain::{Chain, QueueError, add_used, wants_interrupt};
use crate::virtio::{ActivateError, Activation};

/// Most descriptors in one request; more than `SEG_MAX` asks for, since
/// drivers may split header and status as they like.
const MAX_SEGMENTS: usize = 512;
/// Bytes a notification may read from the page cache before it leaves the
/// rest to the threads, so that the vCPU is back soon.
const INLINE_BYTES: usize = 4 * BUFFER_BYTES;
/// Requests it may serve: those without data cost time, too.
const INLINE_REQUESTS: usize = 256;

/// The pool of one device.
pub(super) struct Workers<M: DeviceMemory> {
    shared: Arc<Shared<M>>,
    max: usize,
}

struct Shared<M> {
    disk: Arc<Disk>,
    state: Mutex<State<M>>,
    /// A queue may have something to do, or the workers are to stop.
    work: Condvar,
    /// Some worker has nothing to do any more.
    quiet: Condvar,
}

struct State<M> {
    active: Option<Activation<M>>,
    threads: Vec<JoinHandle<()>>,
    /// Threads that wait for work.
    waiting: usize,
    /// Requests taken off a queue and not yet completed.
    busy: usize,
    /// One that a notification took, but could not serve without waiting.
    deferred: Option<Job>,
    /// Room for reads served by notifications.
    buffer: Vec<u8>,
    /// Queue to look at first, for fairness among them.
    next_queue: usize,
    /// Nothing more is taken off the queues.
    paused: bool,
    /// The driver is to be told that the disk has another capacity than it saw.
    news: bool,
    stopping: bool,
}

/// A request taken off a queue.
struct Job {
    queue: usize,
    chain: Chain,
    /// Once it has been read.
    header: Option<Header>,
}

impl<M> Default for State<M> {
    fn default() -> Self {
        Self {
            active: None,
            threads: Vec::new(),
            waiting: 0,
            busy: 0,
            deferred: None,
            buffer: Vec::new(),
            next_queue: 0,
            paused: false,
            news: false,
            stopping: false,
        }
    }
}

impl<M: DeviceMemory> State<M> {
    /// The next request, and whether there may be one more.
    fn take(&mut self) -> Option<(Job, bool)> {
        if let Some(job) = self.deferred.take() {
            return Some((job, true));
        }
        if self.paused {
            return None;
        }
        let active = self.active.as_mut()?;
        let count = active.queues.len();
        for step in 0..count {
            let index = (self.next_queue + step) % count;
            match take_from(&mut active.queues[index], &*active.ram) {
                Ok(None) => {}
                Ok(Some((chain, more))) => {
                    self.next_queue = (index + 1) % count;
                    self.busy += 1;
                    let job = Job {
                        queue: index,
                        chain,
                        header: None,
                    };
                    return Some((job, more || count > 1));
                }
                Err(mistake) => {
                    active.queues[index].set_ready(false);
                    active.irq.needs_reset(&mistake);
                }
            }
        }
        None
    }

    /// Whether a driver left something in a queue.
    fn has_work(&self) -> bool {
        let queued = !self.paused
            && self.active.as_ref().is_some_and(|active| {
                active.queues.iter().any(|queue| {
                    queue.ready()
                        && queue
                            .avail_idx(&*active.ram, Ordering::Acquire)
                            .is_ok_and(|index| index.0 != queue.next_avail())
                })
            });
        queued || self.deferred.is_some()
    }

    /// Serves requests that take no waiting; true if there may be others.
    fn serve_cached(&mut self, disk: &Disk) -> bool {
        let Some(ram) = self.active.as_ref().map(|active| active.ram.clone()) else {
            return false;
        };
        let executor = Executor::new(disk, &*ram, false);
        let mut served = 0;
        for _ in 0..INLINE_REQUESTS {
            if served >= INLINE_BYTES || self.deferred.is_some() {
                break;
            }
            let Some((mut job, _)) = self.take() else {
                return false;
            };
            self.buffer.resize(BUFFER_BYTES, 0);
            job.header = executor.header(&job.chain).ok();
            let done = job
                .header
                .and_then(|header| executor.run_cached(&job.chain, header, &mut self.buffer));
            match done {
                Some(len) => {
                    self.complete(&job, Ok(len));
                    served += len;
                }
                None => self.deferred = Some(job),
            }
        }
        true
    }

    /// Tells the owner what the host said.
    fn report(&self, failed: Option<std::io::Error>) {
        if let (Some(error), Some(active)) = (failed, &self.active) {
            active.irq.host_failed(&error);
        }
    }

    fn complete(&mut self, job: &Job, outcome: Result<usize, QueueError>) {
        self.busy -= 1;
        let Some(active) = self.active.as_mut() else {
            return;
        };
        let queue = &mut active.queues[job.queue];
        if !queue.ready() {
            return;
        }
        let done = outcome.and_then(|len| {
            add_used(queue, &*active.ram, job.chain.head, len)?;
            wants_interrupt(queue, &*active.ram)
        });
        match done {
            Ok(true) => {
                let index = u16::try_from(job.queue).unwrap_or(u16::MAX);
                active.irq.used_buffers(index);
            }
            Ok(false) => {}
            Err(mistake) => {
                queue.set_ready(false);
                active.irq.needs_reset(&mistake);
            }
        }
    }
}

/// Takes a chain, leaving notifications on: the driver must be able to wake
/// the next worker while this one is busy.
fn take_from<M: DeviceMemory>(
    queue: &mut Queue,
    ram: &M,
) -> Result<Option<(Chain, bool)>, QueueError> {
    if !queue.ready() {
        return Ok(None);
    }
    let mut chain = Chain::pop(queue, ram, MAX_SEGMENTS)?;
    let mut more = queue.enable_notification(ram).map_err(QueueError::Ring)?;
    if chain.is_none() && more {
        // Made available just before notifications were on again.
        chain = Chain::pop(queue, ram, MAX_SEGMENTS)?;
        more = true;
    }
    Ok(chain.map(|chain| (chain, more)))
}

impl<M: DeviceMemory> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut state = self.lock();
        while !state.stopping {
            let Some((job, more)) = state.take() else {
                state.waiting += 1;
                self.quiet.notify_all();
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.waiting -= 1;
                continue;
            };
            if more {
                self.work.notify_one();
            }
            let Some(active) = &state.active else { return };
            let ram = active.ram.clone();
            let write_through = active.features & feature::FLUSH == 0;
            drop(state);
            let executor = Executor::new(&self.disk, &*ram, write_through);
            let outcome = job
                .header
                .map_or_else(|| executor.header(&job.chain), Ok)
                .and_then(|header| executor.run(&job.chain, header, &mut buffer));
            let failed = executor.failed.take();
            state = self.lock();
            state.report(failed);
            state.complete(&job, outcome);
        }
    }
}

impl<M: DeviceMemory> Workers<M> {
    pub(super) fn new(disk: Arc<Disk>, max: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                disk,
                state: Mutex::default(),
                work: Condvar::new(),
                quiet: Condvar::new(),
            }),
            max,
        }
    }

    pub(super) fn start(&self, activation: Activation<M>) -> Result<(), ActivateError> {
        let mut state = self.shared.lock();
        state.active = Some(activation);
        state.next_queue = 0;
        // One thread from the start, so that a host out of threads is known
        // now; it also serves what a restored queue still holds. Threads of
        // an earlier start are still there.
        let outcome = if state.threads.is_empty() {
            self.spawn(&mut state)
        } else {
            self.shared.work.notify_one();
            Ok(())
        };
        if outcome.is_err() {
            state.active = None;
        }
        outcome
    }

    fn spawn(&self, state: &mut State<M>) -> Result<(), ActivateError> {
        let shared = self.shared.clone();
        let thread = Builder::new()
            .name("vm-blk".into())
            .spawn(move || shared.run())
            .map_err(ActivateError::Thread)?;
        state.threads.push(thread);
        Ok(())
    }

    /// Wakes a thread to look at the queues.
    pub(super) fn wake(&self) {
        let mut state = self.shared.lock();
        if state.active.is_none() || state.paused || !state.serve_cached(&self.shared.disk) {
            return;
        }
        if state.waiting > 0 {
            self.shared.work.notify_one();
        } else if state.threads.len() < self.max {
            // Without one more thread the busy ones will get to it.
            let _ = self.spawn(&mut state);
        }
    }

    /// Takes nothing more off the queues, and waits for what is in flight.
    pub(super) fn pause(&self) {
        let mut state = self.shared.lock();
        state.paused = true;
        drop(self.wait_quiet(state));
    }

    pub(super) fn resume(&self) {
        let mut state = self.shared.lock();
        state.paused = false;
        if std::mem::take(&mut state.news)
            && let Some(active) = &state.active
        {
            active.irq.config_changed();
        }
        if state.has_work() {
            self.shared.work.notify_one();
        }
    }

    /// Whether the driver is to be told, with the end of a pause, that the
    /// configuration is another than it was.
    pub(super) fn set_news(&self, news: bool) {
        self.shared.lock().news = news;
    }

    /// Tells the driver that the configuration is another than it was. A device that is
    /// paused must not be told of that.
    pub(super) fn tell_news(&self) {
        if let Some(active) = &self.shared.lock().active {
            active.irq.config_changed();
        }
    }

    pub(super) fn host_failed(&self, error: &std::io::Error) {
        if let Some(active) = &self.shared.lock().active {
            active.irq.host_failed(error);
        }
    }

    pub(super) fn has_news(&self) -> bool {
        self.shared.lock().news
    }

    /// Waits until nothing is in flight and the queues are empty, those of
    /// paused ones excepted, then tells where the rings stand.
    pub(super) fn drain(&self) -> Vec<QueueState> {
        let state = self.wait_quiet(self.shared.lock());
        let queues = state.active.iter().flat_map(|active| &active.queues);
        queues.map(Queue::state).collect()
    }

    fn wait_quiet<'a>(&self, mut state: MutexGuard<'a, State<M>>) -> MutexGuard<'a, State<M>> {
        loop {
            let more = state.has_work();
            if !more && state.busy == 0 {
                return state;
            }
            if more {
                self.shared.work.notify_one();
            }
            state = self
                .shared
                .quiet
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives up the queues after the requests in flight. The threads stay for
    /// the next start: a machine that is reset thousands of times a second
    /// would spend most of that on making them.
    pub(super) fn stop(&self) -> Vec<Queue> {
        let mut state = self.shared.lock();
        if state.deferred.take().is_some() {
            state.busy -= 1;
        }
        let paused = std::mem::replace(&mut state.paused, true);
        let mut state = self.wait_quiet(state);
        state.paused = paused;
        state.active.take().map_or(Vec::new(), |a| a.queues)
    }
}

impl<M: DeviceMemory> Drop for Workers<M> {
    fn drop(&mut self) {
        drop(self.stop());
        let threads = {
            let mut state = self.shared.lock();
            state.stopping = true;
            std::mem::take(&mut state.threads)
        };
        self.shared.work.notify_all();
        for thread in threads {
            // A worker has no way to panic that could be reported here.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::guest_ram;
    use crate::virtio::Interrupt;

    struct NoIrq;

    impl Interrupt for NoIrq {
        fn used_buffers(&self, _: u16) {}
        fn config_changed(&self) {}
        fn work_left(&self, _: u16) {}
        fn needs_reset(&self, _: &QueueError) {}
    }

    #[test]
    fn threads_stay_from_start_to_start() {
        let file = tempfile::tempfile().unwrap();
        let id = [0; super::super::ID_BYTES];
        let disk = Arc::new(Disk::new(
            super::super::disk::Content::File(file),
            0,
            true,
            id,
        ));
        let workers = Workers::new(disk, 4);
        let mut threads = Vec::new();
        for _ in 0..100 {
            let activation = Activation {
                ram: guest_ram(4096),
                queues: vec![Queue::new(16).unwrap()],
                irq: Arc::new(NoIrq),
                features: 0,
            };
            workers.start(activation).unwrap();
            assert_eq!(workers.stop().len(), 1);
            let state = workers.shared.lock();
            threads.extend(state.threads.iter().map(|thread| thread.thread().id()));
            threads.dedup();
        }
        assert_eq!(threads.len(), 1);
    }
}
