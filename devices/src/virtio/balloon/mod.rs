//! Memory balloon (virtio 1.2 §5.5): takes RAM back from a guest that does not
//! need it, by inflating towards a target or as the guest reports free pages.
//!
//! All work is done on the thread that notifies. Memory that is given back
//! needs no permission: a page that was discarded is there again, empty, when
//! it is touched.
//!
//! A target is a limit. The device does not offer `VIRTIO_BALLOON_F_DEFLATE_ON_OOM`
//! (virtio 1.2 §5.5.3), with which a guest takes pages back before it kills for
//! memory. Linux without it also takes the balloon's pages out of `MemTotal`.

use std::sync::Arc;

use self::pages::Discarder;
use super::chain::{Chain, QueueError};
use super::served::{Answer, Served, Server};
use super::state::StateFields;
use super::{DeviceState, RestoreError, StateFormat, read_config_space};
use crate::{DeviceMemory, Ram, RamAdvisor};

mod pages;

pub use pages::PAGE_BYTES;

/// Inflate, deflate and reporting queue. The standard numbers the last one 4,
/// counting queues that are not on offer; Linux, and QEMU with it, do not
/// count those. Linux wants room for 32 reports at a time.
const QUEUE_SIZES: &[u16] = &[128, 128, 32];
const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
/// Most page numbers in one request; Linux sends 256.
const MAX_PAGE_NUMBERS: usize = 4096;

/// Feature bits (virtio 1.2 §5.5.3).
mod feature {
    /// The guest reports pages that are free.
    pub(super) const PAGE_REPORTING: u64 = 1 << 5;
}

/// Saved state of a [`Balloon`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BalloonState {
    /// Pages the guest was asked to give up.
    pub target_pages: u32,
    /// Pages it said it had given up.
    pub actual_pages: u32,
}

impl DeviceState for BalloonState {
    const FORMAT: StateFormat = StateFormat {
        kind: "balloon",
        version: 1,
    };

    fn to_bytes(&self) -> Vec<u8> {
        [self.target_pages, self.actual_pages]
            .map(u32::to_le_bytes)
            .concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = StateFields::new(bytes);
        let state = Self {
            target_pages: fields.u32()?,
            actual_pages: fields.u32()?,
        };
        fields.end().map(|()| state)
    }
}

/// A memory balloon. Pages are of [`PAGE_BYTES`], whatever the host's.
pub type Balloon<M = Ram> = Served<Pages, M>;

/// What a [`Balloon`] knows of its guest's pages.
pub struct Pages {
    discarder: Discarder,
    /// What the configuration space shows as `num_pages`, and what the driver
    /// wrote to `actual`.
    state: BalloonState,
}

impl<M: DeviceMemory> Served<Pages, M> {
    /// A balloon whose pages, and those reported free, go to `advisor`.
    pub fn new(advisor: Arc<dyn RamAdvisor>) -> Self {
        Self::of(Pages {
            discarder: Discarder::new(advisor),
            state: BalloonState::default(),
        })
    }

    /// Asks the guest to have given up `pages` pages in all. It does what it
    /// can, in its own time, or later if it has no driver yet.
    pub fn set_target_pages(&self, pages: u32) {
        self.configure(|server| std::mem::replace(&mut server.state.target_pages, pages) != pages);
    }

    /// Pages the guest was asked to give up.
    pub fn target_pages(&self) -> u32 {
        self.ask(|server| server.state.target_pages)
    }

    /// Pages the guest says it has given up; only as good as its word.
    pub fn actual_pages(&self) -> u32 {
        self.ask(|server| server.state.actual_pages)
    }
}

impl Server for Pages {
    /// A traditional memory balloon.
    const DEVICE_ID: u32 = 5;
    const QUEUE_SIZES: &'static [u16] = QUEUE_SIZES;
    /// A driver may go without reports.
    const NEEDED_QUEUES: u16 = 2;
    /// The 32 reports of Linux.
    const MAX_SEGMENTS: usize = 32;
    const FEATURES: u64 = feature::PAGE_REPORTING;
    type State = BalloonState;

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // Its fields have the order, and the layout, of what is saved.
        read_config_space(&self.state.to_bytes(), offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        // `actual` is the one field to write (virtio 1.2 §5.5.4).
        if let (4, Ok(bytes)) = (offset, data.try_into()) {
            self.state.actual_pages = u32::from_le_bytes(bytes);
        }
    }

    fn answer<M: DeviceMemory>(
        &mut self,
        queue: u16,
        request: &Chain,
        ram: &M,
    ) -> Result<Answer, QueueError> {
        let work = match queue {
            INFLATE => self.discarder.inflate(request, ram)?,
            DEFLATE => self.discarder.check(request, ram)?,
            _ => self.discarder.report(request),
        };
        Ok(Answer { written: 0, work })
    }

    fn reset(&mut self) {
        // The next driver knows of no page that was given up.
        self.state.actual_pages = 0;
    }

    fn state(&self) -> BalloonState {
        self.state
    }

    /// Each number is a possible one: the target is the owner's to set and the
    /// other what a guest could have written.
    fn restore(&mut self, state: &BalloonState) -> Result<(), RestoreError> {
        self.state = *state;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
