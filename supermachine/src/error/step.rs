//! What to do next, for errors whose own texts do not say it.

use super::cause::{Cause, Part};
use exec_proto::{ErrorKind as GuestKind, ProtoError};
use kernel::KernelError;
use oci_bake::{BakeError, ImageError};
use pool::PoolError;
use snapshot::SnapshotError;
use std::fmt;

/// The reason of the host comes after the text.
const CAUSE: &str = "; see to the cause";

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.part(), of_part(self.part()))
    }
}

/// The clause to end the text of a part's error with.
fn of_part(part: &Part) -> &'static str {
    match part {
        Part::Bake(BakeError::Cancelled) => "; start it again",
        Part::Bake(BakeError::Image(_) | BakeError::Layer { .. }) => {
            "; see to the cause, or use another image"
        }
        Part::Reference(ImageError::RegistryUnsupported { .. }) => "",
        Part::Reference(_) => {
            "; write the name of an image in a registry, oci:DIR[:TAG], oci-archive:FILE[:TAG], \
             docker-archive:FILE[:NAME:TAG] or docker:NAME"
        }
        // Each says what to do.
        #[cfg(feature = "pull")]
        Part::Registry(_) => "",
        Part::Assets(KernelError::Io { .. }) | Part::Bake(_) => CAUSE,
        // The others name a command or a variable.
        Part::Assets(_) => "",
        Part::Network(_) | Part::Secret(_) => "",
        Part::Resources(_) => "; ask for more, or leave it to the default",
        Part::Snapshot(error) => of_snapshot(error),
        Part::Pool(error) => of_pool(error),
        Part::Protocol(error) => of_protocol(error),
    }
}

fn of_snapshot(error: &SnapshotError) -> &'static str {
    match error {
        SnapshotError::Io { .. } => CAUSE,
        SnapshotError::NotWritten { .. } => "; see to that, and write it again",
        SnapshotError::Source(_) => "; start another machine",
        SnapshotError::TooLarge { .. } => "; bake an image with less",
        // The others say what to bake, wait for or stop.
        _ => "",
    }
}

fn of_pool(error: &PoolError) -> &'static str {
    match error {
        PoolError::Config(_) => "; set it otherwise in the PoolBuilder",
        PoolError::OverBudget { .. } => {
            "; give machines back sooner, or have them with less memory"
        }
        PoolError::CircuitOpen { .. } => "; see to the cause",
        PoolError::Closed => "; make another one",
        // Also what a later version may have.
        _ => "; give machines back sooner, or allow more of them",
    }
}

fn of_protocol(error: &ProtoError) -> &'static str {
    match error {
        ProtoError::Misuse { .. } => "; call it otherwise",
        ProtoError::VersionMismatch { .. } | ProtoError::NotThisProtocol => {
            "; use the init that was built with this version, and bake again"
        }
        _ => "; start another machine, and report it if its agent is ours",
    }
}

/// The same for what a guest could not do.
pub fn of_guest(kind: GuestKind) -> &'static str {
    match kind {
        GuestKind::NotFound => "; name a path that is there",
        GuestKind::NotExecutable => "; name a program that its user may run",
        GuestKind::BadRequest => "; ask for it otherwise",
        GuestKind::UnknownUser => "; name a user of the image",
        GuestKind::NoSuchCwd => "; name a directory of the image",
        GuestKind::Resources => "; give the machine more memory, or run less in it",
        GuestKind::Version => "; bake the image again",
        GuestKind::TooLarge => "; send or read less at once",
        GuestKind::NotRegularFile => "; name a regular file",
        GuestKind::Busy => "; try again later",
        GuestKind::NotPermitted => "; ask for what its user may do",
        GuestKind::Internal => "; report it",
        GuestKind::TimedOut => "; give it more time",
        GuestKind::WorkloadEnded => "; see to its output, and start another machine",
        // An error of the guest's system.
        _ => "; see to it in the guest",
    }
}
