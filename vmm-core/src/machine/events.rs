//! What goes wrong behind a device, for whoever listens to `tracing` events.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use devices::virtio::ActivateError;
use devices::virtio::chain::QueueError;
use devices::virtio::mmio::VirtioEvents;
use tracing::{Span, trace, warn};

/// Most warnings about one device. A guest can cause as many as it likes, and
/// somebody's disk keeps them.
const MAX_WARNINGS: u32 = 32;

/// Tells of one device, in a span that names it.
pub(super) struct DeviceEvents {
    span: Span,
    warnings: AtomicU32,
}

impl DeviceEvents {
    /// Of the device in `slot`, within the span of whoever makes the machine.
    pub(super) fn new(slot: u32, kind: &'static str) -> Self {
        Self {
            span: tracing::error_span!("device", slot, kind),
            warnings: AtomicU32::new(0),
        }
    }

    /// Has `tell` tell of it, unless there were too many of these.
    fn warn(&self, tell: impl FnOnce()) {
        if !tracing::enabled!(tracing::Level::WARN) {
            return;
        }
        let before = self
            .warnings
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < MAX_WARNINGS).then_some(count + 1)
            });
        let Ok(before) = before else { return };
        self.span.in_scope(|| {
            tell();
            if before + 1 == MAX_WARNINGS {
                warn!("no more warnings about this device; its counters go on");
            }
        });
    }
}

impl VirtioEvents for DeviceEvents {
    fn driver_mistake(&self, mistake: &QueueError) {
        self.warn(|| warn!(%mistake, "the driver broke a queue"));
    }

    fn not_started(&self, error: &ActivateError) {
        let error: &(dyn Error + 'static) = error;
        self.warn(|| warn!(error, "the device did not start"));
    }

    fn host_failed(&self, error: &io::Error) {
        self.warn(|| warn!(%error, "the host did not do what a request asked for"));
    }

    fn invalid_access(&self, offset: u64) {
        self.span
            .in_scope(|| trace!(offset, "the guest wrote to no register"));
    }
}
