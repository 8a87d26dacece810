//! Devices that answer requests on the thread that notifies.
//!
//! What such a device does is a [`Server`]: how it answers one request. All
//! else of a virtio device, [`Served`] does for it. One notification serves a
//! bounded number of requests: another vCPU may add requests as fast as they
//! are answered, and the one that notified has to be able to stop. What is left
//! over is served later, see [`Interrupt::work_left`](super::Interrupt::work_left).

use std::sync::{Mutex, MutexGuard, PoisonError};

use virtio_queue::{Queue, QueueState, QueueT};

use super::chain::{Chain, QueueError, add_used, pop_or_listen, wants_interrupt};
use super::{
    ActivateError, Activation, DeviceState, F_RING_EVENT_IDX, F_RING_INDIRECT_DESC, F_VERSION_1,
    RestoreError, SavedState, StateFormat, VirtioDevice,
};
use crate::{DeviceMemory, Ram};

/// Work done for one notification, in the units of [`Answer::work`], before
/// the rest is left for later. A request that was begun is finished.
pub const MAX_WORK: usize = 4096;

/// What the answer to one request came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answer {
    /// Bytes written to the request's buffers.
    pub written: usize,
    /// How much work it was, where requests differ: one unit is a call of the
    /// operating system, or as long as one takes.
    pub work: usize,
}

/// How a device answers its requests. [`Served`] makes a virtio device of it.
pub trait Server: Send {
    /// Device type (virtio 1.2 §5).
    const DEVICE_ID: u32;
    /// The largest size of each queue; each a power of two.
    const QUEUE_SIZES: &'static [u16];
    /// How many queues, from the first, a driver must set up.
    const NEEDED_QUEUES: u16;
    /// Most descriptors in one request.
    const MAX_SEGMENTS: usize;
    /// Features on offer beside those of the rings.
    const FEATURES: u64 = 0;
    /// What it saves.
    type State: DeviceState;

    /// Reads the configuration space; bytes past its end read as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes the configuration space; most devices have nothing writable.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// Answers a request. After an error its queue is left alone until the
    /// device is reset.
    fn answer<M: DeviceMemory>(
        &mut self,
        queue: u16,
        request: &Chain,
        ram: &M,
    ) -> Result<Answer, QueueError>;

    /// The driver reset the device, or another takes over.
    fn reset(&mut self) {}

    /// The state to save.
    fn state(&self) -> Self::State;

    /// Takes over a saved state, which is not trusted.
    fn restore(&mut self, state: &Self::State) -> Result<(), RestoreError>;
}

/// A virtio device whose requests a [`Server`] answers.
pub struct Served<S, M = Ram> {
    inner: Mutex<Inner<S, M>>,
}

struct Inner<S, M> {
    server: S,
    /// From the device's start to its reset.
    active: Option<Activation<M>>,
    paused: bool,
}

/// What became of one round over a queue.
struct Round {
    /// The driver wants to hear of the answers.
    interrupt: bool,
    /// There are requests left.
    more: bool,
}

impl<S: Server, M: DeviceMemory> Served<S, M> {
    /// A device that answers with `server`.
    pub fn of(server: S) -> Self {
        Self {
            inner: Mutex::new(Inner {
                server,
                active: None,
                paused: false,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<S, M>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the server something.
    pub fn ask<T>(&self, question: impl FnOnce(&S) -> T) -> T {
        question(&self.lock().server)
    }

    /// Changes the server's configuration space, and tells the driver if `change`
    /// says that it did. Under one lock, so that a driver that has
    /// left gets no interrupt.
    pub fn configure(&self, change: impl FnOnce(&mut S) -> bool) {
        let mut inner = self.lock();
        if change(&mut inner.server)
            && let Some(active) = &inner.active
        {
            active.irq.config_changed();
        }
    }
}

impl<S: Server, M: DeviceMemory> Inner<S, M> {
    /// Answers the requests in a queue, a queue's worth at most.
    fn serve(&mut self, index: u16) {
        let Self {
            server,
            active: Some(active),
            paused: false,
        } = self
        else {
            return;
        };
        let Some(queue) = active.queues.get_mut(usize::from(index)) else {
            return;
        };
        if !queue.ready() {
            return;
        }
        match serve_round(server, index, queue, &*active.ram) {
            Ok(round) => {
                if round.interrupt {
                    active.irq.used_buffers(index);
                }
                if round.more {
                    active.irq.work_left(index);
                }
            }
            Err(mistake) => {
                queue.set_ready(false);
                active.irq.needs_reset(&mistake);
            }
        }
    }

    fn serve_all(&mut self) {
        for (index, _) in (0..).zip(S::QUEUE_SIZES) {
            self.serve(index);
        }
    }
}

fn serve_round<S: Server, M: DeviceMemory>(
    server: &mut S,
    index: u16,
    queue: &mut Queue,
    ram: &M,
) -> Result<Round, QueueError> {
    let mut used = false;
    let mut more = true;
    let mut work = 0;
    for _ in 0..queue.size() {
        let Some(request) = pop_or_listen(queue, ram, S::MAX_SEGMENTS)? else {
            more = false;
            break;
        };
        let done = server.answer(index, &request, ram)?;
        add_used(queue, ram, request.head, done.written)?;
        used = true;
        work += done.work;
        if work >= MAX_WORK {
            break;
        }
    }
    if more {
        more = queue.enable_notification(ram).map_err(QueueError::Ring)?;
    }
    Ok(Round {
        interrupt: used && wants_interrupt(queue, ram)?,
        more,
    })
}

impl<S: Server, M: DeviceMemory> VirtioDevice<M> for Served<S, M> {
    fn device_id(&self) -> u32 {
        S::DEVICE_ID
    }

    fn queue_max_sizes(&self) -> &[u16] {
        S::QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        F_VERSION_1 | F_RING_EVENT_IDX | F_RING_INDIRECT_DESC | S::FEATURES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.lock().server.read_config(offset, data);
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        self.lock().server.write_config(offset, data);
    }

    fn activate(&self, activation: Activation<M>) -> Result<(), ActivateError> {
        for (index, queue) in (0..S::NEEDED_QUEUES).zip(&activation.queues) {
            if !queue.ready() {
                return Err(ActivateError::QueueNotReady(index));
            }
        }
        let mut inner = self.lock();
        inner.active = Some(activation);
        // A driver may have left requests before it said that it is ready. One
        // that is restored has them served once it goes on.
        inner.serve_all();
        Ok(())
    }

    fn reset(&self) -> Vec<Queue> {
        let mut inner = self.lock();
        let active = inner.active.take();
        inner.server.reset();
        active.map_or(Vec::new(), |active| active.queues)
    }

    fn pause(&self) {
        self.lock().paused = true;
    }

    /// Serves its queues: the driver does not notify again of what it did in
    /// the meantime, or long ago if it was restored.
    fn resume(&self) {
        let mut inner = self.lock();
        inner.paused = false;
        inner.serve_all();
    }

    fn notify(&self, queue: u16) {
        self.lock().serve(queue);
    }

    fn queue_states(&self) -> Vec<QueueState> {
        let inner = self.lock();
        let queues = inner.active.iter().flat_map(|active| &active.queues);
        queues.map(Queue::state).collect()
    }

    fn state_format(&self) -> StateFormat {
        S::State::FORMAT
    }

    fn state(&self) -> SavedState {
        SavedState::of(&self.lock().server.state())
    }

    fn restore(&self, state: &SavedState) -> Result<(), RestoreError> {
        self.lock().server.restore(&state.read()?)
    }
}

#[cfg(all(test, feature = "rng"))]
mod tests;
