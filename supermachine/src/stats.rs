//! What a machine has used so far.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a machine has used so far, and what it has now. As JSON, times are whole
/// microseconds in fields whose names end in `_us`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VmStats {
    /// Since it was booted, copied or forked; resets do not start it over.
    #[serde(rename = "uptime_us", with = "micros")]
    pub uptime: Duration,
    /// Processor time of the host that its worker has used: for the guest, its
    /// devices and its start.
    #[serde(rename = "cpu_us", with = "micros")]
    pub cpu: Duration,
    /// Of this, what its vCPUs spent in the guest's own code, as a clock shows it: on a
    /// busy host, more than it used. While the guest waits for interrupts this stands
    /// still.
    #[serde(rename = "guest_us", with = "micros", default)]
    pub guest: Duration,
    /// Instructions that its vCPUs had begun when each last exited or began to wait,
    /// if they are counted: all by [`Tier::Count`](crate::Tier::Count), by
    /// [`Tier::Census`](crate::Tier::Census) those of compiled code.
    #[serde(default)]
    pub instructions: Option<u64>,
    /// It is paused.
    pub is_paused: bool,
    /// Virtual CPUs that it has.
    pub vcpus: u32,
    /// Its memory.
    pub memory: MemoryStats,
    /// Page faults of its worker, where the system tells.
    pub faults: Option<FaultStats>,
    /// How often its engine stopped running the guest.
    pub exits: ExitStats,
    /// Its disks, the lowest layer first.
    pub disks: Vec<DiskStats>,
    /// Its network, if it has one.
    #[serde(default)]
    pub network: Option<NetworkStats>,
    /// What copying and resetting it took.
    pub restore: RestoreStats,
}

/// A machine's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Memory that the guest has, in bytes.
    pub guest_bytes: u64,
    /// Of the memory it booted with, what it gave up to its balloon.
    pub ballooned_bytes: u64,
    /// What it got beside the memory it booted with.
    pub added_bytes: u64,
    /// Of the memory it booted with, what is in the host's memory or swap for it, a
    /// snapshot's pages that it shares included. `None` where the system does not
    /// tell.
    pub touched_bytes: Option<u64>,
    /// What its worker has to itself of the host's memory. `None` where the system
    /// does not tell.
    pub host_bytes: Option<u64>,
}

/// Page faults of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FaultStats {
    /// Without waiting for a disk.
    pub minor: u64,
    /// With.
    pub major: u64,
}

/// How often an engine stopped running a guest, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExitStats {
    /// For all reasons.
    pub total: u64,
    /// A device was read.
    pub mmio_reads: u64,
    /// A device was written.
    pub mmio_writes: u64,
    /// The guest called its firmware.
    pub firmware: u64,
    /// The guest waited for an interrupt.
    pub waits: u64,
    /// Another thread wanted something of the vCPU.
    pub kicks: u64,
}

/// What a disk has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiskStats {
    /// Requests that read.
    pub reads: u64,
    /// Bytes of these.
    pub read_bytes: u64,
    /// Requests that wrote.
    pub writes: u64,
    /// Bytes of these.
    pub written_bytes: u64,
}

/// What a machine's network has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkStats {
    /// Connections that the guest has begun.
    pub connections: u64,
    /// What it wanted to reach and may not.
    pub refused: u64,
    /// Names that were looked up for it.
    pub look_ups: u64,
    /// Bytes that others got from it, without headers.
    pub sent_bytes: u64,
    /// Bytes that it got, without headers.
    pub received_bytes: u64,
    /// Times that a flow waited for its part of a rate.
    #[serde(default)]
    pub waits: u64,
    /// Datagrams of the guest's that were beyond the rate, and lost.
    #[serde(default)]
    pub lost_datagrams: u64,
}

/// What copying and resetting a machine took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RestoreStats {
    /// How often it was brought back to its snapshot.
    pub resets: u64,
    /// Pages of 4 KiB that resets copied back. Those that were mapped afresh, because
    /// there were many, are not counted.
    pub pages_restored: u64,
    /// Pages of 4 KiB that were read ahead when it was copied: the snapshot's working
    /// set.
    pub pages_prefetched: u64,
    /// Of these, pages that it has touched. `None` where the system does not tell.
    pub prefetch_hits: Option<u64>,
}

/// Durations as whole microseconds.
pub(crate) mod micros {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_whole_microseconds() {
        let stats = VmStats {
            uptime: Duration::from_millis(5),
            cpu: Duration::from_nanos(1_999),
            ..VmStats::default()
        };
        let json = serde_json::to_value(&stats).unwrap();
        assert_eq!(
            (&json["uptime_us"], &json["cpu_us"]),
            (&5_000.into(), &1.into())
        );
        let read: VmStats = serde_json::from_value(json).unwrap();
        assert_eq!(read.uptime, stats.uptime);
    }
}
