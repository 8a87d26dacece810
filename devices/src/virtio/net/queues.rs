//! The two virtqueues, seen as frames.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::{MAX_FRAME_BYTES, NetFrame, NetOffloads, NetSent, feature};
use crate::DeviceMemory;
use crate::virtio::chain::{Chain, QueueError, add_used, pop_or_listen, wants_interrupt};
use crate::virtio::{Activation, Interrupt};

/// Bytes of `struct virtio_net_hdr` (virtio 1.2 §5.1.6).
const HEADER_BYTES: usize = 12;
/// Most descriptors of a chain: an indirect table has no more than its queue.
const MAX_SEGMENTS: usize = 256;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`.
const GSO_TCPV4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV6`.
const GSO_TCPV6: u8 = 4;

/// Queues of an active device.
pub(super) struct Queues<M> {
    ram: Arc<M>,
    receive: Queue,
    transmit: Queue,
    irq: Arc<dyn Interrupt>,
    features: u64,
    /// Index of the receive queue's used ring when the driver was last told.
    told: u16,
    given: bool,
    taken: bool,
    broken: bool,
}

impl<M: DeviceMemory> Queues<M> {
    pub(super) fn new(activation: Activation<M>) -> Option<Self> {
        let mut queues = activation.queues.into_iter();
        let (receive, transmit) = (queues.next()?, queues.next()?);
        Some(Self {
            ram: activation.ram,
            told: receive.next_used(),
            receive,
            transmit,
            irq: activation.irq,
            features: activation.features,
            given: false,
            taken: false,
            broken: false,
        })
    }

    pub(super) fn into_queues(self) -> Vec<Queue> {
        vec![self.receive, self.transmit]
    }

    pub(super) fn states(&self) -> Vec<QueueState> {
        vec![self.receive.state(), self.transmit.state()]
    }

    pub(super) fn offloads(&self) -> NetOffloads {
        let has = |bits| self.features & bits == bits;
        // Segments need checksums and buffers that can be joined (Linux else posts
        // 64 KiB for each frame, which is not worth it).
        let long = feature::GUEST_CSUM | feature::MRG_RXBUF;
        NetOffloads {
            checksum: has(feature::GUEST_CSUM),
            segments_v4: has(long | feature::GUEST_TSO4),
            segments_v6: has(long | feature::GUEST_TSO6),
        }
    }

    fn fail(&mut self, mistake: &QueueError) {
        self.broken = true;
        self.irq.needs_reset(mistake);
    }

    fn check<T>(&mut self, outcome: Result<T, QueueError>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(mistake) => {
                self.fail(&mistake);
                None
            }
        }
    }

    /// Whether the driver sent frames that nobody took.
    pub(super) fn has_frames(&mut self) -> bool {
        let available = self.transmit.avail_idx(&*self.ram, Ordering::Acquire);
        available.is_ok_and(|index| index.0 != self.transmit.next_avail())
    }

    /// Takes what the driver sent next. Of what is no frame nothing is left, and the
    /// device is free in between: a driver that sends nothing else would keep it.
    pub(super) fn take(&mut self, frame: &mut Vec<u8>) -> Option<NetSent> {
        if self.broken {
            return None;
        }
        let outcome = pop_or_listen(&mut self.transmit, &*self.ram, MAX_SEGMENTS);
        let chain = self.check(outcome)??;
        let outcome = read_frame(&chain, &*self.ram, frame);
        let sent = self.check(outcome)?;
        let outcome = add_used(&mut self.transmit, &*self.ram, chain.head, 0);
        self.check(outcome)?;
        self.taken = true;
        Some(sent)
    }

    /// Gives the driver a frame in as many buffers as it takes. All of them are
    /// there for it at once: it looks for the others when it has seen the first.
    pub(super) fn give(&mut self, frame: &NetFrame<'_>) -> bool {
        if self.broken {
            return false;
        }
        let bytes = HEADER_BYTES + frame.parts.iter().map(|part| part.len()).sum::<usize>();
        let can_join = self.features & feature::MRG_RXBUF != 0;
        let mut chains: Vec<Chain> = Vec::new();
        let mut room = 0;
        while room < bytes {
            if room > 0 && !can_join {
                // It has no place for such a frame, now or later.
                self.receive.go_to_previous_position();
                return true;
            }
            let outcome = pop_or_listen(&mut self.receive, &*self.ram, MAX_SEGMENTS);
            let Some(popped) = self.check(outcome) else {
                return false;
            };
            let Some(chain) = popped else {
                // The driver notifies of the next one: that was asked for just now.
                for _ in &chains {
                    self.receive.go_to_previous_position();
                }
                return false;
            };
            if chain.writable.len() < HEADER_BYTES {
                self.fail(&QueueError::BadRequest);
                return false;
            }
            room += chain.writable.len();
            chains.push(chain);
        }
        let header = header(frame, chains.len());
        let [first, second, third] = frame.parts;
        let outcome = write_parts(&chains, &*self.ram, [&header, first, second, third]);
        let Some(used) = self.check(outcome) else {
            return false;
        };
        let outcome = publish(&mut self.receive, &*self.ram, &used);
        let published = self.check(outcome).is_some();
        self.given |= published;
        published
    }

    /// One interrupt at most for each queue, after a batch.
    pub(super) fn interrupt(&mut self) {
        if std::mem::take(&mut self.given) && !self.broken {
            let outcome = wants_word(&mut self.receive, &*self.ram, self.told);
            self.told = self.receive.next_used();
            if self.check(outcome) == Some(true) {
                self.irq.used_buffers(0);
            }
        }
        if std::mem::take(&mut self.taken) && !self.broken {
            let outcome = wants_interrupt(&mut self.transmit, &*self.ram);
            if self.check(outcome) == Some(true) {
                self.irq.used_buffers(1);
            }
        }
    }
}

