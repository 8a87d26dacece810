//! Bits of [`VcpuShared::attention`](super::VcpuShared::attention).

/// `hv_vcpus_exit`: latched until a run returns `CANCELED`.
pub const KICK: u32 = 1;
/// The virtual IRQ line went high: read `Gic::irq_line` again.
pub const IRQ: u32 = 1 << 1;
/// A timer deadline passed: call `VcpuTimers::poll`.
pub const TIMER: u32 = 1 << 2;
/// TLB invalidations are in the mailbox.
pub const TLB: u32 = 1 << 3;
/// Code invalidations are in the mailbox.
pub const CODE: u32 = 1 << 4;
/// The IPA map changed: refresh the view and flush the whole TLB.
pub const MAP: u32 = 1 << 5;
/// Pages count as clean again, or other ones are followed.
pub const DIRTY: u32 = 1 << 6;

/// What [`VcpuShared::take_mail`](super::VcpuShared::take_mail) clears.
pub const MAIL: u32 = TLB | CODE | MAP | DIRTY;
/// What ends a WFI. Mail does not: a parked vCPU takes it when it wakes.
pub const WAKE: u32 = KICK | IRQ | TIMER;
