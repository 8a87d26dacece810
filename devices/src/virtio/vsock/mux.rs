//! All connections of one device: who is who, and whose turn it is.

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use virtio_queue::{Queue, QueueState};

use self::doors::Door;
use self::reset::Notice;
use super::VsockConfig;
use super::connection::{Connection, Fate, Filled, Phase};
use super::packet::{HOST_CID, Header, TYPE_STREAM, op};
use super::queues::{Offered, Queues, Sent};
use super::socket::Listener;
use crate::DeviceMemory;
use crate::reactor::{HandlerId, Reactor, ReactorError, Readiness};
use crate::virtio::Activation;

#[cfg(any(all(test, feature = "default"), feature = "fuzzing"))]
mod check;
mod doors;
mod guests;
mod reset;

/// Most connections at a time. More clients wait in the listeners' backlogs;
/// more connections of the guest are refused.
pub const MAX_CONNECTIONS: usize = 8192;
/// Connections that a guest's unprivileged processes cannot occupy.
pub const RESERVED_CONNECTIONS: usize = 1024;
/// Most bytes held for slow host readers over all connections. A connection
/// that would go beyond is reset.
pub const MAX_BUFFERED_BYTES: usize = 256 << 20;
/// Resets kept for packets without a connection; beyond that the guest must
/// take some before it may send more.
const MAX_RESETS: usize = 256;
/// Packets of each direction that one call handles: the guest and the host's
/// programs may add more as fast as that, and a vCPU that notified, or waits
/// for the lock, has to be able to stop.
const MAX_PACKETS: usize = 256;
/// Keys with this bit belong to connections, the others to listeners.
const CONNECTION_KEY: u32 = 1 << 31;
/// Low bits of a connection's key: its slot. Those above count how often keys
/// were given out, so that a late event never meets a slot's next tenant.
const SLOT_BITS: u32 = 13;
const _: () = assert!(MAX_CONNECTIONS == 1 << SLOT_BITS);
/// First port given to connections that start on the host, well away from
/// those a guest would connect to.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// A host port and a guest port name a connection: both context ids are fixed.
type Ports = (u32, u32);

/// Packets that the call at hand may still handle.
struct Room {
    sent: usize,
    received: usize,
}

impl Room {
    /// Whether something may have been left for want of room.
    fn is_used_up(&self) -> bool {
        self.sent == 0 || self.received == 0
    }
}

/// See the module's documentation.
pub(super) struct Mux<M> {
    guest_cid: u64,
    stem: Option<PathBuf>,
    privileged_ports: Vec<u32>,
    reactor: Arc<dyn Reactor>,
    handler: Option<HandlerId>,
    doors: Vec<Door>,
    queues: Option<Queues<M>>,
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    by_ports: HashMap<Ports, usize>,
    /// Connections with something to send, each at most once.
    turn: VecDeque<usize>,
    resets: VecDeque<Header>,
    /// Of another life of the guest.
    owed_resets: Vec<Ports>,
    next_host_port: u32,
    next_generation: u32,
    /// A client could not be let in when it came.
    clients_wait: bool,
    buffered: usize,
    /// Whether the guest knows that earlier connections are gone.
    notice: Notice,
    /// Guest RAM and interrupts are left alone.
    paused: bool,
    /// When [`Mux::tell`] is going to be called.
    tells_at: Option<Instant>,
    payload: Vec<u8>,
}

impl<M: DeviceMemory> Mux<M> {
    /// A mux without listeners, which [`Mux::listen`] adds.
    pub(super) fn new(config: VsockConfig, reactor: Arc<dyn Reactor>) -> Self {
        Self {
            guest_cid: config.guest_cid,
            stem: config.stem,
            privileged_ports: config.privileged_ports,
            reactor,
            handler: None,
            doors: Vec::new(),
            queues: None,
            slots: Vec::new(),
            free: Vec::new(),
            by_ports: HashMap::new(),
            turn: VecDeque::new(),
            resets: VecDeque::new(),
            owed_resets: Vec::new(),
            next_host_port: FIRST_HOST_PORT,
            next_generation: 0,
            clients_wait: false,
            buffered: 0,
            notice: Notice::None,
            paused: false,
            tells_at: None,
            payload: Vec::new(),
        }
    }

