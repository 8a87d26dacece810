//! The queues of a device that answers requests on the thread that notifies.
//!
//! One notification serves a bounded number of requests: another vCPU may add
//! requests as fast as they are answered, and the one that notified has to be
//! able to stop. What is left over is served later, see
//! [`Interrupt::work_left`](super::Interrupt::work_left).

use virtio_queue::{Queue, QueueState, QueueT};

use super::Activation;
use super::chain::{Chain, QueueError, add_used, pop_or_listen, wants_interrupt};
use crate::Ram;

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

/// Queues, from the start of a device to its reset.
#[derive(Default)]
pub struct Served {
    active: Option<Activation>,
    paused: bool,
}

/// What became of one round over a queue.
struct Round {
    /// The driver wants to hear of the answers.
    interrupt: bool,
    /// There are requests left.
    more: bool,
}

impl Served {
    /// Takes the queues. Nothing is served yet.
    pub fn activate(&mut self, activation: Activation) {
        self.active = Some(activation);
    }

    /// What the device was started with.
    pub fn active(&self) -> Option<&Activation> {
        self.active.as_ref()
    }

    /// Gives the queues back; empty if the device was not started.
    pub fn reset(&mut self) -> Vec<Queue> {
        self.active
            .take()
            .map_or(Vec::new(), |active| active.queues)
    }

    /// Serves nothing from now on.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Ends a pause. The device serves its queues next: the driver does not
    /// notify again of what it did in the meantime.
    pub fn resume(&mut self) {
        self.paused = false;
    }

    /// Where the rings stand; empty if the device was not started.
    pub fn queue_states(&self) -> Vec<QueueState> {
        let queues = self.active.iter().flat_map(|active| &active.queues);
        queues.map(Queue::state).collect()
    }

    /// Has `answer` answer the requests in a queue, a queue's worth at most.
    /// Requests have up to `max_segments` descriptors. After a mistake of the
    /// driver the queue is left alone until the device is reset.
    pub fn serve(
        &mut self,
        index: u16,
        max_segments: usize,
        answer: impl FnMut(&Chain, &Ram) -> Result<Answer, QueueError>,
    ) {
        let Some(active) = self.active.as_mut().filter(|_| !self.paused) else {
            return;
        };
        let Some(queue) = active.queues.get_mut(usize::from(index)) else {
            return;
        };
        if !queue.ready() {
            return;
        }
        match serve_round(queue, &active.ram, max_segments, answer) {
            Ok(round) => {
                if round.interrupt {
                    active.irq.used_buffers(index);
                }
                if round.more {
                    active.irq.work_left(index);
                }
            }
            Err(_) => {
                queue.set_ready(false);
                active.irq.needs_reset();
            }
        }
    }
}

fn serve_round(
    queue: &mut Queue,
    ram: &Ram,
    max_segments: usize,
    mut answer: impl FnMut(&Chain, &Ram) -> Result<Answer, QueueError>,
) -> Result<Round, QueueError> {
    let mut used = false;
    let mut more = true;
    let mut work = 0;
    for _ in 0..queue.size() {
        let Some(chain) = pop_or_listen(queue, ram, max_segments)? else {
            more = false;
            break;
        };
        let done = answer(&chain, ram)?;
        add_used(queue, ram, chain.head, done.written)?;
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

#[cfg(test)]
mod tests;
