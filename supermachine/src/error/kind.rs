//! Errors by what a caller can do about them.

use super::Error;
use super::cause::{Cause, Part};
use super::registry::of_registry;
use exec_proto::{ErrorKind as GuestKind, ProtoError};
use pool::PoolError;
use snapshot::SnapshotError;

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Ask for something else: this cannot be had, here or anywhere.
    Configuration,
    /// Name something that is there.
    NotFound,
    /// Install or build what is missing on this host.
    Installation,
    /// Use another image, or mend this one.
    Image,
    /// Bake the image again: its snapshot does not fit or is damaged.
    Rebake,
    /// Try again later, or ask for less: too much is going on.
    Busy,
    /// Give it more time, or find out what it waits for.
    TimedOut,
    /// Look at what the guest says: a program or the kernel in it failed.
    Guest,
    /// Start another machine: this one is over, or of no use any more.
    Ended,
    /// See to the host: it has refused a file, a call or memory.
    Host,
    /// Report it: a part of this crate does not keep to what it should.
    Defect,
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Image(_) => ErrorKind::Image,
            Self::Registry(cause) => of_registry(cause),
            Self::NoSuchVm { .. } | Self::NoSnapshot { .. } => ErrorKind::NotFound,
            Self::Assets(_) | Self::NoWorker { .. } => ErrorKind::Installation,
            Self::Reference(_)
            | Self::Resources(_)
            | Self::TooManyVcpus { .. }
            | Self::MemoryOutOfRange { .. }
            | Self::BadHostname { .. }
            | Self::Mount { .. }
            | Self::Volume { .. }
            | Self::NameTaken { .. }
            | Self::PortInUse { .. }
            | Self::Network(_)
            | Self::CopyTooLarge { .. }
            | Self::NoSuchField { .. }
            | Self::Unsuitable { .. }
            | Self::OutputTooLarge { .. } => ErrorKind::Configuration,
            Self::Rebake { .. } | Self::Damaged { .. } => ErrorKind::Rebake,
            Self::Snapshot(cause) => of_snapshot(cause),
            Self::Pool(cause) => of_pool(cause),
            Self::Exec { kind, .. } => of_guest(*kind),
            Self::Descriptors { .. } | Self::Paused | Self::VolumeInUse { .. } => ErrorKind::Busy,
            Self::Timeout { .. } => ErrorKind::TimedOut,
            Self::Warmup { .. }
            | Self::Workload { .. }
            | Self::BootFailed { .. }
            | Self::NotUnique { .. }
            | Self::VolumeUnusable { .. }
            | Self::Refused { .. } => ErrorKind::Guest,
            Self::Ended { .. }
            | Self::Worker { .. }
            | Self::Connection { .. }
            | Self::Cancelled => ErrorKind::Ended,
            Self::Start { .. } | Self::Output { .. } | Self::System { .. } | Self::Host { .. } => {
                ErrorKind::Host
            }
            Self::Protocol(cause) => of_protocol(cause),
        }
    }

    /// Whether the same call may work when it is made again, without anything
    /// being changed: what was too busy or too slow, and a copy that did not
    /// come up. What had begun in the guest may have been done.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), ErrorKind::Busy | ErrorKind::TimedOut)
            || matches!(self, Self::NotUnique { .. })
    }

    /// A word for programs and logs. It is the same in every version of this
    /// crate that has the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Image(_) => "image",
            Self::NoSuchVm { .. } => "no-such-vm",
            Self::Reference(_) => "reference",
            Self::Registry(_) => "registry",
            Self::Assets(_) => "assets",
            Self::NoWorker { .. } => "no-worker",
            Self::Worker { .. } => "worker",
            Self::Resources(_) => "resources",
            Self::Descriptors { .. } => "descriptors",
            Self::TooManyVcpus { .. } => "too-many-vcpus",
            Self::MemoryOutOfRange { .. } => "memory-out-of-range",
            Self::BadHostname { .. } => "bad-hostname",
            Self::Mount { .. } => "mount",
            Self::Volume { .. } => "volume",
            Self::VolumeInUse { .. } => "volume-in-use",
            Self::VolumeUnusable { .. } => "volume-unusable",
            Self::NameTaken { .. } => "name-taken",
            Self::PortInUse { .. } => "port-in-use",
            Self::Network(_) => "network",
            Self::CopyTooLarge { .. } => "copy-too-large",
            Self::NoSuchField { .. } => "no-such-field",
            Self::Start { .. } => "start",
            Self::Cancelled => "cancelled",
            Self::Paused => "paused",
            Self::Refused { .. } => "refused",
            Self::NoSnapshot { .. } => "no-snapshot",
            Self::Rebake { .. } => "rebake",
            Self::Damaged { .. } => "damaged",
            Self::Snapshot(_) => "snapshot",
            Self::Warmup { .. } => "warmup",
            Self::Workload { .. } => "workload",
            Self::Pool(_) => "pool",
            Self::NotUnique { .. } => "not-unique",
            Self::Unsuitable { .. } => "unsuitable",
            Self::BootFailed { .. } => "boot-failed",
            Self::Ended { .. } => "ended",
            Self::Exec { .. } => "exec",
            Self::Protocol(_) => "protocol",
            Self::Connection { .. } => "connection",
            Self::Output { .. } => "output",
            Self::System { .. } => "system",
            Self::OutputTooLarge { .. } => "output-too-large",
            Self::Timeout { .. } => "timeout",
            Self::Host { .. } => "host",
        }
    }
}

fn of_snapshot(cause: &Cause) -> ErrorKind {
    match cause.part() {
        Part::Snapshot(SnapshotError::Locked { .. }) => ErrorKind::Busy,
        Part::Snapshot(error) if error.wants_rebake() => ErrorKind::Rebake,
        _ => ErrorKind::Host,
    }
}

fn of_pool(cause: &Cause) -> ErrorKind {
    match cause.part() {
        Part::Pool(PoolError::Config(_)) => ErrorKind::Configuration,
        Part::Pool(PoolError::Closed) => ErrorKind::Ended,
        // Whether none was free, too large or failed to start: later it may work.
        _ => ErrorKind::Busy,
    }
}

fn of_protocol(cause: &Cause) -> ErrorKind {
    match cause.part() {
        // Refused on this side, before anything was sent: a file that is too large, a path
        // that is not absolute.
        Part::Protocol(ProtoError::Misuse { .. }) => ErrorKind::Configuration,
        // As of a guest that says so itself: its init is of another version.
        Part::Protocol(ProtoError::VersionMismatch { .. } | ProtoError::NotThisProtocol) => {
            ErrorKind::Rebake
        }
        _ => ErrorKind::Defect,
    }
}

fn of_guest(kind: GuestKind) -> ErrorKind {
    match kind {
        GuestKind::NotFound | GuestKind::UnknownUser | GuestKind::NoSuchCwd => ErrorKind::NotFound,
        GuestKind::BadRequest | GuestKind::TooLarge | GuestKind::NotRegularFile => {
            ErrorKind::Configuration
        }
        GuestKind::Resources | GuestKind::Busy => ErrorKind::Busy,
        GuestKind::TimedOut => ErrorKind::TimedOut,
        GuestKind::Version => ErrorKind::Rebake,
        GuestKind::Internal => ErrorKind::Defect,
        _ => ErrorKind::Guest,
    }
}