    pub(super) fn listen(
        &mut self,
        handler: HandlerId,
        listeners: Vec<(Listener, Option<u32>)>,
    ) -> Result<(), ReactorError> {
        self.handler = Some(handler);
        for (key, (listener, guest_port)) in (0..CONNECTION_KEY).zip(listeners) {
            self.reactor.register(handler, key, listener.as_fd())?;
            self.doors.push(Door {
                listener,
                guest_port,
            });
        }
        Ok(())
    }

    pub(super) fn connection_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn activate(&mut self, activation: Activation<M>) {
        self.queues = Some(Queues::new(activation));
    }

    /// On the loop's thread after activation: lets in who waits.
    pub(super) fn start(&mut self) {
        if self.queues.is_some() && !self.paused {
            self.accept_all();
            self.process();
        }
    }

    /// Tells the driver of what it has not been told yet.
    pub(super) fn tell(&mut self) {
        self.tells_at = None;
        if let (Some(queues), false) = (&mut self.queues, self.paused) {
            queues.interrupt_now();
        }
    }

    /// Leaves it to a test when [`Mux::tell`] is called.
    #[cfg(all(test, feature = "default"))]
    pub(super) fn leave_telling(&mut self) {
        self.tells_at = Some(Instant::now());
    }

    pub(super) fn queue_states(&self) -> Vec<QueueState> {
        self.queues.as_ref().map_or(Vec::new(), Queues::states)
    }

    /// Ends every connection; the listeners stay, but who waits there wants
    /// to reach the guest that was, and is turned away.
    pub(super) fn reset(&mut self) -> Vec<Queue> {
        if self.queues.is_some() {
            self.refuse_waiting();
        }
        for slot in std::mem::take(&mut self.slots).into_iter().flatten() {
            self.reactor.deregister(slot.stream.as_fd());
        }
        self.free.clear();
        self.by_ports.clear();
        self.turn.clear();
        self.resets.clear();
        self.owed_resets.clear();
        self.buffered = 0;
        self.notice = Notice::None;
        self.clients_wait = false;
        self.queues.take().map_or(Vec::new(), Queues::into_queues)
    }

    /// Ends the listeners too.
    pub(super) fn close(&mut self) {
        drop(self.reset());
        for door in std::mem::take(&mut self.doors) {
            self.reactor.deregister(door.listener.as_fd());
        }
    }

    /// Something happened to a socket.
    pub(super) fn ready(&mut self, key: u32, readiness: Readiness) {
        if self.queues.is_none() {
            return;
        }
        if key & CONNECTION_KEY != 0 {
            self.socket_ready(key, readiness);
        } else if self.paused {
            self.clients_wait = true;
        } else {
            self.accept_all();
        }
        self.process();
    }

    /// Stores a connection and has its socket watched.
    fn insert(&mut self, mut connection: Connection) -> Option<usize> {
        let handler = self.handler?;
        let index = self.free.pop().unwrap_or(self.slots.len());
        let slot = u32::try_from(index).ok()?;
        connection.key = CONNECTION_KEY | self.next_generation << SLOT_BITS | slot;
        self.next_generation = (self.next_generation + 1) % (CONNECTION_KEY >> SLOT_BITS);
        if self
            .reactor
            .register(handler, connection.key, connection.stream.as_fd())
            .is_err()
        {
            // Out of kernel memory for it; the client sees a close.
            if index < self.slots.len() {
                self.free.push(index);
            }
            return None;
        }
        if !matches!(connection.phase, Phase::Handshake(_)) {
            let ports = (connection.host_port, connection.guest_port);
            self.by_ports.insert(ports, index);
        }
        if index == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[index] = Some(connection);
        Some(index)
    }

