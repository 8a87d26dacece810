//! Threads that take requests off the queues and answer them.

mod said;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, yield_now};
use std::time::{Duration, Instant};

use virtio_queue::{Queue, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::server::{Exchange, Server};
use super::window::FileWindow;
use crate::DeviceMemory;
use crate::virtio::chain::{Chain, QueueError, Segment, Segments, add_used, wants_interrupt};
use crate::virtio::{ActivateError, Activation};
pub(super) use said::Said;

/// Most descriptors of one request: pages of the longest read or write, headers,
/// and room.
const MAX_SEGMENTS: usize = 512;

/// How long a thread that has answered looks for the next request before it sleeps. A
/// program in the guest goes on from one to the next in less, and waking a thread takes
/// as long; a thread that looks leaves the processor to whoever else wants it.
const POLL: Duration = Duration::from_micros(100);

/// The threads of one device.
#[derive(Debug)]
pub(super) struct Threads<M> {
    shared: Arc<Shared<M>>,
    max: usize,
}

#[derive(Debug)]
pub(super) struct Shared<M> {
    server: Arc<Server>,
    state: Mutex<State<M>>,
    /// A queue may have something to do, or the threads are to stop.
    work: Condvar,
    /// Some thread has nothing to do any more.
    quiet: Condvar,
}

struct State<M> {
    active: Option<Activation<M>>,
    /// The queue in which the device tells the guest something, if both have it.
    notifications: Option<usize>,
    threads: Vec<JoinHandle<()>>,
    /// Threads that wait for work.
    waiting: usize,
    /// A thread looks for work without being told.
    polls: bool,
    /// Requests taken off a queue and not yet completed.
    busy: usize,
    /// Nothing more is taken off the queues.
    paused: bool,
    stopping: bool,
}

impl<M> std::fmt::Debug for State<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("threads", &self.threads.len())
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

/// A request as the server sees it.
struct Request<'a, M> {
    chain: &'a Chain,
    ram: &'a M,
    /// Part of it may be there: a program gives what it has mapped to be written, or to
    /// be read to.
    window: Option<&'a dyn FileWindow>,
}

impl<M: DeviceMemory> Request<'_, M> {
    /// Calls `act` with the parts of some bytes of a request: how many there were before
    /// a part, and the window if it is there.
    fn each(
        &self,
        segments: &Segments,
        at: usize,
        bytes: usize,
        mut act: impl FnMut(usize, &Segment, Option<&dyn FileWindow>) -> Result<(), QueueError>,
    ) -> Result<(), QueueError> {
        if at.checked_add(bytes).is_none_or(|end| end > segments.len()) {
            return Err(QueueError::BadRequest);
        }
        let mut done = 0;
        for part in segments.range(at, bytes) {
            let window = self.window;
            let window = window.filter(|window| window.holds(part.addr.0, part.len));
            act(done, &part, window)?;
            done += part.len;
        }
        Ok(())
    }
}

/// A segment in the window where the guest sees nothing, or nothing it may write.
fn nothing_there(part: &Segment) -> QueueError {
    QueueError::NotInRam {
        addr: part.addr.0,
        len: u32::try_from(part.len).unwrap_or(u32::MAX),
    }
}

impl<M: DeviceMemory> Exchange for Request<'_, M> {
    fn incoming(&self) -> usize {
        self.chain.readable.len()
    }

    fn room(&self) -> usize {
        self.chain.writable.len()
    }

    fn read(&mut self, at: usize, buffer: &mut [u8]) -> Result<(), QueueError> {
        let segments = &self.chain.readable;
        self.each(segments, at, buffer.len(), |done, part, window| {
            let buffer = &mut buffer[done..done + part.len];
            match window {
                Some(window) => {
                    let read = window.read(part.addr.0, buffer);
                    read.map_err(|_| nothing_there(part))
                }
                None => {
                    let read = self.ram.read_slice(buffer, part.addr);
                    read.map_err(QueueError::Memory)
                }
            }
        })
    }

    fn write(&mut self, at: usize, bytes: &[u8]) -> Result<(), QueueError> {
        let segments = &self.chain.writable;
        self.each(segments, at, bytes.len(), |done, part, window| {
            let bytes = &bytes[done..done + part.len];
            match window {
                Some(window) => {
                    let written = window.write(part.addr.0, bytes);
                    written.map_err(|_| nothing_there(part))
                }
                None => {
                    let written = self.ram.write_slice(bytes, part.addr);
                    written.map_err(QueueError::Memory)
                }
            }
        })
    }
}

impl<M: DeviceMemory> State<M> {
    /// The next request and its queue.
    fn take(&mut self, window: Option<&dyn FileWindow>) -> Option<(usize, Chain)> {
        if self.paused {
            return None;
        }
        let active = self.active.as_mut()?;
        for (index, queue) in active.queues.iter_mut().enumerate() {
            if self.notifications == Some(index) {
                continue;
            }
            match take_from(queue, &*active.ram, window) {
                Ok(None) => {}
                Ok(Some(chain)) => {
                    self.busy += 1;
                    return Some((index, chain));
                }
                Err(mistake) => {
                    queue.set_ready(false);
                    active.irq.needs_reset(&mistake);
                }
            }
        }
        None
    }

    /// Whether the driver left something in a queue.
    fn has_work(&self) -> bool {
        self.depth() > 0
    }