fn read_frame<M: DeviceMemory>(
    chain: &Chain,
    ram: &M,
    frame: &mut Vec<u8>,
) -> Result<NetSent, QueueError> {
    let mut header = [0; HEADER_BYTES];
    let bytes = chain.readable.len().saturating_sub(HEADER_BYTES);
    if bytes > MAX_FRAME_BYTES || !chain.readable.read(ram, 0, &mut header)? {
        frame.clear();
        return Ok(NetSent { is_unsummed: false });
    }
    frame.resize(bytes, 0);
    chain.readable.read(ram, HEADER_BYTES, frame)?;
    Ok(NetSent {
        is_unsummed: header[0] & NEEDS_CSUM != 0,
    })
}

fn header(frame: &NetFrame<'_>, buffers: usize) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    if let Some((start, offset)) = frame.checksum {
        out[0] = NEEDS_CSUM;
        out[6..8].copy_from_slice(&start.to_le_bytes());
        out[8..10].copy_from_slice(&offset.to_le_bytes());
    }
    if let Some(cut) = frame.segmentation {
        out[1] = if cut.is_v6 { GSO_TCPV6 } else { GSO_TCPV4 };
        out[2..4].copy_from_slice(&cut.header_bytes.to_le_bytes());
        out[4..6].copy_from_slice(&cut.segment_bytes.to_le_bytes());
    }
    // A queue has at most 32,768 entries.
    let buffers = u16::try_from(buffers).unwrap_or(u16::MAX);
    out[10..].copy_from_slice(&buffers.to_le_bytes());
    out
}

/// Writes pieces into buffers, one after the other; what was written to each.
fn write_parts<M: DeviceMemory>(
    chains: &[Chain],
    ram: &M,
    parts: [&[u8]; 4],
) -> Result<Vec<(u16, usize)>, QueueError> {
    let mut used: Vec<(u16, usize)> = chains.iter().map(|chain| (chain.head, 0)).collect();
    let mut place = 0;
    for mut part in parts {
        while let (Some(chain), Some((_, written))) = (chains.get(place), used.get_mut(place))
            && !part.is_empty()
        {
            let room = chain.writable.len() - *written;
            let (now, rest) = part.split_at(room.min(part.len()));
            chain.writable.write(ram, *written, now)?;
            *written += now.len();
            part = rest;
            if *written == chain.writable.len() {
                place += 1;
            }
        }
    }
    Ok(used)
}

/// Puts all of these into the used ring, and its index behind the last: a driver
/// sees all of them, or none.
fn publish<M: DeviceMemory>(
    queue: &mut Queue,
    ram: &M,
    used: &[(u16, usize)],
) -> Result<(), QueueError> {
    let Some(((head, bytes), before)) = used.split_last() else {
        return Ok(());
    };
    let mut index = queue.next_used();
    for (head, bytes) in before {
        let mut entry = [0; 8];
        entry[..2].copy_from_slice(&head.to_le_bytes());
        let bytes = u32::try_from(*bytes).unwrap_or(u32::MAX);
        entry[4..].copy_from_slice(&bytes.to_le_bytes());
        // The ring is in RAM, as was checked when the queue was set up.
        let at = queue.used_ring() + 4 + 8 * u64::from(index % queue.size());
        ram.write_slice(&entry, GuestAddress(at))
            .map_err(QueueError::Memory)?;
        index = index.wrapping_add(1);
    }
    queue.set_next_used(index);
    add_used(queue, ram, *head, *bytes)
}

/// As [`wants_interrupt`], for a queue whose used ring moved on from `told` by more
/// than what went through [`add_used`].
fn wants_word<M: DeviceMemory>(queue: &mut Queue, ram: &M, told: u16) -> Result<bool, QueueError> {
    if !queue.event_idx_enabled() {
        return wants_interrupt(queue, ram);
    }
    // What was used is there before the driver's wish is read.
    fence(Ordering::SeqCst);
    // `used_event` (virtio 1.2 §2.7.7).
    let at = queue.avail_ring() + 4 + 2 * u64::from(queue.size());
    let event: u16 = ram
        .load(GuestAddress(at), Ordering::Relaxed)
        .map_err(QueueError::Memory)?;
    let used = queue.next_used();
    let since = used.wrapping_sub(u16::from_le(event)).wrapping_sub(1);
    Ok(since < used.wrapping_sub(told))
}
