//! What the host is told when something does not work.

use std::io;

use exec_proto::{ErrorKind, Failure, ProtoError};

/// The failure that answers a breach of the protocol.
pub(super) fn breach(error: &ProtoError) -> Failure {
    let kind = match error {
        ProtoError::VersionMismatch { .. } | ProtoError::NotThisProtocol => ErrorKind::Version,
        _ => ErrorKind::BadRequest,
    };
    Failure {
        kind,
        errno: 0,
        message: error.to_string(),
    }
}

/// The failure that answers a request at a moment or of a form that is not one.
pub(super) fn bad_request(message: &str) -> Failure {
    Failure {
        kind: ErrorKind::BadRequest,
        errno: 0,
        message: message.to_owned(),
    }
}

/// The kernel does not let the agent do something.
pub(super) fn not_permitted(error: &io::Error, what: &str) -> Failure {
    Failure {
        kind: ErrorKind::NotPermitted,
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("{what}: {error}"),
    }
}

/// The failure that answers a request for which the guest has too little left.
pub(super) fn resources(error: &io::Error, what: &str) -> Failure {
    Failure {
        kind: ErrorKind::Resources,
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("cannot set up the {what}: {error}"),
    }
}

/// Most of a name that a failure repeats: an argument may have two megabytes, a
/// message has to fit its frame with all that is said about it.
const NAME_BYTES: usize = 256;

pub(super) fn shortened(name: &[u8]) -> String {
    match name.get(..NAME_BYTES) {
        Some(head) if name.len() > NAME_BYTES => format!("{}…", String::from_utf8_lossy(head)),
        _ => String::from_utf8_lossy(name).into_owned(),
    }
}