    fn remove(&mut self, index: usize) {
        let Some(connection) = self.slots[index].take() else {
            return;
        };
        self.unmap(&connection, index);
        self.buffered -= connection.buffered();
        self.reactor.deregister(connection.stream.as_fd());
        if connection.queued {
            self.turn.retain(|&other| other != index);
        }
        drop(connection);
        self.free.push(index);
    }

    /// Takes a connection out of the port table, if it is still there.
    fn unmap(&mut self, connection: &Connection, index: usize) {
        let ports = (connection.host_port, connection.guest_port);
        if self.by_ports.get(&ports) == Some(&index) {
            self.by_ports.remove(&ports);
        }
    }

    fn connection(&mut self, index: usize) -> Option<&mut Connection> {
        self.slots.get_mut(index)?.as_mut()
    }

    fn socket_ready(&mut self, key: u32, readiness: Readiness) {
        let index = (key & ((1 << SLOT_BITS) - 1)) as usize;
        let Some(connection) = self.connection(index) else {
            return;
        };
        if connection.key != key {
            return;
        }
        let before = connection.buffered();
        connection.set_readiness(readiness.readable, readiness.writable);
        if readiness.write_closed {
            connection.host_stopped_receiving();
        }
        let fate = connection.flush();
        let after = connection.buffered();
        self.buffered = self.buffered - before + after;
        self.handshake(index);
        self.settle(index, fate);
    }

    /// Goes on with the first line of a mux client.
    fn handshake(&mut self, index: usize) {
        let Some(connection) = self.connection(index) else {
            return;
        };
        if !matches!(connection.phase, Phase::Handshake(_)) {
            return;
        }
        let guest_port = match connection.read_handshake() {
            Ok(None) => return,
            Ok(Some(port)) => port,
            Err(()) => return self.remove(index),
        };
        let Some(host_port) = self.free_host_port(guest_port) else {
            return self.remove(index);
        };
        self.by_ports.insert((host_port, guest_port), index);
        if let Some(connection) = self.connection(index) {
            connection.host_port = host_port;
            connection.guest_port = guest_port;
            connection.request(true);
        }
    }

    /// Acts on a connection's fate, or puts it in line if it has to send.
    fn settle(&mut self, index: usize, fate: Fate) {
        let Some(connection) = self.slots.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let ports = (connection.host_port, connection.guest_port);
        let draining = connection.phase == Phase::Draining;
        if draining && self.by_ports.get(&ports) == Some(&index) {
            self.by_ports.remove(&ports);
        }
        match fate {
            Fate::Keep => {
                if !connection.queued && connection.wants_to_send() {
                    connection.queued = true;
                    self.turn.push_back(index);
                }
            }
            Fate::Reset => {
                self.reset_ports(ports);
                if !draining {
                    self.remove(index);
                }
            }
            Fate::Close => self.remove(index),
        }
    }

    fn reset_ports(&mut self, ports: Ports) {
        self.resets.push_back(self.reset_of(ports));
    }

    /// Moves packets both ways until there is nothing more to do, or for as
    /// long as one call may take; the reactor goes on then.
    pub(super) fn process(&mut self) {
        if self.paused {
            return;
        }
        self.give_notice();
        let mut room = Room {
            sent: MAX_PACKETS,
            received: MAX_PACKETS,
        };
        loop {
            let stalled = self.take_all_sent(&mut room);
            self.give_all_received(&mut room);
            // Sending may have made room for resets, and with that the guest
            // may go on; otherwise it has to offer buffers first.
            if !stalled || self.resets.len() >= MAX_RESETS || room.is_used_up() {
                break;
            }
        }
        if self.clients_wait {
            self.accept_all();
            self.give_all_received(&mut room);
        }
        let patience = self.queues.as_mut().and_then(Queues::interrupt);
        if let (Some(patience), Some(handler)) = (patience, self.handler) {
            let deadline = Instant::now() + patience;
            if self.tells_at.is_none_or(|at| deadline < at) {
                self.tells_at = Some(deadline);
                self.reactor.wake_at(handler, Some(deadline));
            }
        }
        if let (true, Some(handler)) = (room.is_used_up(), self.handler) {
            self.reactor.wake(handler);
        }
    }

