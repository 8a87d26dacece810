//! HTTP/1.1 as streams of bytes: what frames messages, read strictly. A request that two
//! readers could understand differently is refused, since a secret would be in the
//! header of one and in the body of the other.

mod body;
mod head;
mod requests;
mod responses;

pub(crate) use requests::Requests;
pub(crate) use responses::Responses;

/// Most bytes of a head.
pub(crate) const MAX_HEAD_BYTES: usize = 64 << 10;
/// Most fields of a head.
pub(crate) const MAX_FIELDS: usize = 128;
/// Most requests that wait for their answers.
pub(crate) const MAX_UNANSWERED: usize = 32;

/// What an answer has to be read by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The answer has no body, whatever it says of one.
    pub(crate) is_head: bool,
    /// The connection becomes another if the answer says so.
    pub(crate) wants_upgrade: bool,
}

/// What an answer means for requests behind the one it is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// More requests may follow.
    Ordinary,
    /// The connection is another from here on.
    Switched,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A head that is no HTTP/1, or could be read in two ways.
    #[error("the request is not HTTP/1.1 as RFC 9112 has it")]
    Request,
    /// More bytes or fields than are read.
    #[error("the request's head has more than 64 KiB or 128 fields")]
    TooLong,
    /// A method that would send the header back, or make a tunnel.
    #[error("the methods CONNECT and TRACE are not for hosts of secrets")]
    Method,
    /// A request for another host than the connection is to.
    #[error("the request names another host than the connection does")]
    Host,
    /// A body whose end two readers could see in two places.
    #[error("the length of the request's body is not said once and clearly")]
    Length,
    /// An answer that is none.
    #[error("the host's answer is not HTTP/1.1 as RFC 9112 has it")]
    Response,
}
