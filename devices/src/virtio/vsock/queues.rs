//! The three virtqueues, seen as packets.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::packet::{HEADER_BYTES, Header, MAX_PAYLOAD_BYTES, op};
use crate::DeviceMemory;
use crate::virtio::chain::{Chain, QueueError, Segments, add_used, pop_or_listen, wants_interrupt};
use crate::virtio::{Activation, Interrupt};

const RX: usize = 0;
const TX: usize = 1;
const EVENT: usize = 2;
/// Most descriptors in one packet: 64 KiB in pages, and some to spare.
const MAX_SEGMENTS: usize = 64;

/// From so many bytes on a packet is large.
const LARGE_BYTES: usize = 16 << 10;
/// Of large packets, and of those that only tell of credit, the driver is told when so
/// many were taken. It waits for none of them, and each time it is told costs it two
/// changes of the thread that runs.
const UNTOLD_PACKETS: usize = 16;
/// After this long it is told of a large packet anyway: a program may wait for that,
/// if it sent without a copy.
const PATIENCE_LARGE: Duration = Duration::from_millis(10);
/// And of one that only tells of credit, for which nobody waits: each command has one.
const PATIENCE_CREDIT: Duration = Duration::from_millis(100);

/// What stands in a transmit chain.
pub(super) enum Sent {
    /// A header whose payload is all there, now in the caller's buffer.
    Packet(Header),
    /// A header that promises more payload than there is, or than may be.
    BadLength(Header),
    /// Not even a header.
    Garbage,
}

/// Queues of an active device.
pub(super) struct Queues<M> {
    ram: Arc<M>,
    queues: Vec<Queue>,
    irq: Arc<dyn Interrupt>,
    /// Which queues had buffers used since the driver was last told.
    used: [bool; 3],
    /// Packets taken since the driver was last told; [`UNTOLD_PACKETS`] if one of them
    /// is to be told of at once.
    untold: usize,
    /// One of them is large.
    is_large_untold: bool,
    broken: bool,
}

impl<M: DeviceMemory> Queues<M> {
    pub(super) fn new(activation: Activation<M>) -> Self {
        Self {
            ram: activation.ram,
            queues: activation.queues,
            irq: activation.irq,
            used: [false; 3],
            untold: 0,
            is_large_untold: false,
            broken: false,
        }
    }

    pub(super) fn into_queues(self) -> Vec<Queue> {
        self.queues
    }

    pub(super) fn states(&self) -> Vec<QueueState> {
        self.queues.iter().map(Queue::state).collect()
    }