    /// How many requests the driver left in the queues, as far as it says.
    fn depth(&self) -> u32 {
        let Some(active) = self.active.as_ref().filter(|_| !self.paused) else {
            return 0;
        };
        let queues = active.queues.iter().enumerate();
        let queues = queues.filter(|(index, _)| self.notifications != Some(*index));
        let left = queues.filter(|(_, queue)| queue.ready()).map(|(_, queue)| {
            let index = queue.avail_idx(&*active.ram, Ordering::Acquire);
            index.map_or(0, |index| index.0.wrapping_sub(queue.next_avail()).into())
        });
        left.sum()
    }

    fn complete(&mut self, index: usize, head: u16, outcome: Result<usize, QueueError>) {
        self.busy -= 1;
        let Some(active) = self.active.as_mut() else {
            return;
        };
        let queue = &mut active.queues[index];
        if !queue.ready() {
            return;
        }
        let done = outcome.and_then(|length| {
            add_used(queue, &*active.ram, head, length)?;
            wants_interrupt(queue, &*active.ram)
        });
        match done {
            Ok(true) => {
                let index = u16::try_from(index).unwrap_or(u16::MAX);
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

/// Takes a request, leaving notifications on: the driver must be able to wake
/// the next thread while this one is busy.
fn take_from<M: DeviceMemory>(
    queue: &mut Queue,
    ram: &M,
    window: Option<&dyn FileWindow>,
) -> Result<Option<Chain>, QueueError> {
    if !queue.ready() {
        return Ok(None);
    }
    let beside = |address: GuestAddress, bytes: usize| {
        window.is_some_and(|window| window.holds(address.0, bytes))
    };
    let chain = Chain::pop_beside(queue, ram, MAX_SEGMENTS, beside)?;
    let more = queue.enable_notification(ram).map_err(QueueError::Ring)?;
    if chain.is_none() && more {
        // Made available just before notifications were on again.
        return Chain::pop_beside(queue, ram, MAX_SEGMENTS, beside);
    }
    Ok(chain)
}

impl<M: DeviceMemory> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let window = self.server.window().map(|window| &**window);
        let mut buffer = Vec::new();
        let mut has_answered = false;
        let mut state = self.lock();
        while !state.stopping {
            let Some((index, chain)) = state.take(window) else {
                self.quiet.notify_all();
                if std::mem::take(&mut has_answered) && !state.polls {
                    state = self.poll(state);
                    continue;
                }
                state.waiting += 1;
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.waiting -= 1;
                continue;
            };
            if state.waiting > 0 && state.has_work() {
                self.work.notify_one();
            }
            let Some(active) = &state.active else { return };
            let ram = active.ram.clone();
            drop(state);
            let mut request = Request {
                chain: &chain,
                ram: &*ram,
                window,
            };
            let outcome = self.server.answer(&mut request, &mut buffer);
            state = self.lock();
            state.complete(index, chain.head, outcome);
            has_answered = true;
        }
    }

    /// Looks for a request for a moment, without sleeping.
    fn poll<'a>(&'a self, mut state: MutexGuard<'a, State<M>>) -> MutexGuard<'a, State<M>> {
        let begun = Instant::now();
        state.polls = true;
        while !state.paused && !state.stopping && !state.has_work() && begun.elapsed() < POLL {
            drop(state);
            yield_now();
            state = self.lock();
        }
        state.polls = false;
        state
    }
}

impl<M: DeviceMemory> Threads<M> {
    pub(super) fn new(server: Arc<Server>, max: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                server,
                state: Mutex::new(State {
                    active: None,
                    notifications: None,
                    threads: Vec::new(),
                    waiting: 0,
                    polls: false,
                    busy: 0,
                    paused: false,
                    stopping: false,
                }),
                work: Condvar::new(),
                quiet: Condvar::new(),
            }),
            max,
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared<M>> {
        &self.shared
    }

    /// Starts with these queues, in one of which the device may have to tell something.
    pub(super) fn start(
        &self,
        activation: Activation<M>,
        notifications: Option<usize>,
    ) -> Result<(), ActivateError> {
        let mut state = self.shared.lock();
        state.notifications = notifications;
        state.active = Some(activation);
        // One thread from the start, so that a host out of threads is known
        // now; it also serves what a restored queue still holds. Threads of an
        // earlier start are still there.
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
            .name("vm-fs".into())
            .spawn(move || shared.run())
            .map_err(ActivateError::Thread)?;
        state.threads.push(thread);
        Ok(())
    }

    /// Wakes a thread to look at the queues.
    pub(super) fn wake(&self) {
        let mut state = self.shared.lock();
        if state.active.is_none() || state.paused {
            return;
        }
        // Whoever looks takes one, and has others take the rest.
        let depth = state.depth();
        if depth == 0 || (state.polls && depth == 1) {
            return;
        }
        if state.waiting > 0 {
            self.shared.work.notify_one();
        } else if state.threads.len() < self.max && state.has_work() {
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
        if state.has_work() {
            self.shared.work.notify_one();
        }
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
    /// the next start.
    pub(super) fn stop(&self) -> Vec<Queue> {
        let mut state = self.shared.lock();
        let paused = std::mem::replace(&mut state.paused, true);
        let mut state = self.wait_quiet(state);
        state.paused = paused;
        state.active.take().map_or(Vec::new(), |a| a.queues)
    }
}

impl<M> Drop for Threads<M> {
    fn drop(&mut self) {
        let threads = {
            let shared = &self.shared;
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.stopping = true;
            std::mem::take(&mut state.threads)
        };
        self.shared.work.notify_all();
        for thread in threads {
            // A thread has no way to panic that could be reported here.
            let _ = thread.join();
        }
    }
}
