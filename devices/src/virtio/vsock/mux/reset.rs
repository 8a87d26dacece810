//! What a machine that is saved, restored or put back asks of the sockets.

use super::super::VsockState;
use super::super::packet::{HOST_CID, Header, TYPE_STREAM, op};
use super::Ports;
use super::{FIRST_HOST_PORT, MAX_CONNECTIONS, MAX_RESETS, Mux};
use crate::DeviceMemory;
use crate::virtio::RestoreError;

/// Whether a restored guest knows that the connections it had are gone.
///
/// Until it does it gets no packets: a connection it accepted in between would
/// be taken for one of the old ones and closed with them. It knows once it has
/// given the event's buffer back, which Linux does after it closed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// It knows, or there were none.
    None,
    /// It is to be told as soon as it offers a buffer for that.
    Due,
    /// It was told, and is through with it when its event queue's available
    /// index gets here.
    Given(u16),
}

impl<M: DeviceMemory> Mux<M> {
    pub(in super::super) fn pause(&mut self) {
        // Nothing is left to be told by a device that is not there any more.
        self.tell();
        self.paused = true;
    }

    /// Goes on with what came during a pause.
    pub(in super::super) fn resume(&mut self) {
        self.paused = false;
        self.start();
    }

    pub(in super::super) fn state(&self) -> VsockState {
        VsockState {
            guest_cid: self.guest_cid,
            next_host_port: self.next_host_port,
            reset_acknowledged_at: match self.notice {
                Notice::Given(index) => Some(index),
                Notice::None | Notice::Due => None,
            },
            owed_resets: self.owed().take(MAX_CONNECTIONS).collect(),
        }
    }

    /// What a guest that goes on without its connections waits for in vain, and
    /// is not told by the event: Linux ends the connections it has, but a call that
    /// is not answered is none yet, and an answer in its receive queue may be
    /// handled after the event.
    fn owed(&self) -> impl Iterator<Item = Ports> {
        let packets = self
            .resets
            .iter()
            .map(|reset| (reset.src_port, reset.dst_port));
        let calls = self.slots.iter().flatten().filter(|call| call.is_silent);
        let calls = calls.map(|call| (call.host_port, call.guest_port));
        self.owed_resets.iter().copied().chain(packets).chain(calls)
    }

    /// Takes over a state whose context id is this device's.
    pub(in super::super) fn restore(&mut self, state: &VsockState) -> Result<(), RestoreError> {
        // The last is VMADDR_PORT_ANY.
        if !(FIRST_HOST_PORT..u32::MAX).contains(&state.next_host_port) {
            return Err(RestoreError::Invalid("next_host_port"));
        }
        if let (Some(queues), Some(index)) = (&mut self.queues, state.reset_acknowledged_at)
            && !queues.may_owe_events_up_to(index)
        {
            return Err(RestoreError::Invalid("reset_acknowledged_at"));
        }
        self.next_host_port = state.next_host_port;
        if self.queues.is_some() {
            self.owed_resets.clone_from(&state.owed_resets);
            self.notice = state
                .reset_acknowledged_at
                .map_or(Notice::Due, Notice::Given);
            self.process();
        }
        Ok(())
    }

    /// Queues what was owed in another life, as far as there is room for it.
    pub(super) fn move_owed_resets(&mut self) {
        while self.resets.len() < MAX_RESETS
            && let Some(ports) = self.owed_resets.pop()
        {
            self.resets.push_back(self.reset_of(ports));
        }
    }

    /// The packet that ends a connection.
    pub(super) fn reset_of(&self, (host_port, guest_port): Ports) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: host_port,
            dst_port: guest_port,
            kind: TYPE_STREAM,
            op: op::RST,
            ..Header::default()
        }
    }

    /// Tells the guest of the reset, or sees whether it is through with it.
    pub(super) fn give_notice(&mut self) {
        let Some(queues) = &mut self.queues else {
            return;
        };
        if self.notice != Notice::None && !queues.has_events() {
            // A driver without event queue has chosen not to know.
            self.notice = Notice::None;
        }
        self.notice = match self.notice {
            Notice::None => Notice::None,
            Notice::Due => match queues.send_transport_reset() {
                Some(index) => Notice::Given(index),
                None => Notice::Due,
            },
            Notice::Given(index) if queues.events_available_to(index) => Notice::None,
            Notice::Given(index) => Notice::Given(index),
        };
    }
}