    /// Handles what the guest sent; true if it stopped for want of room for
    /// resets.
    fn take_all_sent(&mut self, room: &mut Room) -> bool {
        let mut payload = std::mem::take(&mut self.payload);
        let stalled = loop {
            if self.resets.len() >= MAX_RESETS {
                break true;
            }
            if room.sent == 0 {
                break false;
            }
            room.sent -= 1;
            let sent = self.queues.as_mut().and_then(|q| q.take_sent(&mut payload));
            match sent {
                None => break false,
                Some(Sent::Packet(header)) => self.receive(&header, &payload),
                Some(Sent::BadLength(header)) => self.refuse(&header),
                Some(Sent::Garbage) => {}
            }
        };
        self.payload = payload;
        stalled
    }

    /// Resets whatever a bad packet is about.
    fn refuse(&mut self, header: &Header) {
        if header.src_cid != self.guest_cid || header.op == op::RST {
            return;
        }
        if header.dst_cid == HOST_CID
            && let Some(&index) = self.by_ports.get(&(header.dst_port, header.src_port))
        {
            return self.settle(index, Fate::Reset);
        }
        self.resets.push_back(header.reset());
    }

    fn receive(&mut self, header: &Header, payload: &[u8]) {
        let known_kind = header.kind == TYPE_STREAM;
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID || !known_kind {
            return self.refuse(header);
        }
        let ports = (header.dst_port, header.src_port);
        let found = self.by_ports.get(&ports).copied();
        match (found, header.op) {
            (None, op::REQUEST) => self.connect_host(header),
            (None, _) | (Some(_), op::REQUEST) => self.refuse(header),
            (Some(index), _) => self.deliver(index, header, payload),
        }
    }

    fn deliver(&mut self, index: usize, header: &Header, payload: &[u8]) {
        let total = self.buffered;
        let Some(connection) = self.connection(index) else {
            return;
        };
        let before = connection.buffered();
        let mut fate = connection.receive(header, payload);
        let after = connection.buffered();
        let total = total - before + after;
        if total > MAX_BUFFERED_BYTES {
            fate = Fate::Reset;
        }
        self.buffered = total;
        self.settle(index, fate);
    }

    /// Fills the guest's receive buffers: resets first, then one packet of
    /// each connection in turn.
    fn give_all_received(&mut self, room: &mut Room) {
        if self.notice != Notice::None {
            return;
        }
        self.move_owed_resets();
        let Some(queues) = &mut self.queues else {
            return;
        };
        while let Some(&header) = self.resets.front() {
            if room.received == 0 {
                return;
            }
            room.received -= 1;
            if queues.give_received(|_, _| Ok(Some((header, 0)))) == Offered::NoBuffer {
                return;
            }
            self.resets.pop_front();
        }
        while let Some(&index) = self.turn.front() {
            if room.received == 0 {
                return;
            }
            room.received -= 1;
            let Some(connection) = self.slots.get_mut(index).and_then(Option::as_mut) else {
                self.turn.pop_front();
                continue;
            };
            let cid = self.guest_cid;
            let offered =
                queues.give_received(|ram, buffer| match connection.fill(cid, ram, buffer) {
                    Filled::Packet(header, len) => Ok(Some((header, len))),
                    Filled::Nothing => Ok(None),
                    Filled::Fault => Err(()),
                });
            if offered == Offered::NoBuffer {
                return;
            }
            self.turn.pop_front();
            connection.queued = connection.wants_to_send();
            if connection.queued {
                self.turn.push_back(index);
            }
        }
    }
}
