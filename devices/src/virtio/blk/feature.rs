//! Feature bits (virtio 1.2 §5.2.3).

pub(super) const SIZE_MAX: u64 = 1 << 1;
pub(super) const SEG_MAX: u64 = 1 << 2;
pub(super) const RO: u64 = 1 << 5;
pub(super) const BLK_SIZE: u64 = 1 << 6;
pub(super) const FLUSH: u64 = 1 << 9;
pub(super) const MQ: u64 = 1 << 12;
pub(super) const DISCARD: u64 = 1 << 13;
pub(super) const WRITE_ZEROES: u64 = 1 << 14;
