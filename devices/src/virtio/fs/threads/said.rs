//! What the device says by itself, in the queue that it has for that.

use virtio_queue::{Queue, QueueT};

use super::{MAX_SEGMENTS, Request, Shared};
use crate::DeviceMemory;
use crate::virtio::chain::{QueueError, add_used, pop_or_listen, wants_interrupt};
use crate::virtio::fs::server::Exchange;

/// Whether the guest was told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Heard,
    /// It has no room now, or stands still. It says when it has.
    Later,
    /// There is none that listens.
    Nobody,
}

impl<M: DeviceMemory> Shared<M> {
    /// Tells the guest something, if it has room for it.
    pub fn say(&self, message: &[u8]) -> Said {
        let mut state = self.lock();
        if state.paused {
            return Said::Later;
        }
        let notifications = state.notifications;
        let Some((index, active)) = notifications.zip(state.active.as_mut()) else {
            return Said::Nobody;
        };
        let Some(queue) = active.queues.get_mut(index).filter(|queue| queue.ready()) else {
            return Said::Nobody;
        };
        match say(queue, &*active.ram, message) {
            Ok(None) => Said::Later,
            Ok(Some(interrupt)) => {
                if interrupt {
                    let index = u16::try_from(index).unwrap_or(u16::MAX);
                    active.irq.used_buffers(index);
                }
                Said::Heard
            }
            Err(mistake) => {
                queue.set_ready(false);
                active.irq.needs_reset(&mistake);
                Said::Nobody
            }
        }
    }
}

/// Writes something into the next buffer of the driver, if there is one; whether it wants
/// to hear of that.
fn say<M: DeviceMemory>(
    queue: &mut Queue,
    ram: &M,
    message: &[u8],
) -> Result<Option<bool>, QueueError> {
    let Some(chain) = pop_or_listen(queue, ram, MAX_SEGMENTS)? else {
        return Ok(None);
    };
    let mut request = Request {
        chain: &chain,
        ram,
        window: None,
    };
    // A buffer that is too short is the driver's loss.
    let length = message.len().min(request.room());
    request.write(0, &message[..length])?;
    add_used(queue, ram, chain.head, length)?;
    wants_interrupt(queue, ram).map(Some)
}
