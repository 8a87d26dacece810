//! What can be wrong with bytes from the other side.

use core::fmt;

/// A breach of the protocol, or a misuse of this side's state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtoError {
    /// The first frame does not start with the protocol's magic.
    NotThisProtocol,
    /// The two ends speak different versions.
    VersionMismatch {
        /// Version of this side.
        ours: u16,
        /// Version announced by the peer.
        theirs: u16,
    },
    /// A frame other than a hello came first.
    HelloExpected {
        /// Kind byte of the frame that came.
        kind: u8,
    },
    /// A kind byte that this version does not define in this direction.
    UnknownKind {
        /// Kind byte of the frame that came.
        kind: u8,
    },
    /// Reserved header bytes that are not zero.
    ReservedBits {
        /// Kind byte of the frame that came.
        kind: u8,
    },
    /// A frame longer than its kind allows.
    TooLong {
        /// Kind byte of the frame.
        kind: u8,
        /// Announced payload length in bytes.
        len: usize,
        /// Most bytes this kind may carry.
        max: usize,
    },
    /// A payload that does not follow its kind's layout.
    BadPayload {
        /// Kind byte of the frame.
        kind: u8,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A well-formed frame at a moment at which it makes no sense.
    Unexpected {
        /// Kind byte of the frame.
        kind: u8,
    },
    /// A stream of files that is not one ([`crate::tree`]).
    BadTree {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The caller asked this side's state machine for something it cannot do now.
    Misuse {
        /// What was wrong with the call.
        what: &'static str,
    },
}

impl fmt::Display for ProtoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThisProtocol => f.write_str("peer does not speak the exec protocol"),
            Self::VersionMismatch { ours, theirs } => write!(
                f,
                "peer speaks exec protocol version {theirs}, this side speaks version {ours}"
            ),
            Self::HelloExpected { kind } => {
                write!(f, "frame kind {kind:#04x} came before the hello")
            }
            Self::UnknownKind { kind } => write!(f, "unknown frame kind {kind:#04x}"),
            Self::ReservedBits { kind } => {
                write!(f, "reserved header bits set in frame kind {kind:#04x}")
            }
            Self::TooLong { kind, len, max } => write!(
                f,
                "frame kind {kind:#04x} announces {len} bytes, at most {max} allowed"
            ),
            Self::BadPayload { kind, what } => {
                write!(f, "bad payload in frame kind {kind:#04x}: {what}")
            }
            Self::Unexpected { kind } => write!(f, "unexpected frame kind {kind:#04x}"),
            Self::BadTree { what } => write!(f, "bad stream of files: {what}"),
            Self::Misuse { what } => f.write_str(what),
        }
    }
}

impl core::error::Error for ProtoError {}
