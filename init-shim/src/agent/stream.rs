//! The two outputs of a command.

use exec_proto::Reply;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// The frame that carries bytes of it.
    pub(super) fn reply(self, data: &[u8]) -> Reply<'_> {
        match self {
            Self::Stdout => Reply::Stdout(data),
            Self::Stderr => Reply::Stderr(data),
        }
    }
}
