//! What this engine needs of the processor: nothing beyond its baseline.

/// Whether the processor can run guests.
pub(super) fn can_run() -> bool {
    true
}
