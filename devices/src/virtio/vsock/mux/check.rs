//! A look at the tables from outside, for fuzzing.

use super::super::credit::BUFFER_BYTES;
use super::{HandlerId, MAX_CONNECTIONS, MAX_RESETS, Mux, Phase};
use crate::DeviceMemory;

impl<M: DeviceMemory> Mux<M> {
    pub(in super::super) fn use_handler(&mut self, handler: HandlerId) {
        self.handler = Some(handler);
    }

    /// The key of the connection in a slot.
    pub(in super::super) fn key_of(&self, slot: u32) -> Option<u32> {
        let slot = self.slots.get(slot as usize)?.as_ref()?;
        Some(slot.key)
    }

    /// Panics if the tables disagree with each other.
    pub(in super::super) fn check(&self) {
        let live = || {
            let slots = self.slots.iter().enumerate();
            slots.filter_map(|(index, slot)| Some((index, slot.as_ref()?)))
        };
        assert_eq!(live().count() + self.free.len(), self.slots.len());
        let buffered: usize = live().map(|(_, c)| c.buffered()).sum();
        assert_eq!(buffered, self.buffered, "buffered bytes are miscounted");
        for (index, connection) in live() {
            let in_turn = self.turn.iter().filter(|&&i| i == index).count();
            assert_eq!(in_turn, usize::from(connection.queued));
            let ports = (connection.host_port, connection.guest_port);
            let mapped = self.by_ports.get(&ports) == Some(&index);
            let named = !matches!(connection.phase, Phase::Handshake(_) | Phase::Draining);
            assert_eq!(mapped, named, "port table is wrong");
            assert!(connection.buffered() <= BUFFER_BYTES as usize);
        }
        for &index in self.by_ports.values() {
            assert!(self.slots[index].is_some(), "port of a dead connection");
        }
        assert_eq!(self.turn.len(), live().filter(|(_, c)| c.queued).count());
        assert!(self.owed_resets.len() <= MAX_CONNECTIONS);
        assert!(self.resets.len() <= MAX_RESETS + 1, "resets pile up");
    }
}
