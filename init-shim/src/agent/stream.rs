//! The two outputs of a command.

use exec_proto::{Kind, Reply};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// What such a frame is.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Stdout => Kind::Stdout,
            Self::Stderr => Kind::Stderr,
        }
    }

    /// The frame that carries bytes of it.
    pub(super) fn reply(self, data: &[u8]) -> Reply<'_> {
        match self {
            Self::Stdout => Reply::Stdout(data),
            Self::Stderr => Reply::Stderr(data),
        }
    }
}
