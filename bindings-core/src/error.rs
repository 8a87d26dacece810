//! Errors as words and sentences.

use std::error::Error as _;
use std::fmt;

use supermachine::{Error, ErrorKind};

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, BindingError>;

/// What went wrong, as a binding tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingError {
    /// A word for programs, which stays the same.
    pub code: &'static str,
    /// What a caller can do about it, as a word.
    pub kind: &'static str,
    /// What happened, with its causes.
    pub message: String,
    /// Whether the same call may work when it is made again.
    pub is_retryable: bool,
}

impl BindingError {
    fn new(code: &'static str, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            kind,
            message: message.into(),
            is_retryable: false,
        }
    }

    /// An argument is not valid.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new("invalid-argument", "configuration", message)
    }

    /// A machine or command was let go of before.
    pub fn released(what: &str) -> Self {
        Self::new(
            "released",
            "ended",
            format!("the {what} was released: use another one"),
        )
    }

    /// The caller does not want it any more.
    pub fn aborted() -> Self {
        Self::new("aborted", "ended", "the call was aborted")
    }

    /// The function that warms a machine up has failed.
    pub fn warmup(message: impl Into<String>) -> Self {
        Self::new("warmup", "guest", message)
    }

    /// Output went missing, or a stream broke.
    pub(crate) fn stream(error: &std::io::Error) -> Self {
        match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
            Some(error) => Self::from(error),
            None => Self::new("stream", "ended", error.to_string()),
        }
    }
}

impl From<&Error> for BindingError {
    fn from(error: &Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some say their cause themselves.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = error.source();
        }
        Self {
            code: error.code(),
            kind: word(error.kind()),
            message,
            is_retryable: error.is_retryable(),
        }
    }
}

impl From<Error> for BindingError {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl fmt::Display for BindingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BindingError {}

fn word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Configuration => "configuration",
        ErrorKind::NotFound => "not-found",
        ErrorKind::Installation => "installation",
        ErrorKind::Image => "image",
        ErrorKind::Rebake => "rebake",
        ErrorKind::Busy => "busy",
        ErrorKind::TimedOut => "timed-out",
        ErrorKind::Guest => "guest",
        ErrorKind::Ended => "ended",
        ErrorKind::Host => "host",
        ErrorKind::Defect => "defect",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_with_their_causes_once() {
        let error = supermachine::Image::load("oci:/no/such/place").unwrap_err();
        let told = BindingError::from(&error);
        assert_eq!(told.code, "image");
        assert!(told.message.contains("/no/such/place"), "{told}");
        assert_eq!(told.message.matches("No such file").count(), 1, "{told}");
        assert!(!told.is_retryable);
    }
}
