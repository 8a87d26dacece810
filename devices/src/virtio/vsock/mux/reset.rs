//! What a machine that is saved, restored or put back asks of the sockets.

use super::super::VsockState;
use super::{FIRST_HOST_PORT, Mux};
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
        }
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
            self.notice = state
                .reset_acknowledged_at
                .map_or(Notice::Due, Notice::Given);
            self.process();
        }
        Ok(())
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