    /// Keeps the value, or gives up on the driver.
    fn check<T>(&mut self, outcome: Result<T, QueueError>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(mistake) => {
                self.fail(&mistake);
                None
            }
        }
    }

    fn fail(&mut self, mistake: &QueueError) {
        self.broken = true;
        self.irq.needs_reset(mistake);
    }

    fn pop(&mut self, index: usize) -> Option<Chain> {
        if self.broken || !self.queues[index].ready() {
            return None;
        }
        let queue = &mut self.queues[index];
        let outcome = pop_or_listen(queue, &*self.ram, MAX_SEGMENTS);
        self.check(outcome)?
    }

    fn give_back(&mut self, index: usize, head: u16, len: usize) {
        let outcome = add_used(&mut self.queues[index], &*self.ram, head, len);
        if self.check(outcome).is_some() {
            self.used[index] = true;
        }
    }

    /// Takes the next packet the guest sent; its payload goes to `payload`.
    pub(super) fn take_sent(&mut self, payload: &mut Vec<u8>) -> Option<Sent> {
        let chain = self.pop(TX)?;
        let outcome = read_packet(&chain.readable, &*self.ram, payload);
        let sent = self.check(outcome)?;
        match &sent {
            Sent::Packet(_) if payload.len() >= LARGE_BYTES => {
                self.is_large_untold = true;
                self.untold += 1;
            }
            Sent::Packet(header) if header.op == op::CREDIT_UPDATE => self.untold += 1,
            Sent::Packet(_) | Sent::BadLength(_) | Sent::Garbage => self.untold = UNTOLD_PACKETS,
        }
        self.give_back(TX, chain.head, 0);
        Some(sent)
    }

    /// Offers the next receive buffer to `fill`, which returns the header of
    /// the packet whose payload it put there, or nothing to leave the buffer
    /// for later. False if there is no buffer, or `fill` had no use for it.
    pub(super) fn give_received(
        &mut self,
        fill: impl FnOnce(&M, &Segments) -> Result<Option<(Header, usize)>, ()>,
    ) -> Offered {
        let Some(chain) = self.pop(RX) else {
            return Offered::NoBuffer;
        };
        // A buffer without room for payload would stall every stream.
        if chain.writable.len() <= HEADER_BYTES {
            self.fail(&QueueError::BadRequest);
            return Offered::NoBuffer;
        }
        match fill(&self.ram, &chain.writable) {
            Ok(Some((header, len))) => {
                let outcome = chain.writable.write(&*self.ram, 0, &header.encode());
                if self.check(outcome).is_some() {
                    self.give_back(RX, chain.head, HEADER_BYTES + len);
                }
                Offered::Used
            }
            Ok(None) => {
                self.queues[RX].go_to_previous_position();
                Offered::Declined
            }
            Err(()) => {
                self.fail(&QueueError::BadRequest);
                Offered::NoBuffer
            }
        }
    }

    /// Tells the guest that all connections are gone
    /// (`VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`, virtio 1.2 §5.10.6.7). Returns
    /// the available index at which it has given the buffer back, and so has
    /// seen the event; nothing if it left no buffer for that yet.
    pub(super) fn send_transport_reset(&mut self) -> Option<u16> {
        let chain = self.pop(EVENT)?;
        let outcome = chain.writable.write(&*self.ram, 0, &0u32.to_le_bytes());
        if !self.check(outcome)? {
            self.fail(&QueueError::BadRequest);
            return None;
        }
        let outcome = listen_beyond_available(&self.queues[EVENT], &*self.ram);
        let available = self.check(outcome)?;
        self.give_back(EVENT, chain.head, 4);
        Some(available.wrapping_add(1))
    }

    /// Whether the guest can be told of events at all.
    pub(super) fn has_events(&self) -> bool {
        !self.broken && self.queues[EVENT].ready()
    }

    /// Whether the guest made event buffers available up to `index`.
    pub(super) fn events_available_to(&mut self, index: u16) -> bool {
        let outcome = self.queues[EVENT].avail_idx(&*self.ram, Ordering::Acquire);
        let available = self.check(outcome.map_err(QueueError::Ring));
        // Indices wrap; half their range is more than any queue has.
        available.is_some_and(|available| available.0.wrapping_sub(index) < 1 << 15)
    }

    /// Whether a device can have been saved while it waited for event buffers
    /// up to `index`: for the one after the last, or one that has come since.
    pub(super) fn may_owe_events_up_to(&mut self, index: u16) -> bool {
        !self.has_events() || self.events_available_to(index.wrapping_sub(1))
    }

    /// One interrupt at most for each queue, after a batch. If the driver has yet to be
    /// told of packets, which [`Queues::interrupt_now`] does, within which time.
    pub(super) fn interrupt(&mut self) -> Option<Duration> {
        let only_sent = self.used == [false, true, false] && !self.broken;
        if only_sent && self.untold < UNTOLD_PACKETS {
            return Some(if self.is_large_untold {
                PATIENCE_LARGE
            } else {
                PATIENCE_CREDIT
            });
        }
        self.interrupt_now();
        None
    }

    /// The same, and the driver is told of everything.
    pub(super) fn interrupt_now(&mut self) {
        self.untold = 0;
        self.is_large_untold = false;
        for index in [RX, TX, EVENT] {
            if !std::mem::take(&mut self.used[index]) || self.broken {
                continue;
            }
            let outcome = wants_interrupt(&mut self.queues[index], &*self.ram);
            if self.check(outcome) == Some(true) {
                // One of 0, 1 and 2.
                self.irq.used_buffers(u16::try_from(index).unwrap_or(0));
            }
        }
    }
}

/// What became of a receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// The guest has no buffer to offer.
    NoBuffer,
    /// A packet went out in it.
    Used,
    /// Nothing was sent; the buffer is still the next.
    Declined,
}

/// Asks the driver to notify of the next buffer it makes available, though there
/// are some left: `virtio-queue` asks for those beyond the last one taken.
/// Returns the driver's index.
fn listen_beyond_available<M: DeviceMemory>(queue: &Queue, ram: &M) -> Result<u16, QueueError> {
    let available = queue
        .avail_idx(ram, Ordering::Acquire)
        .map_err(QueueError::Ring)?
        .0;
    if queue.event_idx_enabled() {
        // `avail_event`, after the used ring (virtio 1.2 §2.7.8); the ring
        // lies in RAM with this field, so the address does not wrap.
        let at = queue.used_ring() + 4 + 8 * u64::from(queue.size());
        ram.store(available.to_le(), GuestAddress(at), Ordering::SeqCst)
            .map_err(QueueError::Memory)?;
    }
    Ok(available)
}

fn read_packet<M: DeviceMemory>(
    chain: &Segments,
    ram: &M,
    payload: &mut Vec<u8>,
) -> Result<Sent, QueueError> {
    let mut header = [0; HEADER_BYTES];
    if !chain.read(ram, 0, &mut header)? {
        return Ok(Sent::Garbage);
    }
    let header = Header::decode(&header);
    let len = header.len as usize;
    if len > MAX_PAYLOAD_BYTES {
        return Ok(Sent::BadLength(header));
    }
    payload.resize(len, 0);
    if !chain.read(ram, HEADER_BYTES, payload)? {
        return Ok(Sent::BadLength(header));
    }
    Ok(Sent::Packet(header))
}
